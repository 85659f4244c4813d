"""Image files with the cameras that took them, as files of cameras describe them.

`transforms_json` and `colmap_model` read and write such files. Pixel coordinates are those of all
these formats and of `multiview.cameras`: the centre of pixel (0, 0) is at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

VIEWS_AT_LEAST, VIEWS_AT_MOST = 3, 200
"""Numbers of images that one object may have."""
_ORTHONORMAL = 1e-3
"""Largest deviation of a rotation matrix in a file, which has few digits."""


@dataclass(frozen=True)
class PosedImage:
    """An image file and its camera.

    Attributes:
        name: path of the file as the cameras' file has it.
        size: width and height in pixels that the intrinsics are for; None: those of the file.
        intrinsics: in pixels, (3, 3); in shares of the width if `size` is None.
        world_to_camera: `[R | t]`, OpenCV's axes, (3, 4).
        distortion: k1, k2, p1, p2, k3, k4, k5, k6 of OpenCV's model, (8,).
    """

    name: str
    size: tuple[int, int] | None
    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    distortion: np.ndarray


@dataclass(frozen=True)
class ObjectCube:
    """Where the object is: a cube along the world's axes that it nearly fills."""

    centre: np.ndarray
    side: float


@dataclass(frozen=True)
class PosedImages:
    """The content of a file of cameras.

    `z_up` says whether the world's z axis is known to point up. `cube` is None where the file does
    not say where the object is.
    """

    images: tuple[PosedImage, ...]
    z_up: bool
    cube: ObjectCube | None


def check_images(path: Path, images: list[PosedImage]) -> tuple[PosedImage, ...]:
    """Raise ValueError if there are too few or too many images, or two of the same file."""
    count, names = len(images), {image.name for image in images}
    if not VIEWS_AT_LEAST <= count <= VIEWS_AT_MOST:
        advice = "; take every n-th of them" if count > VIEWS_AT_MOST else ""
        expected = f"expected {VIEWS_AT_LEAST} to {VIEWS_AT_MOST}"
        raise ValueError(f"{path}: has the cameras of {count} images, {expected}{advice}")
    if len(names) < count:
        twice = next(i.name for k, i in enumerate(images) if i.name in {j.name for j in images[:k]})
        raise ValueError(f"{path}: {twice} has two cameras, expected one an image")
    return tuple(images)


def check_rotation(rotation: np.ndarray, where: str) -> np.ndarray:
    """Return a file's matrix (3, 3) if it is a rotation, made exact if it is not nearly so."""
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not error < _ORTHONORMAL or np.linalg.det(rotation) < 0:
        mirrored = error < _ORTHONORMAL
        found = "mirrors the axes" if mirrored else "is no rotation (its columns have other lengths"
        found += "" if mirrored else ", or are not perpendicular)"
        raise ValueError(f"{where} {found}, expected a rotation and a translation")
    if error < 1e-12:  # our own
        return rotation
    left, _, right = np.linalg.svd(rotation)
    return left @ right


def check_intrinsics(
    fx: float, fy: float, cx: float, cy: float, size: tuple[float, float], where: str
) -> np.ndarray:
    """Intrinsic matrix (3, 3) of an image of this width and height, if they are possible."""
    width, height = size
    if not (np.isfinite([fx, fy]).all() and fx > 0 and fy > 0):
        raise ValueError(f"{where} has focal lengths {fx:g} and {fy:g}, expected positive ones")
    if not (-width <= cx <= 2 * width and -height <= cy <= 2 * height):  # of a part of an image
        found = f"principal point ({cx:g}, {cy:g})"
        raise ValueError(f"{where} has its {found} far from its {width:g} x {height:g} pixels")
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
