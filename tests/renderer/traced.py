"""Views of analytic shapes, traced along their signed distances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from multiview.cameras import orbit_cameras
from renderer.methods.base import Views

Shape = Callable[[np.ndarray], np.ndarray]
"""Signed distances (...) of points (..., 3), never larger than the true ones."""


def ball(radius: float) -> Shape:
    return lambda points: np.linalg.norm(points, axis=-1) - radius


def bowl(points: np.ndarray) -> np.ndarray:
    """A ball of radius 0.45 with a round hollow on its top, which no silhouette shows."""
    hollow = 0.35 - np.linalg.norm(points - np.array([0.0, 0.0, 0.62]), axis=-1)
    return np.maximum(ball(0.45)(points), hollow)


def pattern(points: np.ndarray) -> np.ndarray:
    """Colours in [0, 1] that differ from place to place, (..., 3)."""
    return 0.5 + 0.4 * np.sin(14 * points)


def traced_views(shape: Shape, size: int, masks: bool = True, fine: int = 2) -> Views:
    """Trace a shape with the pattern on it, on white, with fine x fine samples a pixel."""
    cameras = orbit_cameras(16, image_size=size * fine)
    rows, columns = np.mgrid[: size * fine, : size * fine] + 0.5
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    images = []
    for intrinsics, pose in zip(cameras.intrinsics, cameras.world_to_camera, strict=True):
        directions = pixels @ np.linalg.inv(intrinsics).T @ pose[:, :3]
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        origin, depth = -pose[:, :3].T @ pose[:, 3], np.full(rows.shape, 0.7)
        for _ in range(60):
            depth = np.minimum(depth + shape(origin + directions * depth[..., None]), 3.0)
        points = origin + directions * depth[..., None]
        hit = shape(points)[..., None] < 1e-3
        image = np.concatenate([np.where(hit, pattern(points), 1.0), hit], axis=-1)
        images.append(image.reshape(size, fine, size, fine, 4).mean(axis=(1, 3)))
    views = np.stack(images).astype(np.float32)
    alpha = np.ascontiguousarray(views[..., 3]) if masks else None
    return Views(np.ascontiguousarray(views[..., :3]), alpha, orbit_cameras(16, image_size=size))
