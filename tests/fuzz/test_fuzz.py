"""A part of the fuzzing campaign (docs/reliability.md), and that it notices what it looks for."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("trimesh")
pytest.importorskip("resource")

from tests.conftest import run
from tests.fuzz.campaign import Watch, fuzz
from tests.fuzz.formats import Format, Reader


@pytest.mark.integration
def test_damaged_files_of_every_format_are_read_or_refused_by_name(tmp_path: Path):
    done = run("-m", "tests.fuzz", "--cases", "1000", "--seconds", "10", "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 15


WATCH = Watch()
sys.addaudithook(WATCH)


def write_elsewhere(path: Path, _: Path) -> None:
    path.with_name("elsewhere").write_text("x")


def fail(error: Exception) -> None:
    raise error


BAD: dict[str, Reader] = {
    "KeyError at": lambda path, _: {}[path],
    "RecursionError at": lambda path, out: BAD["RecursionError at"](path, out),
    "ValueError at": lambda *_: fail(ValueError("the file is not named")),
    "did open": write_elsewhere,
    "did os.mkdir": lambda path, _: path.with_name("folder").mkdir(),
    "did subprocess.Popen": lambda *_: run("-c", ""),
    "did pickle.find_class": lambda *_: __import__("pickle").loads(b"cos\ngetcwd\n."),
}


@pytest.mark.parametrize("problem", BAD)
def test_what_no_reader_may_do_is_noticed(tmp_path: Path, problem: str):
    given = Format("a.bin", [b"abc"], [BAD[problem]])
    outcome = fuzz("bad", given, range(2), 0, tmp_path, WATCH, time.monotonic() + 60)
    assert outcome.cases == 2
    assert all(found.startswith(problem) for found in outcome.problems)
    assert sum(outcome.problems.values()) == 2
    assert all(path.is_file() for path in outcome.examples.values())


def test_what_is_read_or_refused_by_name_is_no_problem(tmp_path: Path):
    readers: list[Reader] = [
        lambda path, out: (out / "made.txt").write_bytes(path.read_bytes()),
        lambda path, _: fail(ValueError(f"{path}: is damaged")),
    ]
    given = Format("a.bin", [b"abc"], readers)
    outcome = fuzz("good", given, range(20), 0, tmp_path, WATCH, time.monotonic() + 60)
    assert (outcome.cases, outcome.read, outcome.problems) == (20, 20, {})
    assert not list(tmp_path.iterdir())
