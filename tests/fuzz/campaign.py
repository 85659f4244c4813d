"""Runs readers on damaged files and watches what they do."""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import shutil
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.formats import Format, Reader

MAX_SECONDS = 20.0
MAX_BYTES = 2 * 2**30
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
RUNS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "socket.connect",
    "socket.getaddrinfo",
    "pickle.find_class",
)
"""Events by which a file would run something, ask another machine, or name a class to a pickle."""


class Watch:
    """Audit hook that notes what is run, and what is written outside of a folder."""

    def __init__(self) -> None:
        self.out: str | None = None  # watching only while it is set
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.out is None or not (event == "open" or event in CHANGES or event in RUNS):
            return
        if event in RUNS:
            self.seen.append(f"{event} {arguments[:2]!r}")
            return
        path, *rest = arguments
        writes = event != "open" or (type(rest[-1]) is int and rest[-1] & WRITES)
        if writes and isinstance(path, str | bytes | os.PathLike):
            place = os.path.realpath(os.fsdecode(path))
            if not place.startswith((self.out, "/dev/")):
                self.seen.append(f"{event} {place}")


@dataclass
class Outcome:
    """What became of the damaged files of a format."""

    cases: int = 0
    read: int = 0  # by at least one reader; the others are refused by all
    slowest: float = 0.0  # seconds
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Path] = field(default_factory=dict)


def fuzz(
    name: str, given: Format, cases: range, seed: int, folder: Path, watch: Watch, until: float
) -> Outcome:
    """Damage files and read them, until a time of `time.monotonic`.

    Everything happens in `folder`; files that cause a problem for the first time stay there.
    """
    outcome, start = Outcome(), peak_bytes()
    inputs, out = folder / "input", folder / "out"
    for number in cases:
        if time.monotonic() > until:
            break
        outcome.cases += 1
        draw = random.Random(f"{seed} {name} {number}")
        inputs.mkdir(parents=True, exist_ok=True)
        path = inputs / given.name
        for other, content in given.beside.items():
            (inputs / other).write_bytes(content)
        path.write_bytes(given.damaged(draw))
        read = False
        for reader in given.readers:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            before = time.monotonic()
            found = _read(reader, path, out, watch)
            seconds = time.monotonic() - before
            outcome.slowest = max(outcome.slowest, seconds)
            if seconds > MAX_SECONDS:
                found = f"{seconds:.0f} seconds"
            if peak_bytes() - start > MAX_BYTES:
                found, start = "more than 2 GiB of memory", peak_bytes()
            read |= found is None
            if found:
                if found not in outcome.examples:
                    kept = folder / f"{name.replace(' ', '-')}-{number}{path.suffix}"
                    outcome.examples[found] = Path(shutil.copy(path, kept))
                outcome.problems[found] += 1
        outcome.read += read
    shutil.rmtree(inputs, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    return outcome


def _read(reader: Reader, path: Path, out: Path, watch: Watch) -> str | None:
    """None if the file was read, empty if it was refused as it should be, else the problem."""
    faulthandler.dump_traceback_later(3 * MAX_SECONDS, exit=True)
    watch.seen.clear()
    watch.out = os.path.realpath(out)
    try:
        reader(path, out)
        problem = None
    except Exception as error:  # noqa: BLE001 - what is raised is what is looked for
        problem = _judge(error, path, out)
    finally:
        watch.out = None
        faulthandler.cancel_dump_traceback_later()
    return f"did {watch.seen[0]}" if watch.seen else problem


def _judge(error: Exception, path: Path, out: Path) -> str:
    """Empty for an error that is documented and names the file, else where it came from."""
    names = isinstance(error, ValueError | OSError) and any(
        part in str(error) for part in (path.name, str(path.parent), str(out))
    )
    if names:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/tests/" not in f.filename and "site-packages" not in f.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:100]!r}"


def peak_bytes() -> int:
    """Peak memory of this process."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
