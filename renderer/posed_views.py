"""Read the images of a file of cameras: any sizes, lenses and numbers.

More images than the methods can use are left out, the others reduced, so that time and memory are
bounded; lens distortion is undone.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from multiview.cameras import PIXEL_CENTRE
from multiview.colmap_model import model_folder, read_colmap
from multiview.image_file import read_image
from multiview.images import composite_white_01
from multiview.posed_images import ObjectCube, PosedImage, PosedImages
from multiview.transforms_json import TRANSFORMS, read_transforms
from multiview.views import MIN_SIZE

log = logging.getLogger(__name__)

MOST_VIEWS = 32
"""Images that are used of one object: more hardly help, and take time."""
READ_PIXELS = 16 * 1024**2
"""Pixels of all images together to which they are reduced."""
_SAME_SHAPE = 0.01
"""Relative difference of the aspects of an image and its camera: it is the same image, scaled."""


@dataclass(frozen=True)
class PosedView:
    """An image on white and its camera, in the coordinates of the file of cameras.

    The image is in [0, 1], (H, W, 3) float32, its alpha (H, W) or None.
    """

    name: str
    image: np.ndarray
    alpha: np.ndarray | None
    intrinsics: np.ndarray
    world_to_camera: np.ndarray


@dataclass(frozen=True)
class PosedViews:
    """The views of one object; see `PosedImages` for `z_up` and `cube`."""

    views: tuple[PosedView, ...]
    z_up: bool
    cube: ObjectCube | None

    def alphas(self) -> list[np.ndarray] | None:
        """The views' alpha, None if it is 1 everywhere, or if not all have one (with a warning)."""
        alphas = [view.alpha for view in self.views if view.alpha is not None]
        if all((alpha == 1).all() for alpha in alphas):
            return None
        if len(alphas) < len(self.views):
            without = next(view.name for view in self.views if view.alpha is None)
            said = "the views' alpha is not used as masks, because some have none, such as %s"
            log.warning(said, without)
            return None
        return alphas


def read_posed_views(folder: Path, cameras: Path) -> PosedViews:
    """Read at most `MOST_VIEWS` images in or below a folder, and their cameras.

    `cameras` is a transforms.json or the folder of a COLMAP model, also relative to `folder`.

    Raises:
        FileNotFoundError, ValueError: a file is missing or unsuitable; its path is named.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    path, listed = _read_cameras(folder, cameras)
    found = {image.name: _find_image(folder, image.name) for image in listed.images}
    files = {name: file for name, file in found.items() if file is not None}
    missing = [name for name in found if name not in files]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        names = ", ".join(missing[:3])
        raise FileNotFoundError(f"{folder}: images of {path} are missing: {names}{more}")
    chosen = _spread(listed.images, MOST_VIEWS)
    if len(chosen) < len(files):
        said = "%s: %d of %d images are used, which look from directions far apart"
        log.info(said, path, len(chosen), len(files))
    most = math.sqrt(READ_PIXELS / len(chosen))
    views = [_read_view(files[image.name], image, most) for image in chosen]
    return PosedViews(tuple(views), listed.z_up, listed.cube)


def _read_cameras(folder: Path, cameras: Path) -> tuple[Path, PosedImages]:
    """Path and content of the file of cameras or, relative to it or to the folder, the model."""
    for path in (cameras, folder / cameras):
        if path.is_file():
            return path, read_transforms(path)
        if path.is_dir():
            model = model_folder(path)
            if model is not None:
                return model, read_colmap(model)
            if (path / TRANSFORMS).is_file():
                return path / TRANSFORMS, read_transforms(path / TRANSFORMS)
            expected = f"expected {TRANSFORMS}, or COLMAP's cameras and images (.bin or .txt)"
            raise FileNotFoundError(f"{path}: has no cameras, {expected}")
    raise FileNotFoundError(f"{cameras}: no such file, nor a folder of a COLMAP model")


def _find_image(folder: Path, name: str) -> Path | None:
    """The file of an image inside of the folder: by its path or its name, maybe without suffix."""
    inside = folder.resolve()
    for path in (folder / name, folder / Path(name).name):
        for file in (path, path.with_name(f"{path.name}.png")):
            if file.is_file() and inside in file.resolve().parents:
                return file
    return None


def common_point(centres: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The point nearest to N lines through centres (N, 3) along unit directions (N, 3), (3,)."""
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    right = np.einsum("nij,nj->i", across, centres)
    return np.linalg.lstsq(across.sum(axis=0), right, rcond=1e-6)[0]


