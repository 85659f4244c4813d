"""Tasks in this process, in processes and on a Ray cluster."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.workers.flags import add_engine_flags, check_engine_flags, choose_engine
from common.workers.processes import run_in_processes
from common.workers.ray_cluster import Cluster, run_on_ray, share
from common.workers.work import (
    Engine,
    SetUpError,
    Work,
    Worker,
    follow,
    limit_threads,
    run_here,
)

TWO_ON_RAY = Cluster(workers=2, gpus=0.0)
RAY = pytest.param(partial(run_on_ray, TWO_ON_RAY), marks=pytest.mark.ray, id="ray")
PROCESSES = pytest.param(partial(run_in_processes, ["first", "second"]), id="processes")


@pytest.fixture(params=[PROCESSES, RAY])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param.func is run_on_ray:
        pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/render.txt")
    return request.param


def make_notes(folder: Path, worker: Worker) -> Work:
    """Note each attempt at a task in a file, and return the number of threads; some names fail."""
    if folder.name == "no model":
        raise ValueError("weights.ckpt: is damaged")
    (folder / f"made by {os.getpid()}").touch()

    def work(name: str) -> int:
        with (folder / name).open("a") as file:
            file.write(".")
        attempts = (folder / name).stat().st_size
        if name == "fails":
            raise MemoryError("too little memory")
        if name == "dies" or (name == "dies once" and attempts == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        worker.tick()
        return int(os.environ["OMP_NUM_THREADS"])

    return work


@pytest.mark.integration
def test_lost_workers_are_replaced_and_their_tasks_done_again(
    engine: Engine, tmp_path: Path, caplog, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    caplog.set_level("INFO")
    tasks = ("a", "fails", "dies once", "b", "dies", "c", "d")
    outcomes = {each.task: each for each in follow(engine, make_notes, tmp_path, tasks, "notes")}
    assert set(outcomes) == set(tasks)
    assert outcomes["fails"].error == "too little memory"
    assert "MemoryError" in outcomes["fails"].trace
    assert outcomes["dies"].error
    done = [outcomes[name] for name in ("a", "b", "c", "d", "dies once")]
    threads = max((os.cpu_count() or 1) // 2, 1)
    assert {(each.result, each.error) for each in done} == {(threads, None)}
    attempts = {path.name: len(path.read_text()) for path in tmp_path.iterdir()}
    made = [name for name in attempts if name.startswith("made by")]
    assert len(made) <= 2 + 4  # two workers, of which four were lost in ten attempts
    assert {name: attempts[name] for name in tasks} == dict.fromkeys(tasks, 1) | {
        "dies": 3, "dies once": 2,
    }  # fmt: skip
    assert "notes: 7 of 7, done" in caplog.text
    assert not multiprocessing.active_children()


@pytest.mark.integration
def test_a_model_that_cannot_be_loaded_ends_the_work(engine: Engine, tmp_path: Path):
    with pytest.raises(SetUpError, match=r"weights\.ckpt: is damaged"):
        list(follow(engine, make_notes, tmp_path / "no model", ["a", "b"], "notes"))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("tasks", "lines"), [("a", 0), ("ab", 2)])
def test_a_single_unit_of_work_has_no_progress(tasks, lines, tmp_path: Path, caplog):
    caplog.set_level("INFO")
    list(follow(partial(run_here, "cpu"), lambda *_: str, None, tasks, "letters"))
    assert len(caplog.records) == lines


def test_the_environment_has_the_last_word_on_threads(monkeypatch):
    numbers: list[int] = []
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(set_num_threads=numbers.append))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    limit_threads(5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    limit_threads(5)
    assert numbers == [3, 5]


def test_machines_share_their_cores_and_gpus():
    small, large, gpus = {"CPU": 4.0}, {"CPU": 16.0}, {"CPU": 32.0, "GPU": 8.0}
    assert share([small], Cluster()) == (1, 4, 0.0)
    assert share([small], Cluster(workers=2)) == (2, 2, 0.0)
    assert share([small, large], Cluster()) == (5, 4, 0.0)
    assert share([small, gpus], Cluster()) == (8, 4, 1.0)
    assert share([small, gpus], Cluster(gpus=0.0, cores=1)) == (36, 1, 0.0)
    assert share([gpus], Cluster(gpus=0.5)) == (16, 2, 0.5)
    with pytest.raises(ValueError, match=r"needs 8 cores and 0 GPUs, .* have 4 and 0"):
        share([small], Cluster(cores=8))


def flags(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_engine_flags(parser, "")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(given)
    check_engine_flags(parser, args)
    return args


def chosen(*given: str) -> Engine:
    args = flags(*given)
    return choose_engine(args, [args.device], args.workers, here=True)


def test_flags_choose_the_engine():
    assert (chosen().func, chosen().args) == (run_here, ("auto",))
    assert chosen("--gpus", "2").args == ("cuda:2",)
    assert chosen("--gpus", "0,1,3").args == (["cuda:0", "cuda:1", "cuda:3"],)
    assert chosen("--gpus", "0,1", "--workers", "3").args == (["cuda:0", "cuda:1", "cuda:0"],)
    assert chosen("--workers", "2", "--device", "cpu").args == (["cpu", "cpu"],)
    on_ray = chosen("--engine", "ray", "--address", "auto", "--workers", "9")
    assert (on_ray.func, on_ray.args) == (run_on_ray, (Cluster("auto", 9),))
    on_ray = chosen("--engine", "ray", "--device", "cpu")
    assert on_ray.args == (Cluster(gpus=0.0, device="cpu"),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--gpus", "0;1"], "comma-separated numbers"),
        (["--address", "auto"], "is for --engine ray"),
        (["--engine", "ray", "--gpus", "0"], "is for --engine local"),
        (["--workers", "0"], "at least 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(given, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        flags(*given)
    assert message in capsys.readouterr().err
