"""The model that comes with the project, from a picture to a mesh: what `make demo` runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

import image_to_3d
from ldm.checkpoint import empty_model, fit
from ldm.config import GenerateConfig
from ldm.weights_file import read_state
from multiview.runtime import load_config
from multiview.views import read_views
from tests.conftest import ROOT

CHECKPOINT = ROOT / "ckpt" / "syncdreamer-demo.safetensors"
MOST_BYTES = 40_000_000


def test_the_file_is_small_and_fits_the_configuration():
    assert CHECKPOINT.stat().st_size <= MOST_BYTES
    config = load_config(GenerateConfig, ROOT / "configs" / "demo.yaml").model
    found = fit(read_state(CHECKPOINT), empty_model(config))
    assert not found.missing
    assert not found.unexpected


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes of the bundled car, with two samples in place of four and a short training."""
    folder = tmp_path_factory.mktemp("demo") / "car"
    image_to_3d.main([
        str(ROOT / "testset" / "car.png"), "-o", str(folder), "--preset", "fast",
        "--ckpt", str(CHECKPOINT), "--cfg", str(ROOT / "configs" / "demo.yaml"),
        "--device", "cpu", "--sample_num", "2", "--draft_steps", "4",
        "--set", "grid.steps=60",
    ])  # fmt: skip
    return folder


def test_the_views_show_the_car_in_its_colour_and_turning(made: Path):
    views = read_views(made / "best.png")
    assert views.shape == (16, 64, 64, 3)
    with Image.open(ROOT / "testset" / "car.png") as image:
        small = np.asarray(image.convert("RGBA").resize((64, 64), Image.Resampling.BOX)) / 255
    own = small[..., 3] > 0.5
    colour = small[own][:, :3].mean(axis=0)
    for view in views:
        inside = view.min(axis=-1) < 0.9
        assert 0.3 * own.sum() < inside.sum() < 3 * own.sum()
        assert np.abs(view[inside].mean(axis=0) - colour).max() < 0.2
    assert np.abs(views[0] - views[4]).mean() > 0.02  # from the side it looks otherwise


def test_the_elevation_is_about_the_true_one(made: Path):
    found = json.loads((made / "elevation.json").read_text())
    assert abs(found["elevation_deg"] - 10) < 20


def test_the_views_become_a_closed_mesh_and_a_film(made: Path):
    mesh = trimesh.load(made / "mesh.ply")
    assert mesh.is_watertight
    assert 0.6 < mesh.extents.max() < 1.2
    for name in ("mesh.glb", "rendering.mp4", "report.html", "best.gif"):
        assert (made / name).stat().st_size > 10_000
