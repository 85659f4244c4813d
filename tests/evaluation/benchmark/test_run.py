"""`python -m evaluation.benchmark`: scores, cached records, worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

for package in ("trimesh", "mesh2sdf", "scipy", "pycolmap", "lpips"):
    pytest.importorskip(package, reason="needs requirements/eval.txt")

from common.files import file_lock
from common.workers.processes import run_in_processes
from common.workers.work import Work, Worker
from evaluation.benchmark import run as benchmark
from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.evaluate import ObjectRecord, Settings
from evaluation.benchmark.report import ReportRow, write_report
from evaluation.benchmark.run import ObjectTask
from evaluation.results import Result
from tests.evaluation.benchmark.conftest import rows, run
from tests.evaluation.conftest import ring_of_views, save_views

SETTINGS = Settings("cropped", None, None, "pycolmap", "sparse", "cpu")


@pytest.mark.integration
def test_a_process_that_dies_or_cannot_start_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("common.workers.processes.RETRIES", 0)
    (tmp_path / "blocked").write_text("a file where its folder should be")
    names = ("dies", "lives", "is killed", "blocked")
    objects = [ObjectFiles(name, *[None] * 5) for name in names]
    records = benchmark.evaluate_all(objects, SETTINGS, tmp_path, TWO, make_dying)
    ended = "the process on cpu ended by"
    assert records[0].errors == {"crash": f"{ended} exit status 3"}
    assert records[1].errors == {}
    assert records[2].errors == {"crash": f"{ended} signal 9"}
    assert "blocked" in records[3].errors["start"]
    write_report(tmp_path, "x", [ReportRow(objects[0], records[0], tmp_path)], [])
    assert "ended by exit status 3" in (tmp_path / "index.html").read_text()
    assert "ended by exit status 3" in rows(tmp_path)["dies"]["errors"]


def test_interrupting_ends_the_processes_and_leaves_no_record(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("common.workers.processes.wait", interrupt)
    objects = [ObjectFiles(name, *[None] * 5) for name in ("a", "b")]
    of_other_tests = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate_all(objects, SETTINGS, tmp_path, TWO, make_sleep)
    assert set(multiprocessing.active_children()) <= of_other_tests
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.integration
def test_files_of_others_in_the_reports_folder_are_refused_and_left(tmp_path: Path):
    theirs = [tmp_path / "a" / "000.png", tmp_path / "b" / "colmap" / "mine.txt"]
    for path in theirs:
        path.parent.mkdir(parents=True)
        path.write_text("precious")
    objects = [ObjectFiles(name, *[None] * 5) for name in ("a", "b", "c")]
    a, b, c = benchmark.evaluate_all(objects, SETTINGS, tmp_path, TWO, make_dying)
    assert "such as 000.png; choose another folder for --out" in a.errors["start"]
    assert "such as colmap/mine.txt" in b.errors["start"]
    assert c.errors == {}
    assert all(path.read_text() == "precious" for path in theirs)


@pytest.mark.integration
def test_without_lpips_and_colmap_the_rest_is_scored_and_the_tables_say_so(
    objects: Path, tmp_path: Path, monkeypatch
):
    def missing(*_: object) -> tuple[None, str]:
        return None, "no weights"

    def no_engine(*_: object) -> None:
        raise ModuleNotFoundError("no COLMAP")

    monkeypatch.setattr(benchmark, "load_lpips", missing)
    monkeypatch.setattr(benchmark, "open_colmap", no_engine)
    assert run(tmp_path, objects, "--objects", "noisy") == 0
    row = rows(tmp_path)["noisy"]
    assert float(row["psnr"]) > 20
    assert (row["lpips"], row["points"]) == ("", "")
    table = (tmp_path / "table.md").read_text()
    assert "LPIPS is missing: no weights" in table
    assert "COLMAP points are missing: no COLMAP" in table


@pytest.mark.integration
def test_the_truth_compared_with_itself_is_perfect_and_warned_about(tmp_path: Path):
    for kind in ("gt", "pr"):
        (tmp_path / kind).mkdir()
    save_views(tmp_path / "gt" / "a", ring_of_views())
    box = import_module("trimesh").creation.box((3, 2, 1))
    box.apply_translation((5, 0, 0)).export(tmp_path / "gt" / "a" / "model.obj")
    flags = ["--pr", str(tmp_path / "pr"), str(tmp_path / "gt"), "--objects", "a"]
    assert run(tmp_path / "out", tmp_path, *flags) == 0
    found = rows(tmp_path / "out")["a"]
    assert [found[key] for key in ("psnr", "chamfer", "iou")] == ["inf", "0.0", "1.0"]
    assert "the predicted views are the true ones" in (tmp_path / "out/index.html").read_text()


TWO = partial(run_in_processes, ["cpu", "cpu"])


def make_dying(_: Settings, worker: Worker) -> Work:
    def work(task: ObjectTask) -> None:
        if task.files.name == "dies":
            os._exit(3)
        if task.files.name == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        ObjectRecord(task.key, Result(task.files.name)).save(task.folder)

    return work


def make_sleep(_: Settings, worker: Worker) -> Work:
    return lambda _: time.sleep(600)


def interrupt(*_: object) -> None:
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    raise KeyboardInterrupt


def test_records_survive_their_file_and_damaged_ones_are_not_used(tmp_path: Path):
    views = {"psnr": [1.0, float("inf")]}
    record = ObjectRecord("k", Result("x", psnr=float("inf"), points=3, per_view=views))
    record.save(tmp_path)
    assert ObjectRecord.load(tmp_path) == record
    wrong = '{"key": "k", "result": {"name": "x", "psnr": "abc"}}'
    for text in ("", "[]", "{}", wrong, '{"key": 1, "result": {"nme": 2}}'):
        (tmp_path / "record.json").write_text(text)
        assert ObjectRecord.load(tmp_path) is None
    assert ObjectRecord.load(tmp_path / "nowhere") is None


@pytest.mark.integration
def test_folders_without_objects_are_an_error_and_two_runs_do_not_mix(tmp_path: Path):
    (tmp_path / "pr").mkdir()
    with pytest.raises(FileNotFoundError, match="gt: no such folder"):
        run(tmp_path / "out", tmp_path)
    (tmp_path / "gt").mkdir()
    with pytest.raises(FileNotFoundError, match="no folders of views"):
        run(tmp_path / "out", tmp_path)
    (tmp_path / "out" / "objects").mkdir(parents=True)
    busy = pytest.raises(OSError, match="another process")
    with file_lock(tmp_path / "out" / "objects"), busy:
        run(tmp_path / "out", tmp_path, "--objects", "a")
