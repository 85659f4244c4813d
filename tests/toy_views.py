"""Small renderings of generated toys, and corrupted views: fixtures of several tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from blender.plan import ViewSettings, plan_cameras
from demo.make_dataset import HELD_OUT_SEED
from demo.raycast.render_views import render_views
from demo.toys.make_toys import make_toy


@dataclass(frozen=True)
class ToyViews:
    """16 views on white in [0, 1], (16, S, S, 3), and one input, RGBA (S, S, 4) uint8."""

    views: np.ndarray
    image: np.ndarray
    elevation_deg: float


@cache
def toy_views(number: int, size: int = 64) -> ToyViews:
    """Render a toy; its views start at the input's azimuth, which differs between toys."""
    scene = make_toy(HELD_OUT_SEED + number)
    fixed = plan_cameras(ViewSettings("fixed", resolution=size), "toy")
    random = plan_cameras(ViewSettings("random", resolution=size), f"toy-{number}")
    start = 5 * number % 16
    views = np.roll(render_views(scene, fixed, size), -start, axis=0) / np.float32(255)
    image = render_views(scene, random, size)[start]
    alpha = views[..., 3:]
    elevation = float(np.rad2deg(random.elevations[start]))
    return ToyViews(views[..., :3] * alpha + 1 - alpha, image, elevation)


CORRUPTIONS = (
    "swapped", "neighbours", "flipped", "all flipped", "rotated", "upside down", "noisy",
    "all noisy", "blurred", "all blurred", "other", "reversed", "shifted", "recoloured",
)  # fmt: skip


def corrupt(views: np.ndarray, kind: str, other: np.ndarray, seed: int) -> np.ndarray:  # noqa: C901
    """Corrupt one view, two or all in one of the ways `CORRUPTIONS`; `other`: of another object."""
    rng = np.random.default_rng(seed)
    corrupted, k, size = views.copy(), int(rng.integers(16)), views.shape[1]
    j = (k + int(rng.integers(2, 15))) % 16
    match kind:
        case "swapped":
            corrupted[[k, j]] = views[[j, k]]
        case "neighbours":
            corrupted[[k, (k + 1) % 16]] = views[[(k + 1) % 16, k]]
        case "flipped":
            corrupted[k] = views[k, :, ::-1]
        case "all flipped":
            corrupted = views[:, :, ::-1]
        case "rotated":
            angle = rng.choice([-1, 1]) * rng.uniform(10, 60)
            corrupted[k] = ndimage.rotate(views[k], angle, reshape=False, order=1, cval=1.0)
        case "upside down":
            corrupted[k] = views[k, ::-1]
        case "noisy":
            corrupted[k] += rng.normal(0, 0.1, views[k].shape)
        case "all noisy":
            corrupted += rng.normal(0, 0.05, views.shape)
        case "blurred":
            corrupted[k] = ndimage.gaussian_filter(views[k], (size / 48, size / 48, 0))
        case "all blurred":
            corrupted = ndimage.gaussian_filter(views, (0, size / 48, size / 48, 0))
        case "other":
            corrupted[k] = other[k]
        case "reversed":
            corrupted = views[-np.arange(16) % 16]
        case "shifted":
            corrupted[k] = np.roll(views[k], size // 16 * rng.choice([-1, 1]), axis=1)
        case "recoloured":
            corrupted[k] = views[k][..., [1, 2, 0]]
    return np.ascontiguousarray(corrupted.clip(0, 1), dtype=np.float32)
