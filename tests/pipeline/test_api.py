"""The interface in Python: the same pixels as the commands, cameras, and clear refusals."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import generate as script
from ldm.generate_views import StepInfo
from multiview.image_file import read_image
from multiview.images import auto_crop_size, prepare_image, strip_to_views
from multiview.segmentation import segment_white
from pipeline.api import SyncDreamerPipeline, reconstruct_mesh
from pipeline.inputs import as_image, with_mask
from pipeline.selection.elevation import ElevationEstimate
from renderer.config import RendererConfig
from renderer.trainer import Training
from renderer.views import read_input
from tests.pipeline.conftest import ONE_STEP, SMALL, SMALL_CFG, by_small_model, toy_views


@pytest.fixture(scope="module")
def pipeline(small_checkpoint: Path) -> SyncDreamerPipeline:
    overrides = [*SMALL, *ONE_STEP]
    return SyncDreamerPipeline.load(small_checkpoint, SMALL_CFG, overrides=overrides, device="cpu")


@pytest.fixture
def inputs(pipeline: SyncDreamerPipeline, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Inputs of the model, which generates nothing."""
    shown: list[np.ndarray] = []

    def generate(pixels: np.ndarray, *_: object) -> np.ndarray:
        shown.append(pixels)
        return np.zeros((64, 16 * 64, 3), np.uint8)

    monkeypatch.setattr(pipeline.view_generator, "generate", generate)
    return shown


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cut out object that is not in the middle."""
    pixels = np.zeros((90, 120, 4), np.uint8)
    pixels[10:70, 30:80] = (200, 90, 40, 255)
    pixels[30:50, 40:60] = (20, 200, 250, 255)
    path = tmp_path_factory.mktemp("toy") / "toy.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.integration
def test_a_call_reports_every_step_and_another_precision_is_loaded(
    small_checkpoint: Path, toy: Path
):
    one = SyncDreamerPipeline.from_pretrained(
        small_checkpoint, config=SMALL_CFG, overrides=SMALL, device="cpu"
    )
    seen = []

    def on_step(pipeline: object, step: int, timestep: int, values: dict[str, Any]) -> None:
        seen.append((pipeline, step, timestep, values["preview"]().shape))

    views = one(toy, 20, seed=7, steps=2, callback_on_step_end=on_step)
    assert np.array_equal(views.images, one.generate(toy, 20, seed=7, steps=2).images)
    of_strip = (64, 16 * 64, 3)
    assert seen == [(one, 0, 501, of_strip), (one, 1, 1, of_strip)]

    assert one.to("cpu", torch.bfloat16) is one
    assert one.view_generator.dtype == "bf16"
    low = one(toy, 20, seed=7, steps=2).images.astype(int)
    assert 0 < np.abs(low - views.images).mean() < 8
    one.to(torch.float32)
    assert np.array_equal(one(toy, 20, seed=7, steps=2).images, views.images)
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        one.to(dtype="int8")
    with pytest.raises(ValueError, match=r"cuda:99 is not available"):
        one.to("cuda:99")
    assert one.view_generator.dtype == "fp32"


def test_weights_come_from_files_and_known_repositories_only():
    with pytest.raises(FileNotFoundError, match=r"^me/mine: neither a file nor .* camenduru/Sync"):
        SyncDreamerPipeline.from_pretrained("me/mine")


def by_the_command(toy: Path, small_checkpoint: Path, out: Path, *flags: str) -> np.ndarray:
    files = ["--input", str(toy), "--output", str(out), "--sample_num", "1", "--seed", "7"]
    script.main([*by_small_model(small_checkpoint), *files, *flags])
    with Image.open(out / "0.png") as strip:
        return strip_to_views(np.asarray(strip))


@pytest.mark.integration
def test_the_pixels_are_those_of_the_command(pipeline, toy, small_checkpoint, tmp_path):
    flags = ["--elevation", "20", "--crop_size", "auto"]
    expected = by_the_command(toy, small_checkpoint, tmp_path / "command", *flags)
    views = pipeline.generate(toy, elevation=20, seed=7)
    assert (views.images.shape, views.images.dtype) == ((16, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(views.images, expected)
    assert (views.elevation_deg, views.seed) == (20.0, 7)
    assert (pipeline.generate(toy, elevation=20, seed=8).images != expected).any()
    assert (pipeline.generate(toy, elevation=0, seed=7).images != expected).any()
    np.testing.assert_array_equal(np.asarray(views.pil_images()[5]), expected[5])
    with Image.open(views.save(tmp_path / "new" / "strip.png")) as strip:
        np.testing.assert_array_equal(strip_to_views(np.asarray(strip)), expected)


def test_a_picture_in_memory_is_what_its_file_is(pipeline, toy, inputs):
    file = prepare_image(toy, auto_crop_size(read_image(toy)), 64)
    with Image.open(toy) as image:
        image.load()
    pixels = np.asarray(image)
    mask = pixels[:, :, 3]
    whole: dict[str, Any] = {
        "path": toy, "text": str(toy), "image": image, "array": pixels, "floats": pixels / 255,
    }  # fmt: skip
    for name, given in whole.items():
        pipeline.generate(given, elevation=20)
        np.testing.assert_array_equal(inputs[-1], file, err_msg=name)
    opaque = Image.fromarray(mask).convert("RGBA")  # white on black
    masks: dict[str, Any] = {"levels": mask, "yes or no": mask > 0, "shares": mask / 255.0}
    for name, given in {**masks, "file": toy, "image": image, "opaque": opaque}.items():
        pipeline.generate(pixels[:, :, :3], elevation=20, mask=given)
        np.testing.assert_array_equal(inputs[-1], file, err_msg=name)
    assert len(inputs) == 11


def test_auto_is_what_the_command_estimates(
    pipeline, toy, small_checkpoint, tmp_path, monkeypatch, caplog
):
    """The estimate is replaced by a number that depends on the drafts' pixels."""
    caplog.set_level(logging.INFO)

    def estimate(target, draft, config):
        drafts, none = draft(10.0), np.zeros(1)
        assert (drafts.shape, target.alpha.shape) == ((16, 64, 64, 3), (64, 64))
        mean = drafts.mean() * (1 if drafts.dtype == np.uint8 else 255)
        return ElevationEstimate(float(mean) / 10 + 0.04, 3.0, none, none, none, none)

    monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", estimate)
    monkeypatch.setattr("pipeline.selection.elevation_drafts.DRAFT_STEPS", 1)
    views = pipeline.generate(toy, seed=7, crop_size=200)
    out = tmp_path / "out"
    flags = ["--elevation", "auto", "--crop_size", "200"]
    strip = by_the_command(toy, small_checkpoint, out, *flags)
    record = json.loads((out / "0.json").read_text())
    assert views.elevation_deg == record["settings"]["elevation_deg"]
    np.testing.assert_array_equal(views.images, strip)
    assert "+- 3.0 degrees" in caplog.text


