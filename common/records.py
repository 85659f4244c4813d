"""Records of what results were made from, and a folder whose results are kept while they agree.

A step of a `RunDirectory` has a record steps/<name>.json, the last file that it writes: its
settings, checksums of its input and output files, its facts, and its seconds.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from common.files import atomic_write, file_lock, sha256, unwritable

log = logging.getLogger(__name__)

RECORDS = "steps"
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\..+)?")
"""Names of unfinished files of `common.files.atomic_write`."""

Facts = dict[str, Any]
"""Values that a step found besides its files, as plain JSON."""


def read_json(path: Path) -> Any:
    """Content of a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


class ReplaceError(FileExistsError):
    """Existing files would be replaced that are not results of the same input and settings."""


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def make_writable(folder: Path, named: Path) -> None:
    """Create a folder; raise OSError, naming another one, if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(unwritable(named, error)) from error


@dataclass(frozen=True)
class Record:
    """A JSON file that says what results were made from.

    `checksums` names its part that holds the results' checksums, `parts` those that are objects; a
    file without them is no record.
    """

    path: Path
    checksums: str
    parts: tuple[str, ...] = ("settings",)
    on_change: Literal["redo", "refuse"] = "redo"
    """What `current` does about results that were made from something else."""

    def read(self) -> dict[str, Any] | None:
        """Read the file; None if it is missing, damaged, or no record."""
        found = read_json(self.path)
        if not isinstance(found, dict) or self.checksums not in found:
            return None
        return found if all(isinstance(found.get(part), dict) for part in self.parts) else None

    def current(
        self, results: Sequence[Path], origin: dict[str, dict[str, Any]], sums: Callable[[], Any]
    ) -> dict[str, Any] | None:
        """The record, if all result files exist and were made from `origin`; else None.

        `origin` is by the parts of the record; `sums` computes the results' checksums.

        Raises:
            ReplaceError: they were made from something else, where `on_change` is "refuse".
        """
        record = self.read()
        if record is None or not all(path.is_file() for path in results):
            return None
        older_may_have_more = ["settings"] if self.on_change == "redo" else []
        changes = ", ".join(
            f"{key} was {record[part].get(key)!r}, now {now.get(key)!r}"
            for part, now in origin.items()
            for key in sorted(now if part in older_may_have_more else {*record[part], *now})
            if not _still_holds(record[part].get(key), now.get(key))
        )
        if not changes and record[self.checksums] == sums():
            return record
        if self.on_change == "refuse":
            changes = changes or "it is not the file that was written then"
            raise ReplaceError(f"{results[0]}: was made with other settings ({changes})")
        return None


@dataclass(frozen=True)
class Step:
    """A step: the name of its record, settings as plain JSON, input files and result files.

    Its results, inside the folder, depend on the settings and the inputs only.
    """

    name: str
    settings: dict[str, Any]
    inputs: Sequence[Path]
    results: Sequence[Path]


@dataclass
class RunDirectory:
    """The folder of one image's results, with the records of its steps.

    Attributes:
        folder: of all results.
        overwrite: redo every step.
        current: name of the running step.
        done: names of the steps that were run, not kept, in order.
        names: of all steps, in order.
        summary: name of the file that describes all results; removed before any step runs.
        checksums: known ones, of files that do not change during the run.
    """

    folder: Path
    overwrite: bool = False
    current: str = ""
    done: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    summary: str | None = None
    checksums: dict[Path, str] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Create and lock the folder, and remove temporary files of killed runs.

        Raises:
            ReplaceError: it holds files of other origin, and not `overwrite`.
            NotADirectoryError: something else has the name of the folder.
            OSError: another process is writing there, or nothing can be written there.
        """
        for path in (self.folder, *self.folder.parents):
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(f"{path}: is a file, expected a folder for the results")
        records = self.folder / RECORDS
        foreign = self.folder.is_dir() and not records.is_dir() and any(self.folder.glob("[!.]*"))
        if foreign and not self.overwrite:
            raise ReplaceError(f"{self.folder}: holds files that are not results of this command")
        make_writable(records, self.folder)
        with file_lock(records, wait=False):
            for path in [*self.folder.glob(".*.tmp*"), *self.folder.glob("*/.*.tmp*")]:
                if _TEMPORARY.fullmatch(path.name):
                    with suppress(OSError):
                        path.unlink()
            yield

    def check_same_input(self, name: str, path: Path) -> None:
        """Raise ReplaceError if a step was run for an input of another name and content."""
        inputs = (self.record(name).read() or {}).get("inputs")
        if self.overwrite or inputs is None or path.name in inputs:
            return
        if self._checksum(path) not in inputs.values():
            names = ", ".join(inputs)
            raise ReplaceError(f"{self.folder}: holds the results of another image ({names})")

    def record(self, name: str) -> Record:
        """The record of a step."""
        path = self.folder / RECORDS / f"{name}.json"
        return Record(path, "results", ("settings", "inputs", "facts"))

    def records(self, pattern: str) -> list[Path]:
        """Record files of steps whose names match a pattern such as "sample-*"."""
        return sorted((self.folder / RECORDS).glob(f"{pattern}.json"))

    def do(self, step: Step, work: Callable[[], Facts | None]) -> Facts:
        """Run a step, or keep its results if nothing changed; returns its facts.

        `work` runs it and returns the facts; afterwards every result must exist.
        """
        self.current = step.name
        self.names.append(step.name)
        key, record = self._key(step), self.record(step.name)
        sums = partial(self._checksums, step.results)
        former = None if self.overwrite else record.current(step.results, key, sums)
        if former is not None:
            log.info("kept %s: made from the same inputs with the same settings", step.name)
            return dict(former["facts"])
        if self.summary is not None:
            (self.folder / self.summary).unlink(missing_ok=True)
        start = time.monotonic()
        facts = _plain(work() or {})
        self.done.append(step.name)
        results = {"results": self._checksums(step.results), "facts": facts}
        seconds = round(time.monotonic() - start, 2)
        write_json(record.path, {**key, **results, "seconds": seconds})
        return facts

    def has_marker(self, step: Step) -> bool:
        """Whether this step, with these inputs and settings, was started before: it can resume."""
        return _still_holds(read_json(self._marker(step)), self._key(step)) and not self.overwrite

    def mark_started(self, step: Step) -> None:
        """Record that a step is started; files of earlier starts must be removed before."""
        write_json(self._marker(step), self._key(step))

    def _marker(self, step: Step) -> Path:
        return self.record(f"{step.name}.begun").path

    def _key(self, step: Step) -> dict[str, Any]:
        return _plain({"settings": step.settings, "inputs": self._checksums(step.inputs)})

    def _checksums(self, paths: Sequence[Path]) -> dict[str, str]:
        """Checksums by path relative to the folder; by plain name for files elsewhere."""

        def name(path: Path) -> str:
            inside = path.is_relative_to(self.folder)
            return path.relative_to(self.folder).as_posix() if inside else path.name

        return {name(path): self._checksum(path) for path in paths}

    def _checksum(self, path: Path) -> str:
        return self.checksums.get(path) or sha256(path)


def _still_holds(then: Any, now: Any) -> bool:
    """Whether recorded settings have all values of the current ones; older versions had more."""
    if isinstance(then, dict) and isinstance(now, dict):
        return all(key in then and _still_holds(then[key], now[key]) for key in now)
    return bool(then == now)


def _plain(value: Any) -> Any:
    """A value after a JSON round trip: tuples become lists."""
    return json.loads(json.dumps(value, allow_nan=False))
