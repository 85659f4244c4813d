"""Input images: read and hashed once, and framed for the model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from multiview.image_file import normalise_image, read_image
from multiview.images import CropSize, auto_crop_size, frame_image
from multiview.mask_check import check_mask
from pipeline.image_list import Elevation, collect_images, pair_elevations
from pipeline.selection.similarity import CROP_SIDE, ObjectCrop, crop_object

log = logging.getLogger(__name__)

ImageLike = str | PathLike[str] | Image.Image | np.ndarray
"""A file, an image, or an array (H, W), (H, W, 3) or (H, W, 4), uint8 or float in [0, 1]."""


@dataclass(frozen=True, eq=False)
class InputImage:
    """An input file, its checksum, and its pixels as an 8-bit RGB or RGBA image."""

    path: Path
    sha256: str
    pixels: Image.Image

    @classmethod
    def read(cls, path: Path) -> InputImage:
        """Read an image file, see `multiview.images.read_image`; both are of the same bytes."""
        content = path.read_bytes() if path.is_file() else b""
        return cls(path, hashlib.sha256(content).hexdigest(), read_image(path, content))

    def checked(self, keep_haze: bool) -> InputImage:
        """With its mask checked, see `multiview.mask_check.check_mask`."""
        try:
            return replace(self, pixels=check_mask(self.pixels, self.path, keep_haze))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


@dataclass(frozen=True, eq=False)
class PreparedInput:
    """An input image, framed for the model; the full-size pixels are not kept.

    Attributes:
        path: the file, of the checksum `sha256`.
        folder: of its results.
        elevation_deg: of its camera; None until it is estimated.
        crop_size: the given or chosen one, see `multiview.images.crop_and_pad`.
        framed: the model's input, float32 RGB in [-1, 1], (size, size, 3).
        crop: the object, for comparisons with views; None where none are made.
    """

    path: Path
    sha256: str
    folder: Path
    elevation_deg: float | None
    crop_size: int
    framed: np.ndarray
    crop: ObjectCrop | None


def prepare_inputs(
    paths: Sequence[Path],
    elevations: Sequence[Elevation],
    output: Path,
    crop_size: CropSize,
    size: int,
    compare: bool,
    failures: dict[Path, Exception] | None = None,
) -> list[PreparedInput]:
    """Read all inputs, one at a time, and frame them for the model.

    Args:
        paths: image files and folders of them, see `collect_images`.
        elevations: one for all images, or one for each.
        output: folder of the results.
        crop_size: "auto" chooses it for each image.
        size: pixels a side of the model's input.
        compare: whether inputs with a known elevation are compared with views, too.
        failures: gets the errors of images of folders, which are logged and left out.

    Raises:
        FileNotFoundError, ValueError: naming the image, or elevations that do not match; of an
            image of a folder only if there are no `failures` to add it to.
    """
    inputs = []
    for path, folder, given in pair_elevations(collect_images(paths, output), elevations):
        try:
            image = InputImage.read(path).checked(keep_haze=crop_size != "auto")
            inputs.append(prepare_input(image, folder, given, crop_size, size, compare))
        except (OSError, ValueError) as error:
            if failures is None or path in paths:
                raise
            log.error("%s", error)
            failures[path] = error
    return inputs


def prepare_input(
    image: InputImage,
    folder: Path,
    elevation: Elevation,
    crop_size: CropSize,
    size: int,
    compare: bool = True,
) -> PreparedInput:
    """Frame an input for the model, see `prepare_inputs`."""
    path = image.path
    elevation_deg = None if elevation == "auto" else float(elevation)
    try:
        chosen = auto_crop_size(image.pixels) if crop_size == "auto" else crop_size
        compared = compare or elevation_deg is None
        crop = crop_object(np.asarray(image.pixels), CROP_SIDE) if compared else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if crop_size == "auto":
        log.info("%s: chose crop size %d by the object's outline", path, chosen)
    framed = frame_image(image.pixels, chosen, size, path)
    return PreparedInput(path, image.sha256, folder, elevation_deg, chosen, framed, crop)


def as_image(image: ImageLike) -> Image.Image:
    """Convert a file, image or array to an 8-bit RGB or RGBA image, or raise ValueError."""
    if isinstance(image, Image.Image):
        return normalise_image(image)
    if isinstance(image, np.ndarray):
        return normalise_image(Image.fromarray(_to_levels(image)))
    return read_image(Path(image))


def with_mask(image: Image.Image, mask: ImageLike) -> Image.Image:
    """Use a mask as alpha of an RGB or RGBA image; existing alpha stays where it is smaller.

    A mask is a grey image, a boolean array, or the alpha of an image with transparency.

    Raises:
        FileNotFoundError, ValueError: not a mask, levels 0 and 1 of 255, or of another size.
    """
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = mask.astype(np.uint8) * 255
    shown = as_image(mask)
    if shown.size != image.size:
        raise ValueError(
            f"the mask has {shown.width} x {shown.height} pixels, the image "
            f"{image.width} x {image.height}"
        )
    pixels = np.asarray(image)
    alpha = np.asarray(shown.convert("RGBA").getchannel("A"))
    if alpha.min() == 255:
        alpha = np.asarray(shown.convert("L"))
    if alpha.max() == 1:
        raise ValueError("the mask has levels 0 and 1 of 255; give booleans, or 255 times it")
    if pixels.shape[2] == 4:
        alpha = np.minimum(alpha, pixels[:, :, 3])
    return Image.fromarray(np.dstack([pixels[:, :, :3], alpha]))


def _to_levels(array: np.ndarray) -> np.ndarray:
    """Convert an array (H, W), (H, W, 3) or (H, W, 4) to uint8."""
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise ValueError(
            f"an image is an array (H, W), (H, W, 3) or (H, W, 4), got one of shape {array.shape}"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an image's values are uint8, or float in [0, 1], got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError("an image of floats has values from 0 to 1, got others")
    levels: np.ndarray = (array * 255).round().astype(np.uint8)
    return levels
