"""The files of a training tree beside the views: the list of objects, settings, failures."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterable
from pathlib import Path

from blender.job import LOGS, Outcome
from common.files import atomic_write
from common.safe_pickle import read_pickle

UID_SET = "uid_set.pkl"
SETTINGS = "render_settings.json"
FAILURES = "failures.csv"


def check_settings(out: Path, settings: dict[str, object]) -> None:
    """Record how a tree's views are rendered, or compare with what is recorded.

    Raises:
        ValueError: the tree was rendered with other settings, which would be mixed; names them.
    """
    path = out / SETTINGS
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n")
        return
    try:
        recorded = json.loads(path.read_text())
        changed = sorted(
            name for name in {*settings, *recorded} if settings.get(name) != recorded.get(name)
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it if you know better") from error
    if changed:
        said = ", ".join(f"{n} {recorded.get(n)}, not {settings.get(n)}" for n in changed)
        raise ValueError(f"{out} was rendered with {said}; give the same, or another folder")


def read_uid_set(path: Path) -> list[str]:
    """Read the list of objects of a tree, which need not be trusted.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no pickled list of texts; nothing of it is run.
    """
    uids = read_pickle(path)
    if not isinstance(uids, list | tuple) or not all(isinstance(uid, str) for uid in uids):
        raise ValueError(f"{path}: expected a pickled list of names of objects")
    return list(uids)


def add_to_uid_set(out: Path, sets: Iterable[str], done: Iterable[str]) -> int:
    """Add objects to the list of those that are complete; those whose folders went are left out.

    Returns:
        how many there are now.
    """
    path = out / UID_SET
    before = read_uid_set(path) if path.exists() else []
    there = [uid for uid in before if all((out / name / uid).is_dir() for name in sets)]
    uids = sorted({*there, *done})
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(uids, protocol=4))
    return len(uids)


def write_failures(out: Path, failures: Iterable[Outcome]) -> None:
    """Write the table of the objects that failed, by uid."""
    with (
        atomic_write(out / FAILURES) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(["uid", "model", "error", "attempts", "seconds", "log"])
        for item in sorted(failures, key=lambda outcome: outcome.model.uid):
            log = out / LOGS / f"{item.model.uid}.log"
            table.writerow([
                item.model.uid, item.model.path, item.error, item.attempts,
                f"{item.seconds:.1f}", log if log.is_file() else "",
            ])  # fmt: skip
