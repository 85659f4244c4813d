"""eval_colmap.py as a user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval_colmap
from evaluation.results import read_log
from tests.conftest import ROOT
from tests.evaluation.colmap.conftest import NAMES, recorder


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "eval_colmap.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_prints_one_row_names_the_form_and_appends_to_the_log(box, tmp_path):
    pytest.importorskip("pycolmap")
    strip = tmp_path / "0.png"
    levels = np.round(box.views * 255).astype(np.uint8)
    Image.fromarray(np.concatenate(levels, axis=1)).save(strip)
    log, project = tmp_path / "results.csv", tmp_path / "project"
    flags = ["--name", "box", "--mode", "sparse", "--log", log, "--project", project]
    done = run("--dir", strip, *flags)
    assert done.returncode == 0, done.stderr
    name, count, form = done.stdout.rstrip("\n").split("\t")
    assert (name, form) == ("box", "sparse")
    assert int(count) > 100
    assert "INFO: pycolmap 4" in done.stderr or "INFO: pycolmap 3" in done.stderr
    assert "not comparable with the paper" in done.stderr
    assert not re.search(r"^[IWEF]\d{8} ", done.stderr, re.M), "COLMAP's own messages"
    (row,) = read_log(log)
    assert (row["name"], row["points"], row["points_form"]) == ("box", count, "sparse")
    assert (project / "sparse" / "points3D.bin").is_file()


def test_a_folder_of_views_is_read_too(tmp_path, capsys):
    pytest.importorskip("pycolmap")
    for name in NAMES:
        Image.new("RGBA", (64, 64)).save(tmp_path / name)
    eval_colmap.main(["--dir", str(tmp_path), "--name", "nothing", "--mode", "sparse"])
    assert capsys.readouterr().out == "nothing\t0\tsparse\n"


def test_help_needs_no_heavy_import():
    done = run("--help")
    assert done.returncode == 0
    assert "--project" in done.stdout
    code = "import sys, eval_colmap; eval_colmap.build_parser(); print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert not {"torch", "numpy", "pycolmap", "PIL"} & set(modules)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--colmap", "nope"], "nope: no such program"),
        (["--log", "a.txt"], "a.txt: a log is a .csv"),
        (["--colmap", "COLMAP"], "nowhere"),
    ],
)
def test_mistakes_are_named_and_nothing_is_printed(tmp_path, capsys, flags, message):
    stand_in = recorder(tmp_path / "colmap", "3.8", "")
    flags = [stand_in if flag == "COLMAP" else flag for flag in flags]
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        eval_colmap.main(["--dir", "nowhere", "--name", "a", "--mode", "sparse", *flags])
    assert capsys.readouterr().out == ""
