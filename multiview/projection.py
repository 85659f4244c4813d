"""World points to pixels and back, for batches of pinhole cameras.

Pixel coordinates are (u to the right, v down) with the centre of the first pixel at (0, 0)
and the principal point given by the intrinsics: no half-pixel shift is added.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_DEPTH = 1e-4
"""Depths below this are raised to it, so that points behind a camera stay finite."""


def project(points: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """Project world points into cameras.

    Args:
        points: world coordinates, (..., P, 3).
        intrinsics: (..., 3, 3).
        world_to_camera: `[R | t]`, (..., 3, 4).

    Returns:
        pixels (..., P, 2) and camera-z depths (..., P), the latter at least `MIN_DEPTH`.
    """
    rotation, translation = world_to_camera[..., :3], world_to_camera[..., 3]
    in_camera = points @ rotation.mT + translation[..., None, :]
    homogeneous = in_camera @ intrinsics.mT
    depth = homogeneous[..., 2].clamp_min(MIN_DEPTH)
    return homogeneous[..., :2] / depth[..., None], depth


def unproject(pixels: Tensor, depth: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> Tensor:
    """Lift pixels with known depth to world points: the inverse of `project`.

    Args:
        pixels: (..., P, 2).
        depth: camera-z depth, (..., P).
        intrinsics: (..., 3, 3).
        world_to_camera: `[R | t]`, (..., 3, 4).

    Returns:
        world coordinates, (..., P, 3).
    """
    rotation, translation = world_to_camera[..., :3], world_to_camera[..., 3]
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1) * depth[..., None]
    in_camera = homogeneous @ torch.linalg.inv(intrinsics).mT
    return (in_camera - translation[..., None, :]) @ rotation
