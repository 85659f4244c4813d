"""`demo.evaluate`: its scores, and which meshes it reuses."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from common.config import load_config
from demo.evaluate import main, mesh_iou, write_strip
from ldm.config import GenerateConfig
from renderer.reconstruction import ReconstructionResult
from tests.conftest import ROOT, seeded_model
from tests.ldm.training.training_tree import make_tree


@pytest.mark.slow
def test_views_baselines_and_the_model_without_its_volume_are_scored(tmp_path: Path, capsys):
    config = load_config(GenerateConfig, ROOT / "configs" / "demo.yaml").model
    torch.save({"state_dict": seeded_model(config).state_dict()}, tmp_path / "model.ckpt")
    data = make_tree(tmp_path / "data", ["bed-1", "chair-1", "toy-1"], size=64)
    flags = ["--cfg", str(ROOT / "configs" / "demo.yaml"), "--ckpt", str(tmp_path / "model.ckpt")]
    flags += ["--data", str(data), "--train", str(data), "--output", str(tmp_path / "out")]
    main([*flags, "--set", "sampler.steps=1", "--real", "1", "--elevations"])
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())
    kinds = [(row["uid"], row["kind"]) for row in rows]
    assert kinds == [("bed-1", "real"), ("toy-1", "generated")]
    printed = capsys.readouterr().out
    assert "1 generated objects" in printed
    assert printed.count("estimated elevation") == 2
    for row in rows:
        assert f"white {row['white']:.2f}" in printed
        assert row["mean image"] > max(row["white"], row["input repeated"])  # of random pixels
        assert row["psnr"] != row["volume off"]
        assert 0 <= row["elevation off by, degrees"] <= 50
        with Image.open(tmp_path / "out" / "strips" / f"{row['uid']}-compared.png") as image:
            compared = np.asarray(image)
        strip = np.asarray(Image.open(tmp_path / "out" / "strips" / f"{row['uid']}.png"))
        np.testing.assert_array_equal(compared[64:128], strip)
        true = np.stack(np.split(compared[:64] / 255, 16, axis=1))
        white = np.mean([-10 * np.log10(((view - 1) ** 2).mean()) for view in true])
        assert white == pytest.approx(row["white"], abs=1e-6)


def test_a_mesh_of_other_views_is_not_reused(tmp_path: Path):
    strip, mesh = np.zeros((4, 64, 3), np.uint8), tmp_path / "mesh.ply"
    write_strip(strip, tmp_path / "strip.png", mesh)
    mesh.touch()
    write_strip(strip, tmp_path / "strip.png", mesh)
    assert mesh.exists()
    write_strip(strip + 1, tmp_path / "strip.png", mesh)
    assert not mesh.exists()
    assert np.asarray(Image.open(tmp_path / "strip.png")).max() == 1


def test_an_interrupted_reconstruction_ends_the_evaluation_and_is_no_result(tmp_path, monkeypatch):
    mesh = tmp_path / "meshes" / "toy-1" / "mesh.ply"

    def stopped(image: Path, folder: Path, *_: object) -> ReconstructionResult:
        folder.mkdir(parents=True)
        mesh.touch()
        return ReconstructionResult({}, 2)

    monkeypatch.setattr("renderer.reconstruction.reconstruct", stopped)
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        mesh_iou(SimpleNamespace(uid="toy-1"), Namespace(output=tmp_path, seed=0), "toy-1")  # type: ignore[arg-type]
    assert end.value.code == 130
    assert not mesh.exists()
