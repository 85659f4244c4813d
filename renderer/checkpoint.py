"""Checkpoints of reconstructions: the state of a run, and what it is a run of."""

from __future__ import annotations

import errno
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from common.files import atomic_write

FORMAT = 1
"""Raised when what a checkpoint holds changes."""
ANEW = "begin anew with --overwrite"
NOTHING_TO_RESUME = (
    "no checkpoint to resume from; start without --resume, or with --overwrite where results are "
    "already"
)

_CONTENT: dict[str, type | tuple[type, ...]] = {
    "settings": Mapping,
    "seed": int,
    "views": str,
    "state": Mapping,
    "seconds": (int, float),
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST = 40
"""Characters of a value in a message."""


@dataclass(frozen=True)
class Identity:
    """What a run is a run of; it goes on only with the same.

    Attributes:
        settings: of the configuration, as nested dictionaries of plain values.
        seed: of all random numbers.
        views: hash of the input.
    """

    settings: Mapping[str, Any]
    seed: int
    views: str


def write_checkpoint(
    path: Path, identity: Identity, state: Mapping[str, Any], seconds: float
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: of the file; its folder is made.
        identity: of the run.
        state: tensors and plain values.
        seconds: that the run has taken so far.

    Raises:
        OSError: it cannot be written; what was there before is kept.
    """
    path.parent.mkdir(exist_ok=True)
    content = {"format": FORMAT, **asdict(identity), "state": state, "seconds": seconds}
    buffer = io.BytesIO()  # torch's own writing hides why a disk takes no more
    torch.save(content, buffer)
    with atomic_write(path) as temporary:
        try:
            temporary.write_bytes(buffer.getbuffer())
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            then = "go on with --resume" if path.exists() else ANEW
            raise OSError(f"{error.strerror}: free some space, then {then}") from error


def read_checkpoint(path: Path, identity: Identity) -> tuple[dict[str, Any], float]:
    """Read the checkpoint of the very run that is to go on. Nothing in the file is executed.

    Returns:
        the state, and the seconds that the run has taken.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is damaged, or of another run; says in what it differs.
    """
    content = _read(path)
    differences = list(_differences("", content["settings"], identity.settings))
    if content["seed"] != identity.seed:
        differences.append(f"seed was {content['seed']}, is {identity.seed}")
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise ValueError(
            f"{path}: the checkpoint is of another configuration: {', '.join(differences[:3])}"
            f"{more}; resume with the same flags, or {ANEW}"
        )
    if content["views"] != identity.views:
        raise ValueError(
            f"{path}: the checkpoint is of other views than the input's; {ANEW}, or take another "
            f"--name"
        )
    return content["state"], float(content["seconds"])


def _read(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, with all its keys, each of the right type."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {NOTHING_TO_RESUME}")
    try:
        stored = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        content = torch.load(stored, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged files raise has no common base
        # What torch says is long, and advises to run what is in the file
        raise ValueError(
            f"{path}: the checkpoint is damaged, or not one of this command; {ANEW}"
        ) from error
    if not isinstance(content, dict) or "state" not in content or "format" not in content:
        raise ValueError(f"{path}: not a checkpoint of this command; {ANEW}")
    version = content["format"]
    if not isinstance(version, int) or version != FORMAT:
        raise ValueError(
            f"{path}: the checkpoint is of another version (format {_short(version)}, "
            f"expected {FORMAT}); {ANEW}"
        )
    for name, kind in _CONTENT.items():
        if name not in content:
            raise ValueError(f"{path}: the checkpoint is damaged ({name} is missing); {ANEW}")
        value = content[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(
                f"{path}: the checkpoint is damaged ({name} is {_short(value)}); {ANEW}"
            )
    if not 0 <= content["seconds"] < math.inf:
        raise ValueError(
            f"{path}: the checkpoint is damaged (seconds is {content['seconds']}); {ANEW}"
        )
    return content


def _differences(prefix: str, then: Any, now: Any) -> Iterator[str]:
    """Say where two nested dictionaries differ, single values before whole sections."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = sorted({*then, *now}, key=str)
        for key in sorted(keys, key=lambda k: isinstance(then.get(k, now.get(k)), Mapping)):
            yield from _differences(f"{prefix}.{key}", then.get(key), now.get(key))
    elif repr(then) != repr(now):  # a damaged file may hold what cannot be compared
        yield f"{_short(prefix[1:])} was {_short(then)}, is {_short(now)}"


def _short(value: Any) -> str:
    """One line of a value, or the beginning of it."""
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