def camera_centres(poses: np.ndarray) -> np.ndarray:
    """Positions (N, 3) of cameras with world-to-camera poses (N, 3, 4)."""
    return -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])


def _spread(images: tuple[PosedImage, ...], most: int) -> list[PosedImage]:
    """The first image and those that look from directions furthest from the chosen ones."""
    if len(images) <= most:
        return list(images)
    poses = np.stack([image.world_to_camera for image in images])
    centres = camera_centres(poses)
    towards = centres - common_point(centres, poses[:, 2, :3])
    towards /= np.linalg.norm(towards, axis=1, keepdims=True).clip(1e-9)
    chosen, nearest = [0], towards @ towards[0]
    while len(chosen) < most:
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, towards @ towards[chosen[-1]])
    return [images[index] for index in sorted(chosen)]


def _read_view(file: Path, posed: PosedImage, most: float) -> PosedView:
    """Read an image, reduce it to `most` pixels a side, and undo the distortion."""
    image = read_image(file)
    if min(image.size) < MIN_SIZE:
        found = f"the image has {image.width} x {image.height} pixels"
        raise ValueError(f"{file}: {found}, expected at least {MIN_SIZE} x {MIN_SIZE}")
    width, height = posed.size or image.size
    across, down = image.width / width, image.height / height
    if abs(across / down - 1) > _SAME_SHAPE:
        found = f"{image.width} x {image.height} pixels, its camera {width} x {height}"
        raise ValueError(f"{file}: has {found}, expected the same or smaller by a whole factor")
    intrinsics = posed.intrinsics.copy()
    if posed.size is None:  # in shares of the width, the centre in the middle
        intrinsics[:2] *= image.width
        intrinsics[1, 2] = image.height / 2
    reduced = min(1.0, most / max(image.size))
    size = tuple(max(MIN_SIZE, round(side * reduced)) for side in image.size)
    scale = np.array([[across * size[0] / image.width], [down * size[1] / image.height], [1.0]])
    intrinsics *= scale

    if (step := int(max(image.size) / (4 * most))) > 1:
        image = image.reduce(step)  # for the memory; the rest is reduced with a better filter
    pixels = composite_white_01(image)
    alpha = None
    if image.mode == "RGBA":
        alpha = np.asarray(image.getchannel("A")).astype(np.float32) / 255
    if size != image.size:
        pixels = np.stack([_resize(channel, size) for channel in np.moveaxis(pixels, -1, 0)], -1)
        alpha = alpha if alpha is None else _resize(alpha, size)
    if posed.distortion.any():
        rows, columns = _distorted_pixels(pixels.shape[:2], intrinsics, posed.distortion)
        channels = np.moveaxis(pixels, -1, 0)
        pixels = np.stack([_sample(channel, rows, columns, 1.0) for channel in channels], axis=-1)
        alpha = alpha if alpha is None else _sample(alpha, rows, columns, 0.0)
    return PosedView(posed.name, pixels, alpha, intrinsics, posed.world_to_camera)


def _resize(channel: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Reduce a channel (H, W) to width and height, with a filter as wide as the new pixels."""
    resized = Image.fromarray(channel).resize((size[0], size[1]), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _distorted_pixels(
    shape: tuple[int, ...], intrinsics: np.ndarray, distortion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, (H, W), at which the lens shows what a pinhole's pixels should.

    OpenCV's model: k1 to k6 are radial, p1 and p2 tangential.
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion
    rows, columns = np.mgrid[: shape[0], : shape[1]] + PIXEL_CENTRE
    y = (rows - intrinsics[1, 2]) / intrinsics[1, 1]
    x = (columns - intrinsics[0, 2]) / intrinsics[0, 0]
    r = x * x + y * y
    radial = (1 + r * (k1 + r * (k2 + r * k3))) / (1 + r * (k4 + r * (k5 + r * k6)))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    bent_y = y * radial + 2 * p2 * x * y + p1 * (r + 2 * y * y)
    return (
        bent_y * intrinsics[1, 1] + intrinsics[1, 2] - PIXEL_CENTRE,
        bent_x * intrinsics[0, 0] + intrinsics[0, 2] - PIXEL_CENTRE,
    )


def _sample(
    channel: np.ndarray, rows: np.ndarray, columns: np.ndarray, outside: float
) -> np.ndarray:
    return ndimage.map_coordinates(channel, [rows, columns], order=1, cval=outside)
