"""Index files of a training set: uid_set.pkl, render_settings.json, failures.csv."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterable
from pathlib import Path

from blender.job import LOGS, RenderResult
from common.files import atomic_write
from common.safe_pickle import read_pickle

UID_SET = "uid_set.pkl"
SETTINGS = "render_settings.json"
FAILURES = "failures.csv"


def check_settings(out: Path, settings: dict[str, object]) -> None:
    """Save the settings of a data set; ValueError that names those that differ from saved ones."""
    path = out / SETTINGS
    if not path.exists():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n")
        return
    try:
        recorded = json.loads(path.read_text())
        names = sorted({*settings, *recorded})
        changed = [name for name in names if settings.get(name) != recorded.get(name)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of render settings ({error})") from error
    if changed:
        changes = ", ".join(f"{n} {recorded.get(n)}, not {settings.get(n)}" for n in changed)
        raise ValueError(f"{out} was rendered with {changes}; use the same or another folder")


def read_uid_set(path: Path) -> list[str]:
    """Read the list of objects of a data set, without executing code in an untrusted pickle.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not a pickled list of strings.
    """
    uids = read_pickle(path)
    if not isinstance(uids, list | tuple) or not all(isinstance(uid, str) for uid in uids):
        raise ValueError(f"{path}: expected a pickled list of object names")
    return list(uids)


def add_to_uid_set(out: Path, sets: Iterable[str], done: Iterable[str]) -> int:
    """Add complete objects to the list, drop those without folders in `sets`; return its length."""
    path = out / UID_SET
    before = read_uid_set(path) if path.exists() else []
    existing = [uid for uid in before if all((out / name / uid).is_dir() for name in sets)]
    uids = sorted({*existing, *done})
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(uids, protocol=4))
    return len(uids)


def write_failures(out: Path, failures: Iterable[RenderResult]) -> None:
    """Write the table of failed objects, sorted by uid."""
    with (
        atomic_write(out / FAILURES) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(["uid", "model", "error", "attempts", "seconds", "log"])
        for result in sorted(failures, key=lambda result: result.dataset_object.uid):
            uid, path = result.dataset_object.uid, result.dataset_object.path
            log = out / LOGS / f"{uid}.log"
            seconds, log_path = f"{result.seconds:.1f}", log if log.is_file() else ""
            table.writerow([uid, path, result.error, result.attempts, seconds, log_path])
