"""Checkpoints, and the run fingerprint (settings, seed, input hash) that resuming requires."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from common.files import atomic_write, stand_in

FORMAT = 1
"""Version of a checkpoint's content."""

Kind = type | tuple[type, ...]
_NUMBER = (int, float)
_MAX_LENGTH = 40
"""Characters of a value in a message."""


class CheckpointError(ValueError):
    """The checkpoint is damaged, or not one of this program."""


class CheckpointMismatchError(ValueError):
    """The checkpoint belongs to a run with other settings, another seed or other views."""


class NoCheckpointError(FileNotFoundError):
    """There is no checkpoint to resume from."""


@dataclass(frozen=True)
class RunFingerprint:
    """What must be equal to resume: settings (plain values), seed, and the hash of the input."""

    settings: Mapping[str, Any]
    seed: int
    views: str


def write_checkpoint(
    path: Path, fingerprint: RunFingerprint, state: Mapping[str, Any], seconds: float
) -> None:
    """Write a checkpoint atomically, its folder too; OSError keeps an older one.

    The state has tensors and plain values; `seconds` is the run time so far.
    """
    path.parent.mkdir(exist_ok=True)
    content = {"format": FORMAT, **asdict(fingerprint), "state": state, "seconds": seconds}
    buffer = io.BytesIO()  # torch's own writer hides the reason when the disk is full
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Path, fingerprint: RunFingerprint) -> tuple[dict[str, Any], float]:
    """Read state and run time in seconds of the same run. Nothing in the file is executed.

    Raises:
        NoCheckpointError: the file does not exist.
        OSError: it cannot be read.
        CheckpointError: it is damaged.
        CheckpointMismatchError: it belongs to another run; says what differs.
    """
    content = _read(path)
    differences = list(_differences("", content["settings"], fingerprint.settings))
    if content["seed"] != fingerprint.seed:
        differences.append(f"seed was {content['seed']}, is {fingerprint.seed}")
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise CheckpointMismatchError(
            f"{path}: the checkpoint has another configuration: {', '.join(differences[:3])}{more}"
        )
    if content["views"] != fingerprint.views:
        raise CheckpointMismatchError(f"{path}: the checkpoint was trained on other views")
    return content["state"], float(content["seconds"])


def _read(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, and check its keys and types."""
    if not path.is_file():
        raise NoCheckpointError(f"{path}: no checkpoint to resume from")
    try:
        stored = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from error
    if what := stand_in(stored.getvalue()[:512], "a checkpoint"):
        raise CheckpointError(f"{path}: {what}")
    try:
        content = torch.load(stored, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged files raise has no common base
        # torch's message is long, and suggests to execute the file
        raise CheckpointError(f"{path}: damaged, or not a checkpoint") from error
    if not isinstance(content, dict) or "state" not in content or "format" not in content:
        raise CheckpointError(f"{path}: not a checkpoint of a reconstruction")
    version = content["format"]
    if not isinstance(version, int) or version != FORMAT:
        found = f"format {_shorten(version)}, expected {FORMAT}"
        raise CheckpointError(f"{path}: the checkpoint has {found}")
    try:
        check_parts(content, settings=Mapping, seed=int, views=str, state=Mapping, seconds=_NUMBER)
        if not 0 <= content["seconds"] < math.inf:
            raise ValueError(f"seconds is {content['seconds']}")
    except ValueError as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged ({error})") from error
    return content


def check_parts(content: Mapping[str, Any], **kinds: Kind) -> None:
    """Raise ValueError if a named part is missing, or not of its type."""
    for name, kind in kinds.items():
        if name not in content:
            raise ValueError(f"{name} is missing")
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise ValueError(f"{name} is {_shorten(content[name])}")


def _differences(prefix: str, then: Any, now: Any) -> Iterator[str]:
    """Yield where two nested dictionaries differ, single values before whole sections.

    Keys that only `then` has are not compared: they were settings of an older version.
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in sorted(now, key=lambda k: (isinstance(then.get(k, now[k]), Mapping), k)):
            yield from _differences(f"{prefix}.{key}", then.get(key), now.get(key))
    elif repr(then) != repr(now):  # a damaged file may hold what cannot be compared
        yield f"{_shorten(prefix[1:])} was {_shorten(then)}, is {_shorten(now)}"


def _shorten(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..."
