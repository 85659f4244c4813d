"""Checkpoints of reconstructions: the state of a run, and what it is a run of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from multiview.runtime import atomic_write

FORMAT = 1
"""Raised when what a checkpoint holds changes."""
ANEW = "begin anew with --overwrite"


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
    """
    path.parent.mkdir(exist_ok=True)
    content = {"format": FORMAT, **asdict(identity), "state": state, "seconds": seconds}
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(str(error).splitlines()[0]) from error


def read_checkpoint(path: Path, identity: Identity) -> tuple[dict[str, Any], float]:
    """Read the checkpoint of the very run that is to go on. Nothing in the file is executed.

    Returns:
        the state, and the seconds that the run has taken.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another run; says in what it differs.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged files raise has no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: the checkpoint is damaged ({reason}); {ANEW}") from error
    if not isinstance(content, dict) or "state" not in content:
        raise ValueError(f"{path}: not a checkpoint of this command; {ANEW}")
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{path}: the checkpoint is of another version (format {content.get('format')}, "
            f"expected {FORMAT}); {ANEW}"
        )
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


def _differences(prefix: str, then: Any, now: Any) -> Iterator[str]:
    """Say where two nested dictionaries differ."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in sorted({*then, *now}):
            yield from _differences(f"{prefix}.{key}", then.get(key), now.get(key))
    elif then != now:
        yield f"{prefix[1:]} was {then}, is {now}"
