"""World points to pixels and back, for batches of pinhole cameras.

Pixels are (u to the right, v down); no half-pixel shift is added to what the intrinsics say.
Intrinsics are (..., 3, 3), poses `[R | t]` (..., 3, 4).
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_DEPTH = 1e-4
"""Depths below this are raised to it, so that points behind a camera stay finite."""


def project(points: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (..., P, 2) and camera-z, at least `MIN_DEPTH`, (..., P) of points (..., P, 3)."""
    rotation, translation = world_to_camera[..., :3], world_to_camera[..., 3]
    in_camera = points @ rotation.mT + translation[..., None, :]
    homogeneous = in_camera @ intrinsics.mT
    depth = homogeneous[..., 2].clamp_min(MIN_DEPTH)
    return homogeneous[..., :2] / depth[..., None], depth


def unproject(pixels: Tensor, depth: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> Tensor:
    """World points (..., P, 3) of pixels (..., P, 2) at camera-z (..., P): inverts `project`."""
    rotation, translation = world_to_camera[..., :3], world_to_camera[..., 3]
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1) * depth[..., None]
    in_camera = homogeneous @ torch.linalg.inv(intrinsics).mT
    return (in_camera - translation[..., None, :]) @ rotation
