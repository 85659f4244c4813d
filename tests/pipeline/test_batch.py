"""Folders of images, divided among processes or the workers of a Ray cluster."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import generate
from common.workers.processes import run_in_processes
from common.workers.ray_cluster import Cluster, run_on_ray
from common.workers.work import Engine, Work, Worker, run_here
from pipeline.batch import process_images
from pipeline.config import Context, PipelineConfig
from pipeline.image_list import ImageTask
from pipeline.image_to_3d import image_to_3d
from tests.conftest import ROOT
from tests.fakes import FakeGenerator
from tests.pipeline.conftest import by_small_model
from tests.pipeline.test_image_to_3d import checksums

KINDS = [
    pytest.param("local", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.ray)
]  # fmt: skip
ENGINES: dict[str, Engine] = {
    "local": partial(run_in_processes, ["cpu", "cpu"]),
    "ray": partial(run_on_ray, Cluster(workers=2, gpus=0.0, device="cpu")),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/render.txt")
    return request.param


@pytest.fixture
def folder(photo: Path, tmp_path: Path) -> Path:
    """Six pictures and a damaged one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = Image.open(photo)
    for k, name in enumerate("abcdef"):
        picture.resize((96 + k, 96 + k)).save(folder / f"{name}.png")
    (folder / "x.png").write_bytes((folder / "a.png").read_bytes()[:300])
    return folder


def failures(out: Path) -> list[str]:
    with (out / "failures.csv").open(newline="") as file:
        return [Path(row["input"]).name for row in csv.DictReader(file)]


class _Killed(FakeGenerator):
    """Its process is killed when it first generates."""

    killed: Path

    def generate(self, *given, **more):
        if not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(*given, **more)


def make_toys(plan: tuple[PipelineConfig, Path], worker: Worker) -> Work:
    """Images to meshes by a fake model; the process that generates for "c" first is killed."""
    import renderer.reconstruction

    renderer.reconstruction.FRAMES = 4
    config, killed = plan

    def work(task: ImageTask) -> None:
        generator = _Killed() if task.path.stem == "c" else FakeGenerator()
        generator.killed = killed
        image_to_3d(task.path, task.folder, config, Context(generator))

    return work


def test_six_meshes_are_the_same_by_two_workers_of_which_one_is_killed(
    kind: str, folder: Path, single: PipelineConfig, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    killed, whole, out = (tmp_path / name for name in ("killed", "whole", "out"))
    damaged = [folder / "x.png"]
    given = [folder], out, ["auto"], make_toys, (single, killed)
    assert process_images(*given, ENGINES[kind]) == damaged
    assert killed.exists()
    assert failures(out) == ["x.png"]
    here = partial(run_here, "cpu")
    assert process_images([folder], whole, ["auto"], make_toys, (single, killed), here) == damaged
    for name in "abcdef":
        assert checksums(out / name) == checksums(whole / name)
        assert (out / name / "mesh.glb").stat().st_size > 1000


@pytest.mark.integration
def test_each_picture_of_a_batch_has_its_elevation_and_failures_are_listed(
    folder: Path, tmp_path: Path, small_checkpoint: Path
):
    pictures = [folder / name for name in ("a.png", "x.png", "b.png")]
    given = ["--input", *map(str, pictures), "--sample_num", "1", *by_small_model(small_checkpoint)]
    batch, whole = (["--output", str(tmp_path / name)] for name in ("batch", "whole"))
    with pytest.raises(ValueError, match=r"1 image failed: see .*failures\.csv"):
        generate.main([*given, *batch, "--workers", "1", "--elevation", "10", "20", "30"])
    assert failures(tmp_path / "batch") == ["x.png"]
    del given[2]
    generate.main([*given, *whole, "--elevation", "10", "30"])
    for name in ("a/0.png", "b/0.png"):
        assert (tmp_path / "batch" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(ValueError, match="got 3 values for 2 images"):
        generate.main([*given, *batch, "--workers", "1", "--elevation", "10", "20", "30"])


def worker_processes(parent: int) -> list[int]:
    """The processes below one that wait for tasks of this engine or of Ray."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            found.append((int(stat.parent.name), int(rest.split()[1]), name))
    below, names = {parent}, ("ray::RayWorker", "multiprocessing.spawn")
    for _ in found:
        below |= {pid for pid, above, _ in found if above in below}
    commands = {pid: Path(f"/proc/{pid}/cmdline") for pid in below - {parent}}
    return [pid for pid, path in commands.items() if any(n in path.read_text() for n in names)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the processes of Linux")
def test_strips_are_the_same_if_a_worker_of_the_command_is_killed(
    kind: str, folder: Path, tmp_path: Path, small_checkpoint: Path
):
    (folder / "x.png").unlink()
    command = [
        sys.executable, "generate.py", "--input", str(folder), "--elevation", "20",
        *by_small_model(small_checkpoint), "--sample_num", "2", "--output",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, out = tmp_path / "whole", tmp_path / "out"
    divided = [*command, str(out), "--engine", kind, "--workers", "2"]
    with subprocess.Popen(divided, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not list(out.glob("*/0.png")) and process.poll() is None:
            time.sleep(0.02)
        victims = worker_processes(process.pid)
        os.kill(victims[0], signal.SIGKILL)
        log = process.stderr.read()
    assert process.returncode == 0, log
    assert "images: 6 of 6, done" in log
    subprocess.run([*command, str(whole)], cwd=ROOT, env=env, check=True, capture_output=True)
    for path in whole.rglob("*.png"):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()
    assert len(list(out.glob("?/[01].png"))) == 12
    assert not (out / "failures.csv").exists()
