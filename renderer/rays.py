"""Rays through pixels; directions have length 1, so depths are world distances from the camera."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multiview.cameras import OBJECT_HALF_SIDE

PUBLISHED_PIXEL_OFFSET = 0.0
"""The published method casts its rays through integer pixel coordinates."""

_TINY = 1e-12


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Integer coordinates (column, row) of all pixels, row by row, float32 (H * W, 2)."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


def pixel_rays(
    pixels: Tensor, intrinsics: Tensor, world_to_camera: Tensor, pixel_offset: float
) -> tuple[Tensor, Tensor]:
    """Origins and unit directions, both (..., 3), of world rays from cameras through pixels.

    The leading axes are broadcast: a camera a ray, or (N, 1) cameras and (P,) pixels for N * P
    rays. Pixels (..., 2) are integers (column, row), to which `pixel_offset` is added:
    `PIXEL_CENTRE`, or `PUBLISHED_PIXEL_OFFSET` for the published method. Poses are `[R | t]`, (...,
    3, 4).
    """
    rotation, translation = world_to_camera[..., :3], world_to_camera[..., 3]
    centres = (pixels + pixel_offset).to(intrinsics.dtype)
    homogeneous = torch.cat([centres, torch.ones_like(centres[..., :1])], dim=-1)
    to_world = rotation.mT @ torch.linalg.inv(intrinsics)
    directions = (to_world @ homogeneous[..., None])[..., 0]
    directions = directions / directions.norm(dim=-1, keepdim=True)
    origins = -(rotation.mT @ translation[..., None])[..., 0]
    return origins.expand_as(directions), directions


def points_on_rays(origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
    """Points (..., S, 3) at depths (..., S) on rays of origins and directions (..., 3)."""
    return origins[..., None, :] + directions[..., None, :] * depths[..., None]


def inside_object_cube(points: Tensor, half_size: float = OBJECT_HALF_SIDE) -> Tensor:
    """Whether points (..., 3) are in the cube |x|, |y|, |z| <= half_size, bool (...)."""
    return (points.abs() <= half_size).all(dim=-1)


def depths_around_origin(
    origins: Tensor, directions: Tensor, half_length: float = math.sqrt(3) / 2
) -> tuple[Tensor, Tensor]:
    """First and last depth of an interval around the ray's closest point to the world origin.

    Compat: the published method samples `half_length` (by default half a unit cube's diagonal) to
    both sides, whether or not the ray meets that ball. Directions need not be of length 1.
    """
    closest = -(origins * directions).sum(dim=-1) / directions.square().sum(dim=-1)
    return closest - half_length, closest + half_length


def depths_in_cube(
    origins: Tensor, directions: Tensor, half_size: float = OBJECT_HALF_SIDE, min_near: float = 0.2
) -> tuple[Tensor, Tensor]:
    """First and last depth of a ray in the cube |x|, |y|, |z| <= half_size.

    Near is at least `min_near`; far equals near for rays that miss the cube.
    """
    safe = torch.where(directions.abs() < _TINY, torch.full_like(directions, _TINY), directions)
    first, second = (-half_size - origins) / safe, (half_size - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp_min(min_near)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, torch.maximum(near, far)
