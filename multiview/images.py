"""Images to the model's input and back: framing on white, uint8, strips of views."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from multiview.cameras import NUM_VIEWS, REFERENCE_IMAGE_SIZE
from multiview.image_file import MAX_INPUT_PIXELS, read_image
from multiview.mask_check import check_mask

log = logging.getLogger(__name__)

_TRANSPARENT = "the image is fully transparent: there is no object in it"


class NoAlphaError(ValueError):
    """The object's box is needed, and the image has no alpha channel to find it by."""

    def __init__(self, message: str = "the image has no alpha channel") -> None:
        super().__init__(message)


CropSize = int | Literal["auto"]
"""Size of the object in the model's input, see `crop_and_pad` and `auto_crop_size`."""
AUTO_CROP_SIZE = (208.0, -16.0)
"""Longer side of a training render's box in 256ths: the first plus the second times the aspect.

Half of 3840 renders of toys are within 7.1 % of it, 90 % within 24 %: see docs/results.md."""


def crop_and_pad(image: Image.Image, crop_size: int, size: int) -> Image.Image:
    """Crop and pad an image to a square, (size, size), with the object centred, as in training.

    The bounding box of alpha > 0 is scaled so that its longer side has `crop_size` pixels (of
    `REFERENCE_IMAGE_SIZE`; scaled along for smaller views), and centred. With `crop_size` -1 the
    whole
    image, RGB or RGBA, is padded to a square and scaled: with white without alpha, transparently
    with it. Compat: the box excludes its last row and column, both sides are truncated to whole
    pixels, and the resampling is bicubic before compositing, as in the published inference code.

    Raises:
        NoAlphaError: a `crop_size` other than -1, and no alpha channel.
        ValueError: nothing visible, or an object too thin to be scaled.
    """
    visible = image.getchannel("A").getbbox() if image.mode == "RGBA" else (0, 0, *image.size)
    if visible is None:
        raise ValueError(_TRANSPARENT)
    left, top, right, bottom = visible  # right and bottom exclusive
    if max(right - left, bottom - top) < 2:
        raise ValueError("the visible object is only 1 x 1 pixels")
    if crop_size == -1:
        found = f"the image of {image.width} x {image.height} pixels"
        if max(image.size) ** 2 > MAX_INPUT_PIXELS:  # a phone's 16320 x 12240
            image = image.reduce(2)
        side = max(image.size)
        if side * side > MAX_INPUT_PIXELS:
            raise ValueError(
                f"{found} is too large to be padded to a square; make it smaller or cut it"
            )
        square = Image.new(image.mode, (side, side), "white" if image.mode == "RGB" else 0)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square.resize((size, size), Image.Resampling.BICUBIC)

    if image.mode != "RGBA":
        raise NoAlphaError
    width, height = right - 1 - left, bottom - 1 - top
    pixels = crop_size * size // REFERENCE_IMAGE_SIZE
    if pixels < 2:
        raise ValueError(f"crop size {crop_size} leaves less than 2 of the view's {size} pixels")
    scale = pixels / max(width, height) if max(width, height) else 0.0
    scaled = (int(width * scale), int(height * scale))
    if min(scaled) == 0:
        raise ValueError(
            f"the visible object is only {right - left} x {bottom - top} pixels (width x height): "
            f"too small or too thin to be scaled to {pixels} pixels"
        )
    box = image.crop((left, top, right - 1, bottom - 1))
    resized = box.resize(scaled, Image.Resampling.BICUBIC)
    framed = Image.new("RGBA", (size, size))
    framed.paste(resized, ((size - scaled[0]) // 2, (size - scaled[1]) // 2))
    return framed


def auto_crop_size(image: Image.Image) -> int:
    """Estimate the `crop_size` of training renders of an object with this outline (alpha > 0).

    Their objects have a longest side of 1, so compact objects look smaller than long ones. This is
    the middle of a wide distribution, see `AUTO_CROP_SIZE`.

    Raises:
        NoAlphaError: no alpha channel.
        ValueError: nothing visible.
    """
    if image.mode != "RGBA":
        raise NoAlphaError
    visible = image.getchannel("A").getbbox()
    if visible is None:
        raise ValueError(_TRANSPARENT)
    left, top, right, bottom = visible
    sides = (right - left, bottom - top)
    base, slope = AUTO_CROP_SIZE
    return round(base + slope * min(sides) / max(sides))


def composite_white_01(image: Image.Image) -> np.ndarray:
    """Composite an RGB or RGBA image on white, float32 RGB in [0, 1], (H, W, 3)."""
    pixels = np.asarray(image).astype(np.float32) / 255.0
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:]
        pixels = pixels[:, :, :3] * alpha + (1 - alpha)  # exact where opaque
    return pixels


def composite_white(image: Image.Image) -> np.ndarray:
    """Composite an RGB or RGBA image on white, float32 RGB in [-1, 1], the model's range."""
    return composite_white_01(image) * 2.0 - 1.0


def prepare_image(path: Path, crop_size: int, size: int) -> np.ndarray:
    """Read an input image and turn it into the model's input, see `frame_image`.

    Raises:
        FileNotFoundError, ValueError: naming the file, see `read_image` and `crop_and_pad`.
    """
    image = read_image(path)
    try:
        image = check_mask(image, path, keep_haze=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return frame_image(image, crop_size, size, path)


def frame_image(image: Image.Image, crop_size: int, size: int, path: Path) -> np.ndarray:
    """Turn a decoded input image into the model's input, float32 RGB in [-1, 1], (size, size, 3).

    The image is RGBA with the object's mask as alpha, or RGB if `crop_size` is -1.

    Raises:
        ValueError: naming the file `path`, see `crop_and_pad`.
    """
    if image.mode == "RGB" and crop_size == -1:
        log.warning("%s has no alpha channel: its background counts as the object", path)
    try:
        return composite_white(crop_and_pad(image, crop_size, size))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Convert [-1, 1] floats of any shape to uint8 0..255, clamped.

    Compat: truncated, not rounded, as the published code writes its images.
    """
    return ((np.clip(images, -1.0, 1.0) + 1.0) * 0.5 * 255).astype(np.uint8)


def views_to_strip(views: np.ndarray) -> np.ndarray:
    """Concatenate N views (N, H, W, C) side by side, (H, N W, C)."""
    return np.concatenate(list(views), axis=1)


def strip_to_views(strip: np.ndarray) -> np.ndarray:
    """Split a strip of square views (H, N H, C) into (N, H, H, C), or raise ValueError."""
    height, width = strip.shape[:2]
    if width % height:
        raise ValueError(
            f"a strip of square views is N times as wide as high, got {width} x {height} pixels"
        )
    return np.stack(np.split(strip, width // height, axis=1))


def view_names(num_views: int = NUM_VIEWS) -> list[str]:
    """File names of single views in the order of their azimuths: 000.png, 001.png, ..."""
    return [f"{index:03d}.png" for index in range(num_views)]


def save_animation(path: Path, views: Sequence[np.ndarray], seconds_per_view: float = 0.12) -> None:
    """Write views (each uint8 (H, W, 3)) as an endless animated GIF."""
    frames = [Image.fromarray(view) for view in views]
    duration = round(1000 * seconds_per_view)
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
