"""A coloured ellipsoid seen by the 16 cameras, and a configuration that learns it in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from multiview.cameras import Cameras, orbit_cameras
from renderer.config import RendererConfig
from renderer.methods.base import Views
from renderer.methods.fields import ColorNetworkConfig, NeuSFieldConfig, SDFNetworkConfig
from renderer.methods.neus import LearningRateConfig, SamplingConfig
from renderer.methods.neus_mlp import MLPNeuSConfig
from renderer.reconstruction import ReconstructionOptions

Shade = Callable[[np.ndarray], np.ndarray]
SIZE = 32
RADII = np.array([0.45, 0.3, 0.35])

TINY_MLP = MLPNeuSConfig(
    networks=NeuSFieldConfig(
        sdf=SDFNetworkConfig(width=32, depth=3, skip=2, bands=2, features=8),
        color=ColorNetworkConfig(width=16, depth=2, bands=1),
    ),
    sampling=SamplingConfig(coarse=16, importance=8, rounds=2),
    learning_rate=LearningRateConfig(peak=1e-3, warmup_steps=5),
    steps=6,
    rays=96,
    foreground_rays=32,
    anneal_steps=20,
    resolution=24,
)
_EXPORT = {"texture_size": 512, "film_size": 48, "log_every": 3}
TINY = RendererConfig(kind="mlp", mlp=TINY_MLP, **_EXPORT)
TINY_YAML = yaml.safe_dump({"kind": "mlp", "mlp": asdict(TINY_MLP), **_EXPORT})


def traced_ellipsoid(cameras: Cameras, size: int, radii: np.ndarray, shade: Shade) -> np.ndarray:
    """Colours `shade(points)` on white and alpha, (N, size, size, 4): a ray meets it or not."""
    rows, columns = np.mgrid[: 4 * size, : 4 * size] + 0.5
    pixels = np.stack([columns, rows, np.full_like(rows, 4)], axis=-1) / 4
    views = []
    for intrinsics, pose in zip(cameras.intrinsics, cameras.world_to_camera, strict=True):
        directions = pixels @ np.linalg.inv(intrinsics).T @ pose[:, :3] / radii
        origin = -pose[:, :3].T @ pose[:, 3] / radii
        a, b, c = (directions**2).sum(-1), directions @ origin, origin @ origin - 1
        hit = b**2 > a * c
        depth = (-b - np.sqrt(np.where(hit, b**2 - a * c, 0))) / a
        points = (origin + depth[..., None] * directions) * radii
        image = np.concatenate([np.where(hit[..., None], shade(points), 1.0), hit[..., None]], -1)
        views.append(image.reshape(size, 4, size, 4, 4).mean(axis=(1, 3)))
    return np.stack(views).astype(np.float32)


@cache
def ellipsoid(size: int = SIZE) -> np.ndarray:
    """Views with their masks as alpha, in [0, 1], (16, size, size, 4)."""
    cameras = orbit_cameras(16, image_size=size)
    return traced_ellipsoid(cameras, size, RADII, lambda points: 0.5 + points)


def ellipsoid_views(masks: bool = True, size: int = SIZE) -> Views:
    images = ellipsoid(size)
    cameras = orbit_cameras(16, image_size=size)
    return Views(images[..., :3].copy(), images[..., 3].copy() if masks else None, cameras)


def write_strip(path: Path, views: np.ndarray | None = None) -> Path:
    """Write views (16, S, S, C), the ellipsoid's by default, side by side."""
    images = ellipsoid()[..., :3] if views is None else views
    strip = np.concatenate(list(images), axis=1)
    Image.fromarray((strip * 255).round().astype(np.uint8)).save(path)
    return path


OPTIONS = ReconstructionOptions(seed=7, device=torch.device("cpu"))
RESULTS = ["mesh.glb", "mesh.ply", "metrics.json", "rendering.mp4"]
NUMBERED = [f"{name}-{k}.png" for name in ("input", "masked") for k in range(16)]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def with_alpha(alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([ellipsoid()[..., :3], alpha[..., None]], axis=-1)


def opaque_views(*which: int) -> np.ndarray:
    """The true masks, but full in some views."""
    alpha = ellipsoid()[..., 3].copy()
    alpha[list(which)] = 1
    return alpha
