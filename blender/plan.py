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
    """Settings of a set of views; elevations are in degrees."""

    camera_type: Literal["fixed", "random"] = "fixed"  # all at one elevation, or each at a random
    num_images: int = NUM_VIEWS  # at equal azimuth steps, the first at azimuth 0
    elevation: float = VIEWS_ELEVATION_DEG  # of the fixed cameras
    elevation_start: float = -10.0  # lowest of the random cameras
    elevation_end: float = 40.0  # highest of the random cameras
    resolution: int = 256  # pixels a side
    seed: int = 0  # of the random elevations, combined with the object's name

    def __post_init__(self) -> None:
        limits = {"num_images": (1, MAX_VIEWS), "resolution": (1, 16384), "seed": (0, 2**62)}
        limits |= dict.fromkeys(("elevation", "elevation_start", "elevation_end"), (-90, 90))
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {value}")
        start, end = self.elevation_start, self.elevation_end
        if start > end:
            text = "elevation_start (%g) must not be above elevation_end (%g)"
            raise ValueError(text % (start, end))


def plan_cameras(settings: ViewSettings, uid: str) -> Cameras:
    """Compute an object's cameras; its name and the seed determine the random elevations."""
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
