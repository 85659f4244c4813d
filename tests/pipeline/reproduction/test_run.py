"""`python -m evaluation.reproduce` with the bundled small model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

for package in ("trimesh", "mesh2sdf", "scipy"):
    pytest.importorskip(package, reason="needs requirements/eval.txt")

from pipeline.reproduction.run import main
from tests.conftest import ROOT
from tests.evaluation.conftest import ring_of_views, save_views

COMMAND = [sys.executable, "-m", "evaluation.reproduce", "--limit", "2", "--seeds", "2",
           "--ckpt", "ckpt/syncdreamer-demo.safetensors", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled toy with its mesh, a disc without one, and a third that is beyond the limit."""
    folder = tmp_path_factory.mktemp("objects")
    save_views(folder / "disc", ring_of_views())
    for part in ("gt", "mesh"):
        shutil.copytree(ROOT / "eval_examples" / f"locomotive-{part}", folder / f"engine-{part}")
    save_views(folder / "third", ring_of_views())
    return folder


def start(objects: Path, output: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--gt", str(objects), "--output", str(output), *flags],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.integration
def test_a_run_that_is_killed_and_started_again_gives_the_same_table(objects: Path, tmp_path: Path):
    whole = start(objects, tmp_path / "whole")
    killed = start(objects, tmp_path / "killed")
    first = tmp_path / "killed" / "views" / "disc" / "0.png"
    while not first.exists() and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "table.md").exists()
    table, log = whole.communicate()
    assert whole.returncode == 0, log
    assert "views: 2 of 2, done" in log
    again = start(objects, tmp_path / "killed")
    assert again.communicate()[0] == table
    written = [(tmp_path / name / "table.md").read_bytes() for name in ("whole", "killed")]
    assert written[0] == written[1] == table.encode()
    assert "2 of 30 objects; 2 samples, not 4; views of 64 pixels, not 256" in table
    with Image.open(tmp_path / "killed" / "true" / "engine" / "000.png") as image:
        assert image.size == (64, 64)
    assert (tmp_path / "killed" / "samples" / "1" / "index.html").is_file()


@pytest.mark.ray
def test_on_a_ray_cluster_the_table_is_the_same(objects: Path, tmp_path: Path, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/render.txt")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    table, log = start(objects, tmp_path / "ray", "--engine", "ray", "--workers", "2").communicate()
    assert "views: 2 of 2, done" in log
    assert "evaluated: 2 of 2, done" in log
    assert start(objects, tmp_path / "here").communicate()[0] == table
    strips = [(tmp_path / name / "views/disc/1.png").read_bytes() for name in ("ray", "here")]
    assert strips[0] == strips[1]


def test_missing_objects_are_named_with_the_command_that_fetches_them(tmp_path: Path, capsys):
    for folder in ("nowhere", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError, match=r"evaluation\.gso download fetches"):
            main(["--gt", str(tmp_path / folder), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        main(["--limit", "0"])
    assert "--limit must be from 1" in capsys.readouterr().err
