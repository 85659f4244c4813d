"""Multi-resolution hash encoding (Instant-NGP, Mueller et al. 2022, Sec. 3), spherical harmonics.

Levels whose lattice fits in the table are lattices, interpolated by `grid_sample`, which is several
times as fast on a CPU. P points, L levels, F features a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive

SPHERICAL_HARMONICS = 16
"""Number of real spherical harmonics of the degrees 0 to 3."""

_PRIMES = (1, 2654435761, 805459861)  # Instant-NGP Eq. 4
_INIT = 1e-4


@dataclass(frozen=True)
class HashGridConfig:
    """Size of the hash encoding; the defaults are the published ones.

    Attributes:
        levels: L lattices, from coarse to fine in a geometric series.
        features: F, of every lattice point.
        log2_table: of the largest number of entries of a level, which points of finer ones share.
        base_resolution: cells a side of the coarsest lattice.
        max_resolution: cells a side of the finest lattice.
    """

    levels: int = 16
    features: int = 2
    log2_table: int = 19
    base_resolution: int = 16
    max_resolution: int = 128

    def __post_init__(self) -> None:
        check_positive(self)
        if self.max_resolution < self.base_resolution:
            least = f"base_resolution = {self.base_resolution}"
            raise ValueError(f"max_resolution must be at least {least}, got {self.max_resolution}")
        if self.levels == 1 and self.max_resolution != self.base_resolution:
            raise ValueError("one level has one resolution: base_resolution = max_resolution")
        if self.log2_table > 30:
            raise ValueError(f"log2_table must be at most 30, got {self.log2_table}")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Cells a side of each level (Instant-NGP Eq. 2 and 3)."""
        growth = (self.max_resolution / self.base_resolution) ** (1 / max(1, self.levels - 1))
        exact = (self.base_resolution * growth**level for level in range(self.levels))
        return tuple(int(resolution + 1e-6) for resolution in exact)

    @property
    def outputs(self) -> int:
        """Channels of an encoded point."""
        return self.levels * self.features


class HashGrid(nn.Module):
    """Learned features of points in the unit cube, interpolated on several lattices."""

    def __init__(self, config: HashGridConfig) -> None:
        super().__init__()
        entries = 2**config.log2_table
        self.config = config
        self.dense_resolutions = [n for n in config.resolutions if (n + 1) ** 3 <= entries]
        self.hashed_resolutions = config.resolutions[len(self.dense_resolutions) :]
        self.lattices = nn.ParameterList(
            nn.Parameter(torch.empty(config.features, n + 1, n + 1, n + 1))
            for n in self.dense_resolutions
        )
        self.tables = nn.ParameterList(
            nn.Parameter(torch.empty(entries, config.features)) for _ in self.hashed_resolutions
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -_INIT, _INIT)

    def forward(self, points: Tensor) -> Tensor:
        """Encode points (x, y, z) in [0, 1], (P, 3), level by level, (P, L * F).

        No gradient flows back into them. The lattices of the dense levels are indexed z, y, x.
        """
        points = points.detach()
        places = (points * 2 - 1)[None, :, None, None]  # (1, P, 1, 1, 3)
        features = [
            F.grid_sample(
                lattice[None], places, mode="bilinear", padding_mode="border", align_corners=True
            )[0, :, :, 0, 0].T
            for lattice in self.lattices
        ]
        for table, resolution in zip(self.tables, self.hashed_resolutions, strict=True):
            index, weights = hashed_corners(points, resolution, len(table))
            features.append(_WeightedRows.apply(table, index, weights))
        return torch.cat(features, dim=-1)


def hashed_corners(points: Tensor, resolution: int, entries: int) -> tuple[Tensor, Tensor]:
    """Table entries and trilinear weights (P, 8) of the corners of the points' cells.

    Instant-NGP Eq. 4, for points (P, 3) in [0, 1] and a table with a power of 2 of entries.
    """
    scaled = points * resolution
    first = scaled.floor().clamp(0, resolution - 1)
    fraction = (scaled - first).clamp(0, 1)
    weights = torch.ones_like(points[:, :1])  # doubles with every axis
    index = torch.zeros_like(weights, dtype=torch.int64)
    for axis, prime in enumerate(_PRIMES):
        low = first[:, axis, None].long()
        index = torch.cat([index ^ (low * prime), index ^ ((low + 1) * prime)], dim=-1)
        part = fraction[:, axis, None]
        weights = torch.cat([weights * (1 - part), weights * part], dim=-1)
    return index & (entries - 1), weights


class _WeightedRows(torch.autograd.Function):
    """Weighted sums (P, F) of 8 rows of a table (E, F); indices and weights are (P, 8).

    `embedding_bag` with a backward pass that is ten times as fast on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights)
        ctx.entries = len(table)
        return F.embedding_bag(index, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        index, weights = ctx.saved_tensors
        rows = (grad[:, None] * weights[..., None]).flatten(0, 1)  # (P * 8, F)
        out = grad.new_zeros(ctx.entries, grad.shape[-1])
        return out.index_add_(0, index.flatten(), rows), None, None


def spherical_harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics of the degrees 0 to 3 of unit directions (..., 3), (..., 16).

    Orthonormal on the sphere; degree by degree, in each from order -l to l.
    """
    x, y, z = directions.unbind(dim=-1)
    xx, yy, zz = x * x, y * y, z * z
    return torch.stack(
        [
            torch.full_like(x, 0.28209479177387814),  # sqrt(1 / pi) / 2
            0.4886025119029199 * y,  # sqrt(3 / pi) / 2
            0.4886025119029199 * z,
            0.4886025119029199 * x,
            1.0925484305920792 * x * y,  # sqrt(15 / pi) / 2
            1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * zz - 1),  # sqrt(5 / pi) / 4
            1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),  # sqrt(15 / pi) / 4
            0.5900435899266435 * y * (3 * xx - yy),  # sqrt(35 / (2 pi)) / 4
            2.890611442640554 * x * y * z,  # sqrt(105 / pi) / 2
            0.4570457994644658 * y * (5 * zz - 1),  # sqrt(21 / (2 pi)) / 4
            0.3731763325901154 * z * (5 * zz - 3),  # sqrt(7 / pi) / 4
            0.4570457994644658 * x * (5 * zz - 1),
            1.445305721320277 * z * (xx - yy),  # sqrt(105 / pi) / 4
            0.5900435899266435 * x * (xx - 3 * yy),
        ],
        dim=-1,
    )
