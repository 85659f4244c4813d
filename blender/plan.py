"""The cameras of the rendered views of an object, and `meta.pkl`, which stores them.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from common.files import atomic_write
from common.safe_pickle import read_pickle
from multiview.cameras import (
    CAMERA_DISTANCE,
    NUM_VIEWS,
    VIEWS_ELEVATION_DEG,
    Cameras,
    orbit_cameras,
)

META = "meta.pkl"
MAX_VIEWS = 1000
"""File names have three digits."""
POSE_TOLERANCE = 1e-5
"""Poses that differ by less are considered equal: NumPy's sines differ between versions."""


@dataclass(frozen=True)
class ViewSettings:
    """Settings of a set of views.

    Attributes:
        camera_type: "fixed" (all at one elevation) or "random" (each at a random elevation).
        num_images: number of views at equal azimuth steps, the first at azimuth 0.
        elevation: elevation of the fixed cameras in degrees.
        elevation_start: lowest elevation of the random cameras in degrees.
        elevation_end: highest elevation of the random cameras in degrees.
        resolution: pixels a side.
        seed: seed of the random elevations, combined with the object's name.
    """

    camera_type: Literal["fixed", "random"] = "fixed"
    num_images: int = NUM_VIEWS
    elevation: float = VIEWS_ELEVATION_DEG
    elevation_start: float = -10.0
    elevation_end: float = 40.0
    resolution: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {"num_images": (1, MAX_VIEWS), "resolution": (1, 16384), "seed": (0, 2**62)}
        for name in (
            "num_images",
            "resolution",
            "elevation",
            "elevation_start",
            "elevation_end",
            "seed",
        ):
            low, high = limits.get(name, (-90, 90))
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        if self.elevation_start > self.elevation_end:
            raise ValueError(
                f"elevation_start ({self.elevation_start:g}) must not be above elevation_end "
                f"({self.elevation_end:g})"
            )


def plan_cameras(settings: ViewSettings, uid: str) -> Cameras:
    """Compute the cameras of an object's views, for images of the resolution.

    The object's name and the seed determine the random elevations.
    """
    elevations: float | np.ndarray = settings.elevation
    if settings.camera_type == "random":
        digest = hashlib.sha256(f"{settings.seed}/{uid}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest, "big"))
        samples = generator.random(settings.num_images)
        span = settings.elevation_end - settings.elevation_start
        elevations = settings.elevation_start + span * samples
    return orbit_cameras(settings.num_images, elevations, CAMERA_DISTANCE, settings.resolution)


def write_meta(path: Path, cameras: Cameras) -> None:
    """Write cameras in the format of the published training data.

    A pickled list: intrinsics (3, 3) float32, azimuths in [0, 2 pi) (N,) float32, elevations (N,)
    and distances (N,) and world-to-camera poses (N, 3, 4), float64; angles in radians.
    The N cameras must have equal intrinsics.
    """
    meta = [
        cameras.intrinsics[0].astype(np.float32),
        (cameras.azimuths % (2 * np.pi)).astype(np.float32),
        cameras.elevations.astype(np.float64),
        np.full(len(cameras.elevations), CAMERA_DISTANCE),
        cameras.world_to_camera.astype(np.float64),
    ]
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(meta, protocol=4))


def meta_matches(path: Path, cameras: Cameras) -> bool:
    """Whether a `meta.pkl` exists and has these cameras; the file may be untrusted."""
    try:
        intrinsics, _, elevations, _, poses = read_pickle(path)
        return _close(intrinsics, cameras.intrinsics[0], 1e-3) and (
            _close(elevations, cameras.elevations) and _close(poses, cameras.world_to_camera)
        )
    except (OSError, ValueError, TypeError):
        return False


def _close(recorded: object, planned: np.ndarray, tolerance: float = POSE_TOLERANCE) -> bool:
    array = np.asarray(recorded, dtype=np.float64)
    return array.shape == planned.shape and bool(np.allclose(array, planned, 0, tolerance))
