"""Index files of a training set: uid_set.pkl, render_settings.json, failures.csv, warnings.csv."""

from __future__ import annotations

import csv
import json
import logging
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blender.job import LOGS, RenderResult, RenderSetup
from common.files import atomic_write
from common.uid_set import read_uid_set

log = logging.getLogger(__name__)

UID_SET = "uid_set.pkl"
SETTINGS = "render_settings.json"
FAILURES = "failures.csv"
WARNINGS = "warnings.csv"


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
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: not a file of render settings ({error})") from error
    if changed:
        changes = ", ".join(f"{n} {recorded.get(n)}, not {settings.get(n)}" for n in changed)
        raise ValueError(f"{out} was rendered with {changes}; use the same or another folder")


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
    rows = []
    for result in failures:
        uid, path = result.dataset_object.uid, result.dataset_object.path
        output = out / LOGS / f"{uid}.log"
        written = output if result.attempts and output.is_file() else ""
        rows.append([uid, path, result.error, result.attempts, f"{result.seconds:.1f}", written])
    _write_table(out / FAILURES, ["uid", "model", "error", "attempts", "seconds", "log"], rows)


def write_warnings(out: Path, results: Iterable[RenderResult]) -> None:
    """Write the table of what was not rendered as it is meant, sorted by uid.

    Rows of objects that were not rendered now are kept from the last run.
    """
    path, now = out / WARNINGS, [result for result in results if result.attempts]
    rendered = {result.dataset_object.uid for result in now}
    rows: list[list[Any]] = []
    if path.is_file():
        try:
            with path.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
                rows = [row for row in list(csv.reader(file))[1:] if row and row[0] not in rendered]
        except csv.Error as error:
            log.warning("%s: damaged (%s): warnings of earlier runs are lost", path, error)
    for result in now:
        model = result.dataset_object
        rows += [[model.uid, model.path, warning] for warning in result.warnings]
    if rows or path.is_file():
        _write_table(path, ["uid", "model", "warning"], rows)


def _write_table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with (
        atomic_write(path) as temporary,
        # names may be no valid text
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows([header, *sorted(rows, key=lambda row: row[0])])


def render_dataset(
    results: Iterator[RenderResult], total: int, setup: RenderSetup, image_settings: dict[str, Any]
) -> int:
    """Write the lists of complete and of failed objects, also on interruption; count the latter.

    `results` is a generator of `total` results, see `blender.engines`; it is closed at the end.
    `image_settings` determine the images, besides the views; ValueError if the data set has others.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if (setup.out / UID_SET).exists():
        read_uid_set(setup.out / UID_SET)  # before the work: it cannot be extended if it is none
    views = {name: asdict(settings) for name, settings in setup.sets.items()}
    check_settings(setup.out, {**image_settings, **views})
    collected: list[RenderResult] = []
    try:
        with logging_redirect_tqdm():
            for result in tqdm(results, total=total, unit="object", disable=None):
                collected.append(result)
                if result.error is not None:
                    log.warning("%s: %s", result.dataset_object.uid, result.error)
                for warning in result.warnings:
                    log.warning("%s: %s", result.dataset_object.uid, warning)
    finally:
        results.close()  # type: ignore[attr-defined]
        failures = [result for result in collected if result.error is not None]
        done = [result.dataset_object.uid for result in collected if result.error is None]
        write_failures(setup.out, failures)
        write_warnings(setup.out, collected)
        listed = add_to_uid_set(setup.out, setup.sets, done)
    skipped = sum(result.attempts == 0 for result in collected if result.error is None)
    text = "%d objects rendered, %d were complete; %s lists %d"
    log.info(text, len(done) - skipped, skipped, setup.out / UID_SET, listed)
    if warned := sum(bool(result.warnings) for result in collected):
        text = "%d objects are not rendered as they are meant, see %s; --strict makes them fail"
        log.warning(text, warned, setup.out / WARNINGS)
    if failures:
        log.error("%d of %d objects failed, see %s", len(failures), total, setup.out / FAILURES)
    return len(failures)
