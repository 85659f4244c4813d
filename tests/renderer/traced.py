"""Views of analytic shapes, traced along their signed distances, and masks of balls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from multiview.cameras import Cameras, orbit_cameras
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


def ball_masks(balls: list[tuple[float, ...]], cameras: Cameras, size: int) -> np.ndarray:
    """Closed form: a ray meets a ball if it passes its centre closely enough."""
    middle = np.arange(size) + 0.5
    pixels = np.stack([*np.meshgrid(middle, middle), np.ones((size, size))], axis=-1)
    masks = np.zeros((len(cameras.intrinsics), size, size), dtype=np.float32)
    for mask, intrinsics, pose in zip(
        masks, cameras.intrinsics, cameras.world_to_camera, strict=True
    ):
        rays = pixels @ np.linalg.inv(intrinsics).T
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        for ball in balls:
            c = pose[:, :3] @ np.array(ball[:3]) + pose[:, 3]
            mask[c @ c - (rays @ c) ** 2 < ball[3] ** 2] = 1.0
    return masks


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a >= 0.5, b >= 0.5
    return (a & b).sum() / (a | b).sum()
