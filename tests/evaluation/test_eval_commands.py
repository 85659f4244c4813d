"""eval_nvs.py and eval_mesh.py as a user runs them; for eval_colmap.py see colmap/."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs requirements/eval.txt")

import eval_mesh
import eval_nvs
from common.cli import run_script
from evaluation import lpips
from evaluation.cli_args import open_colmap
from evaluation.lpips import LpipsUnavailableError, WeightsNotFoundError
from evaluation.results import read_log
from tests.evaluation.colmap.conftest import FakeEngine
from tests.evaluation.conftest import EXAMPLES, ring_of_views, save_views


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without VGG16's weights."""

    def nowhere() -> Path:
        raise WeightsNotFoundError("no weights")

    monkeypatch.setattr(lpips, "find_weights", nowhere)


@pytest.fixture
def views(tmp_path: Path) -> tuple[str, str]:
    """True views as RGBA, and the same on white as RGB."""
    rgb = ring_of_views()
    alpha = (rgb < 1).any(axis=-1, keepdims=True).astype(float)
    hidden = np.where(alpha > 0, rgb, 0.3)  # colours under the transparent part do not count
    true = save_views(tmp_path / "true", np.concatenate([hidden, alpha], axis=-1))
    return str(true), str(save_views(tmp_path / "predicted", rgb))


def nvs(views: tuple[str, str], *flags: str) -> None:
    eval_nvs.main(["--gt", views[0], "--pr", views[1], "--name", "toy", *flags])


def test_equal_views_print_inf_and_1_and_missing_lpips_is_an_error_if_required(
    views, capsys, caplog
):
    nvs(views)
    assert capsys.readouterr().out == "toy\tinf\t1.00000\tn/a\n"
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["LPIPS is missing: no weights, or give a file by --lpips_weights"]
    with pytest.raises(LpipsUnavailableError, match="no weights"):
        nvs(views, "--require_lpips")


@pytest.mark.parametrize(("form", "versions"), [("cropped", "up to 1.4"), ("current", "since 1.5")])
def test_the_form_of_ssim_is_reported_and_logged(views, tmp_path, caplog, form, versions):
    caplog.set_level("INFO")
    nvs(views, "--ssim", form, "--log", str(tmp_path / "log.csv"))
    assert versions in caplog.text
    assert read_log(tmp_path / "log.csv")[0]["ssim_form"] == form


def test_verbose_prints_every_view_and_mirrored_ones_are_warned_about(views, capsys, caplog):
    nvs((views[0], str(save_views(Path(views[1]), ring_of_views()[::-1]))), "--verbose")
    assert "in reverse order and starting with view 15" in caplog.text
    *lines, mean = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert [line[0] for line in lines] == [f"{k:03d}" for k in range(16)]
    for column in (1, 2):
        expected = np.mean([float(line[column]) for line in lines])
        assert float(mean[column]) == pytest.approx(expected, abs=1e-4)
    assert {line[3] for line in lines} == {"n/a"}


def test_mistakes_get_one_line_and_exit_status_1(views, tmp_path, monkeypatch, caplog):
    (Path(views[1]) / "009.png").unlink()
    arguments = ["--gt", views[0], "--pr", views[1], "--name", "toy"]
    monkeypatch.setattr("sys.argv", ["eval_nvs.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_script(eval_nvs.main)
    assert caught.value.code == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"{views[1]}: 15 of 16 views are there, missing: 009.png"
    ]


def mesh_flags(**changes: str) -> list[str]:
    flags = {
        "--pr_mesh": str(EXAMPLES / "locomotive-pr" / "mesh.ply"),
        "--pr_name": "toy",
        "--gt_dir": str(EXAMPLES / "locomotive-gt"),
        "--gt_mesh": str(EXAMPLES / "locomotive-mesh" / "meshes" / "model.obj"),
        "--gt_name": "locomotive",
    }
    flags.update({f"--{name}": value for name, value in changes.items()})
    return [part for flag in flags.items() for part in flag]


@pytest.mark.integration
def test_output_writes_the_compared_points(tmp_path, monkeypatch, capsys):
    trimesh = pytest.importorskip("trimesh", reason="needs requirements/eval.txt")
    pytest.importorskip("mesh2sdf", reason="needs requirements/eval.txt")
    monkeypatch.chdir(tmp_path)
    eval_mesh.main([*mesh_flags(), "--output", "--log", "log.json"])
    name, chamfer, iou = capsys.readouterr().out.split("\t")
    assert name == "toy"
    (row,) = read_log(tmp_path / "log.json")
    assert (f"{row['chamfer']:.5f}", f"{row['iou']:.5f}\n") == (chamfer, iou)
    assert 0.8 < row["normals"] <= 1
    for side in ("pr", "gt"):
        points = trimesh.load(tmp_path / "output" / "points" / f"toy-{side}.ply").vertices
        assert len(points) > 5000
        assert np.abs(points).max() < 0.6


def test_errors_of_colmap_name_the_flag_to_change(monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no-such-colmap: .*--colmap"):
        open_colmap("no-such-colmap", "auto")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pycolmap.*--colmap"):
        open_colmap(None, "auto")
    monkeypatch.setattr("evaluation.colmap.engine.open_engine", lambda _: FakeEngine())
    with pytest.raises(ValueError, match="--mode sparse"):
        open_colmap(None, "dense")


def test_a_log_of_another_kind_and_a_missing_folder_are_refused(tmp_path):
    pytest.importorskip("mesh2sdf", reason="needs requirements/eval.txt")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        eval_mesh.main(mesh_flags(gt_dir="nowhere"))
    (tmp_path / "log.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"log\.csv: .*--log"):
        eval_mesh.main([*mesh_flags(gt_mesh="nowhere.obj"), "--log", str(tmp_path / "log.csv")])
