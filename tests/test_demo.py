"""The bundled small model from an image to a mesh, as `make demo` runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import image_to_3d
from common.config import load_config
from demo.evaluate import volume_off
from demo.model import SmallSyncDreamer
from ldm.checkpoint.files import read_state_dict
from ldm.checkpoint.load import compare_state_dict, empty_model, load_model
from ldm.config import GenerateConfig
from ldm.generate_views import generate_strip
from multiview.images import prepare_image, strip_to_views
from multiview.views import read_views
from tests.conftest import ROOT

pytestmark = pytest.mark.integration


CHECKPOINT = ROOT / "ckpt" / "syncdreamer-demo.safetensors"
MAX_BYTES = 40_000_000


def test_the_file_is_small_and_fits_the_configuration():
    assert CHECKPOINT.stat().st_size <= MAX_BYTES
    config = load_config(GenerateConfig, ROOT / "configs" / "demo.yaml").model
    found = compare_state_dict(read_state_dict(CHECKPOINT), empty_model(config, SmallSyncDreamer))
    assert not found.missing
    assert not found.unexpected


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder for the bundled cactus, with two samples and a short reconstruction."""
    folder = tmp_path_factory.mktemp("demo") / "cactus"
    image_to_3d.main([
        str(ROOT / "testset" / "cactus.png"), "-o", str(folder), "--preset", "fast",
        "--ckpt", str(CHECKPOINT), "--cfg", str(ROOT / "configs" / "demo.yaml"),
        "--device", "cpu", "--sample_num", "2", "--set", "grid.steps=60",
        "--set", "texture_size=512", "--set", "film_size=256",
    ])  # fmt: skip
    return folder


def widths(views: np.ndarray) -> list[int]:
    """Number of columns that the object covers, of each view."""
    return [int((view.min(axis=-1) < 0.9).any(axis=0).sum()) for view in views]


def test_the_views_show_the_cactus_in_its_colour_and_turning(output: Path):
    views = read_views(output / "best.png")
    assert views.shape == (16, 64, 64, 3)
    with Image.open(ROOT / "testset" / "cactus.png") as image:
        small = np.asarray(image.convert("RGBA").resize((64, 64), Image.Resampling.BOX)) / 255
    inside_input = small[..., 3] > 0.5
    colour = small[inside_input][:, :3].mean(axis=0)
    for view in views:
        inside = view.min(axis=-1) < 0.9
        assert 0.5 * inside_input.sum() < inside.sum() < 1.5 * inside_input.sum()
        assert np.abs(view[inside].mean(axis=0) - colour).max() < 0.2
    front, right, back, left = widths(views[::4])
    assert min(front, back) > 1.2 * max(right, left)  # its arms are at its sides


def test_its_two_samples_differ_a_little(output: Path):
    first, second = (read_views(output / "samples" / f"{k}.png") for k in range(2))
    assert 0 < np.abs(first - second).mean() < 0.05


def test_the_views_become_a_closed_mesh_and_a_video(output: Path):
    mesh = trimesh.load(output / "mesh.ply")
    assert mesh.is_watertight
    deep, across, high = mesh.extents
    assert 0.6 < high < 1.3
    assert 0.2 < deep < 0.95 * across < across < high
    for name in ("mesh.glb", "rendering.mp4", "report.html", "best.gif"):
        assert (output / name).stat().st_size > 10_000


def test_without_its_volume_the_model_does_not_turn_the_cactus():
    """The shared spatial volume is what makes the views differ and agree."""
    config = load_config(GenerateConfig, ROOT / "configs" / "demo.yaml")
    model = load_model(
        config.model, CHECKPOINT, torch.device("cpu"), torch.float32, SmallSyncDreamer
    )
    image = torch.from_numpy(prepare_image(ROOT / "testset" / "cactus.png", -1, 64))
    with torch.inference_mode():
        features = model.encode_image(image.permute(2, 0, 1)[None])
    with volume_off(model):
        strip = generate_strip(model, features, 0.0, 0, config.sampler, 16)
    front, right, _, left = widths(strip_to_views(strip)[::4] / 255)
    assert min(right, left) > 0.9 * front
