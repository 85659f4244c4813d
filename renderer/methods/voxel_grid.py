"""Signed distances on a voxel grid: C channels, P points, V cells a side."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import OBJECT_HALF_SIDE


def sample_trilinear(grid: Tensor, points: Tensor) -> Tensor:
    """Sample a grid (1, C, V, V, V) over the object's cube trilinearly at points (P, 3), (C, P).

    The grid is indexed x, y, z; points beyond its outermost cells are clamped.
    """
    places = (points / OBJECT_HALF_SIDE).flip(-1)[None, :, None, None]
    values = F.grid_sample(grid, places, padding_mode="border", align_corners=False)
    return values.reshape(grid.shape[1], -1)


def grid_normals(distances: Tensor, points: Tensor) -> Tensor:
    """Unit normals by central differences over two cells, (P, 3)."""
    step = 2 * OBJECT_HALF_SIDE / distances.shape[-1]
    slopes = [
        sample_trilinear(distances, points + offset)[0]
        - sample_trilinear(distances, points - offset)[0]
        for offset in torch.eye(3, device=points.device) * step
    ]
    return F.normalize(torch.stack(slopes, dim=-1), dim=-1)


def regularization_losses(distances: Tensor) -> dict[str, Tensor]:
    """Mean losses over the cells near the surface of distances in cells, (1, 1, V, V, V).

    "eikonal" is the squared deviation of the gradient's length from 1, "smoothness" the squared
    Laplacian.
    """
    inner = distances[:, :, 1:-1, 1:-1, 1:-1]
    near = (inner.detach().abs() < 3).float()
    count = near.sum().clamp_min(1)
    ahead: list[Tensor] = []
    behind: list[Tensor] = []
    for axis in (2, 3, 4):
        other = [slice(None), slice(None), *[slice(1, -1)] * 3]
        for side, out in ((slice(2, None), ahead), (slice(None, -2), behind)):
            other[axis] = side
            out.append(distances[tuple(other)])
    slopes = [(a - b) / 2 for a, b in zip(ahead, behind, strict=True)]
    length = torch.stack(slopes).square().sum(dim=0).add(1e-6).sqrt()
    laplacian = sum(ahead) + sum(behind) - 6 * inner
    return {
        "eikonal": ((length - 1).square() * near).sum() / count,
        "smoothness": (laplacian.square() * near).sum() / count,
    }
