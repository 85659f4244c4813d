"""Steps whose results are files: what is there and still right is kept, the rest is done again.

A step has a record steps/<name>.json: its settings, checksums of the files that it reads and of
those that it writes, what else it found, and its seconds. The record is the last file that a step
writes. A step is kept where its settings, inputs and results are the recorded ones, so a change
reaches as far as the files differ, and no further.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.files import atomic_write, file_lock

log = logging.getLogger(__name__)

RECORDS = "steps"
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\..+)?")
"""Names of `common.files.atomic_write` for files that are not whole yet."""

Facts = dict[str, Any]
"""What a step found beside its files, as plain JSON values."""


@dataclass(frozen=True)
class Step:
    """One piece of work.

    Attributes:
        name: of the record.
        settings: all that the results depend on beside the inputs, as plain JSON values.
        inputs: files that are read.
        results: files that are written, inside the folder.
    """

    name: str
    settings: dict[str, Any]
    inputs: Sequence[Path]
    results: Sequence[Path]


@dataclass
class RunDirectory:
    """The folder of one picture's results.

    Attributes:
        folder: where everything is.
        overwrite: do each step anew, whatever is there.
        current: name of the step under way.
        done: steps that were done, not kept, in order.
        names: of all steps, in order.
        summary: name of the file that tells of all results; it is removed before a step is done,
            so that it never tells of results that are no longer there.
    """

    folder: Path
    overwrite: bool = False
    current: str = ""
    done: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    summary: str | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make the folder, keep other processes out of it and remove what killed runs left.

        Raises:
            FileExistsError: it holds files that are not this command's, and not `overwrite`.
            NotADirectoryError: something else has the name of the folder.
            OSError: another process is writing there, or nothing can be written there.
        """
        for path in (self.folder, *self.folder.parents):
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(f"{path}: is a file, expected a folder for the results")
        records = self.folder / RECORDS
        foreign = self.folder.is_dir() and not records.is_dir() and any(self.folder.glob("[!.]*"))
        if foreign and not self.overwrite:
            raise FileExistsError(
                f"{self.folder}: holds files that are not results of this command; choose another "
                f"folder, or let files of the same names be replaced with --overwrite"
            )
        try:
            records.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=records):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"{self.folder}: cannot be written to ({reason}); see --output"
            ) from error
        with file_lock(records, wait=False):
            for path in [*self.folder.glob(".*.tmp*"), *self.folder.glob("*/.*.tmp*")]:
                if _TEMPORARY.fullmatch(path.name):
                    with suppress(OSError):
                        path.unlink()
            yield

    def check_same_input(self, name: str, path: Path) -> None:
        """Raise FileExistsError where a step was done for an input of another name and content."""
        former = self.read(name)
        inputs = former.get("inputs") if former else None
        if self.overwrite or not isinstance(inputs, dict) or path.name in inputs:
            return
        if checksum(path) not in inputs.values():
            raise FileExistsError(
                f"{self.folder} holds the results of another picture ({', '.join(inputs)}); choose "
                f"another folder, or let them be replaced with --overwrite"
            )

    def record(self, name: str) -> Path:
        """The file with the record of a step."""
        return self.folder / RECORDS / f"{name}.json"

    def records(self, pattern: str) -> list[Path]:
        """The files with the records of steps whose names fit a pattern such as "sample-*"."""
        return sorted((self.folder / RECORDS).glob(f"{pattern}.json"))

    def read(self, name: str) -> dict[str, Any] | None:
        """Read the record of a step; None where there is none that is whole."""
        try:
            found = json.loads(self.record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and "results" in found else None

    def do(self, step: Step, work: Callable[[], Facts | None]) -> Facts:
        """Do a step, or keep what it did before.

        Args:
            step: what is to be done.
            work: does it; every result is to be a whole file afterwards.

        Returns:
            what `work` returned, now or then.
        """
        self.current = step.name
        self.names.append(step.name)
        key = self._key(step)
        former = self.read(step.name)
        if former is not None and not self.overwrite and self._still_right(former, key, step):
            log.info("kept %s: made from the same inputs with the same settings", step.name)
            return dict(former["facts"])
        if self.summary is not None:
            (self.folder / self.summary).unlink(missing_ok=True)
        start = time.monotonic()
        facts = _plain(work() or {})
        self.done.append(step.name)
        self._write(
            self.record(step.name),
            {
                **key,
                "results": self._checksums(step.results),
                "facts": facts,
                "seconds": round(time.monotonic() - start, 2),
            },
        )
        return facts

    def has_marker(self, step: Step) -> bool:
        """Whether a step of these inputs and settings was begun before.

        For steps that can go on with what they left when they were killed.
        """
        try:
            was = json.loads(self._marker(step).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        return bool(was == self._key(step)) and not self.overwrite

    def mark_started(self, step: Step) -> None:
        """Write down that a step is begun; nothing of another beginning may be left by then."""
        self._write(self._marker(step), self._key(step))

    def _marker(self, step: Step) -> Path:
        return self.record(f"{step.name}.begun")

    def _key(self, step: Step) -> dict[str, Any]:
        key: dict[str, Any] = _plain(
            {"settings": step.settings, "inputs": self._checksums(step.inputs)}
        )
        return key

    def _still_right(self, record: dict[str, Any], key: dict[str, Any], step: Step) -> bool:
        return (
            all(record.get(part) == value for part, value in key.items())
            and isinstance(record.get("facts"), dict)
            and all(path.is_file() for path in step.results)
            and record["results"] == self._checksums(step.results)
        )

    def _checksums(self, paths: Sequence[Path]) -> dict[str, str]:
        """Checksums under the names in the folder; of files elsewhere, the plain names."""
        return {
            path.relative_to(self.folder).as_posix()
            if path.is_relative_to(self.folder)
            else path.name: checksum(path)
            for path in paths
        }

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        with atomic_write(path) as temporary:
            text = json.dumps(content, indent=1, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """What JSON makes of a value: tuples become lists."""
    return json.loads(json.dumps(value, allow_nan=False))