def test_a_failed_estimate_says_what_to_do_in_python(pipeline, toy, no_estimate):
    with pytest.raises(ValueError, match=r"view 3\); give it as elevation=<degrees>"):
        pipeline.generate(toy)


def test_the_cameras_look_at_the_object_from_the_ring(pipeline):
    cameras = pipeline.cameras()
    rotations, translations = np.split(cameras.world_to_camera, [3], axis=-1)
    centres = -np.einsum("nji,njk->ni", rotations, translations)
    angles = np.arange(16) * np.deg2rad(22.5)
    across, high = 1.5 * np.cos(np.pi / 6), np.full(16, 1.5 * np.sin(np.pi / 6))
    ring = np.stack([across * np.cos(angles), across * np.sin(angles), high], axis=-1)
    np.testing.assert_allclose(centres, ring, atol=1e-12)
    origin = (cameras.intrinsics @ translations)[..., 0]
    np.testing.assert_allclose(origin[:, :2] / origin[:, 2:], 32.0)  # the middle of 64 pixels
    assert cameras.intrinsics[0, 0, 0] == 70.0


def test_every_step_is_told_and_can_be_looked_at(pipeline, toy):
    steps: list[StepInfo] = []
    views = pipeline.generate(toy, elevation=20, steps=2, on_step=steps.append)
    assert [(step.number, step.total) for step in steps] == [(1, 2), (2, 2)]
    assert steps[1].preview().shape == (64, 16 * 64, 3)
    assert views.images.shape[0] == 16


