"""Configurations: YAML and `key=value` overrides as typed dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

Schema = TypeVar("Schema")


def load_config(schema: type[Schema], path: Path, overrides: Sequence[str] = ()) -> Schema:
    """Read a YAML file and `key=value` overrides into a typed, frozen dataclass.

    Args:
        schema: dataclass with the keys, their types and defaults.
        path: YAML file; it holds only what differs from the defaults.
        overrides: dotted keys, e.g. "model.unet.channels=64".

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a folder, not YAML, an unknown key, or a value of the wrong type; names it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if path.is_dir():
        raise ValueError(f"{path}: is a folder, expected a configuration file (YAML)")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file")
    where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    try:
        read = OmegaConf.load(path)
        if OmegaConf.is_dict(read) and "target" in (OmegaConf.select(read, "model") or {}):
            raise ValueError(
                "is a configuration of the published code, which names classes; this project's "
                "own are in configs/"
            )
        merged = OmegaConf.merge(
            OmegaConf.structured(schema), read, OmegaConf.from_dotlist(list(overrides))
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


def check_positive(config: object, from_zero: Collection[str] = ()) -> None:
    """Raise ValueError if a whole number in a dataclass of sizes, or in a tuple, is below 1.

    Args:
        config: the dataclass; fields of other types than int are not checked.
        from_zero: names of the fields that count from 0, and may be 0.
    """
    for item in fields(config):  # type: ignore[arg-type]
        least = 0 if item.name in from_zero else 1
        value = getattr(config, item.name)
        values = value if isinstance(value, tuple) else (value,)
        numbers = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
        if any(v < least for v in numbers):
            wanted = "positive" if least else "0 or more"
            raise ValueError(f"{type(config).__name__}.{item.name} must be {wanted}, got {value}")
