"""Configurations: YAML and `key=value` overrides as typed dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from common.files import read_text

Schema = TypeVar("Schema")


def load_config(schema: type[Schema], path: Path, overrides: Sequence[str] = ()) -> Schema:
    """Read a YAML file and overrides such as "model.unet.channels=64" into a typed dataclass.

    The file holds only what differs from the defaults of `schema`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a folder, not YAML in UTF-8, an unknown key, or a value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import BaseLoader, YAMLError
    from yaml import load as load_yaml

    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a configuration file (YAML)")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    text = read_text(path)
    where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    try:
        read, written = OmegaConf.load(StringIO(text)), load_yaml(text, BaseLoader) or {}
        if not isinstance(written, dict):
            raise ValueError("is no configuration: expected names and values, such as `seed: 1`")
        if "target" in (OmegaConf.select(read, "model") or {}):
            raise ValueError(
                "is a configuration of the published code, which names classes; this project's "
                "own are in configs/"
            )
        _keep_texts(schema, read, written)
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), read, *(_override(schema, text) for text in overrides)
        )
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or error
        raise ValueError(f"{where}: not valid YAML{line}: {reason}") from error
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise ValueError(f"{where}: {key}{str(error).splitlines()[0]}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error


def _keep_texts(kind: Any, read: Any, written: Any) -> None:
    """Put back those texts and paths that YAML took for numbers, dates or truth values."""
    hints = get_type_hints(kind) if is_dataclass(kind) else {}
    for key in hints.keys() & written.keys():
        value = written[key]
        if isinstance(value, dict):
            _keep_texts(hints[key], read[key], value)
        elif hints[key] in (str, Path) and isinstance(read[key], int | float | bytes):
            read[key] = value


def _override(schema: type, text: str) -> Any:
    """Parse "key=value"; the value of a text or path is taken as it stands, others are YAML.

    Quotes around the whole of a text are removed, as in "key=''", which is empty.
    """
    from omegaconf import OmegaConf

    key, equals, value = text.partition("=")
    kind: Any = schema
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not equals or kind not in (str, Path) or quoted:
        return OmegaConf.from_dotlist([text])
    config = OmegaConf.create()
    OmegaConf.update(config, key, value.replace("${", r"\${"))
    return config


def check_positive(config: object, from_zero: Collection[str] = ()) -> None:
    """Raise ValueError if a whole number in a dataclass of sizes, or in a tuple of it, is below 1.

    Fields whose names are in `from_zero` may be 0; fields of other types are not checked.
    """
    for item in fields(config):  # type: ignore[arg-type]
        least = 0 if item.name in from_zero else 1
        value = getattr(config, item.name)
        values = value if isinstance(value, tuple) else (value,)
        if any(type(v) is int and v < least for v in values):
            wanted = "positive" if least else "0 or more"
            raise ValueError(f"{type(config).__name__}.{item.name} must be {wanted}, got {value}")