def test_the_object_is_found_where_that_is_asked_for(pipeline, photo, toy, inputs):
    for crop_size in ("auto", 200):
        with pytest.raises(ValueError, match="cannot be separated from the background"):
            pipeline.generate(photo, elevation=20, crop_size=crop_size)
    pipeline.generate(photo, elevation=20, backend="white")
    pipeline.generate(photo, elevation=20, crop_size=-1)
    found, whole = inputs
    np.testing.assert_array_equal(whole, prepare_image(photo, -1, 64))
    rows, _ = np.nonzero((found < 0.99).any(axis=-1))
    assert np.ptp(rows) > 40  # it fills the frame
    pipeline.generate(toy, elevation=20, backend="white")  # has a mask already
    np.testing.assert_array_equal(
        inputs[-1], prepare_image(toy, auto_crop_size(read_image(toy)), 64)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elevation": 91}, "elevation must be from -90 to 90, got 91"),
        ({"elevation": float("nan")}, "elevation must be from"),
        ({"crop_size": 300}, "crop_size must be from 1 to 256"),
        ({"seed": -1}, "seed must be from 0"),
        ({"elevation": "20"}, "elevation must be a number, got '20'"),
        ({"crop_size": "large"}, "crop_size must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"steps": 1001}, "steps must be from 1 to 1000"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"guidance_scale": float("inf")}, "guidance_scale must be from"),
        ({"eta": 2.0}, "eta must be from 0 to 1"),
        ({"mask": np.ones((90, 120), np.uint8)}, "levels 0 and 1"),
        ({"solver": "euler"}, "solver must be one of ddim, dpm"),
        ({"solver": "unipc", "eta": 1.0}, "eta is a setting of the solver ddim"),
        ({"guidance": "harmony", "volume_scale": float("nan")}, "volume_scale must be from"),
        ({"guidance_interval": (3.0, 0.3)}, "0 <= low < high, got 3 0.3"),
        ({"mask": np.zeros((9, 9), np.uint8)}, "mask has 9 x 9 pixels, the image 120 x 90"),
        ({"mask": np.zeros((90, 120), np.uint8)}, "fully transparent"),
        ({"image": np.zeros((4, 4, 2), np.uint8)}, r"got one of shape \(4, 4, 2\)"),
        ({"image": np.zeros((4, 4), np.int64)}, "uint8, or float .* got int64"),
        ({"image": np.full((4, 4), 1.5)}, "values from 0 to 1"),
        ({"image": "missing.png"}, "missing.png: no such file"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(pipeline, toy, monkeypatch, settings, message):
    monkeypatch.setattr(pipeline.view_generator, "generate", lambda *_: pytest.fail("drawn"))
    given = {"image": toy, "elevation": 20, **settings}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pipeline.generate(**given)


def test_what_cannot_be_loaded_is_told(small_checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="mine"):
        SyncDreamerPipeline.load(tmp_path / "mine.ckpt", SMALL_CFG, device="cpu")
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        SyncDreamerPipeline.load(small_checkpoint, SMALL_CFG, dtype="int8")
    with pytest.raises(ValueError, match="tf32 is for CUDA devices"):
        SyncDreamerPipeline.load(small_checkpoint, SMALL_CFG, dtype="tf32", device="cpu")
    with pytest.raises(ValueError, match="views_at_once must be from 1"):
        SyncDreamerPipeline.load(small_checkpoint, SMALL_CFG, views_at_once=0)


def test_pictures_of_all_modes_become_rgb_or_rgba():
    grey = np.linspace(0, 1, 12).reshape(3, 4)
    assert as_image(grey).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(as_image(grey))[..., 1], (grey * 255).round())
    sideways = Image.new("RGB", (4, 2))
    sideways.getexif()[0x0112] = 6  # a camera's note that it was held upright
    assert (as_image(sideways).size, sideways.size) == ((2, 4), (4, 2))


def test_a_mask_takes_nothing_back_that_alpha_hides():
    image = Image.fromarray(np.dstack([np.full((2, 2, 3), 9), [[0, 100], [255, 255]]]).astype("u1"))
    mask = np.array([[True, True], [True, False]])
    alpha = np.asarray(with_mask(image, mask))[..., 3]
    np.testing.assert_array_equal(alpha, [[0, 100], [255, 0]])


def test_single_views_are_saved_with_their_cameras(tmp_path):
    views = toy_views()
    folder = views.save_views(tmp_path / "new" / "views", colmap=True)
    for cameras in ("transforms.json", "sparse/0"):
        read, _ = read_input(folder, RendererConfig(), "cpu", folder / cameras)
        np.testing.assert_array_equal(np.round(read.images * 255), views.images)
        np.testing.assert_array_equal(read.cameras.world_to_camera, views.cameras.world_to_camera)


@pytest.mark.integration
def test_views_become_a_mesh(quick_renderer, tmp_path):
    mesh = reconstruct_mesh(toy_views(), tmp_path / "mesh", preset="fast", device="cpu")
    assert quick_renderer == [("neus.yaml", "fast")]
    assert mesh == tmp_path / "mesh" / "mesh.glb"
    assert mesh.read_bytes()[:4] == b"glTF"
    assert (tmp_path / "mesh" / "rendering.mp4").stat().st_size
    with pytest.raises(FileExistsError):
        reconstruct_mesh(toy_views(), tmp_path / "mesh", device="cpu")
    mesh.write_bytes(b"old")
    reconstruct_mesh(toy_views(), tmp_path / "mesh", device="cpu", overwrite=True)
    assert mesh.read_bytes()[:4] == b"glTF"


@pytest.mark.integration
def test_an_interrupted_reconstruction_is_no_success(quick_renderer, tmp_path, monkeypatch):
    """The first Ctrl-C ends the training; the files are written, and the caller hears of it."""
    step = Training.train_step

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Training, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=re.escape(str(tmp_path / "mesh"))):
        reconstruct_mesh(toy_views(), tmp_path / "mesh", preset="fast", device="cpu")
    assert (tmp_path / "mesh" / "mesh.glb").is_file()


def test_a_segmentation_network_is_opened_once(pipeline, photo, inputs, monkeypatch):
    opened = []
    monkeypatch.setattr(
        "pipeline.api.open_segmenter", lambda *given: opened.append(given) or segment_white
    )
    for _ in range(2):
        pipeline.generate(photo, elevation=20, backend="u2net")
    pipeline.generate(photo, elevation=20, backend="auto")
    assert [backend for backend, _ in opened] == ["u2net", "auto"]
    assert len(inputs) == 3
