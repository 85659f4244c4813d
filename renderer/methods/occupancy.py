"""Occupancy grid of the object's cube, ray marching, and volume rendering of the samples.

Samples are packed as in nerfacc: those of all rays one after the other, with the number of their
ray. R rays, P samples of all rays together, V cells a side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive
from multiview.cameras import OBJECT_HALF_SIDE
from renderer.rays import depths_in_cube, inside_object_cube

DensityFunction = Callable[[Tensor], Tensor]
"""Densities (P,) per world unit at points (P, 3)."""

_CHUNK = 1 << 18
_COARSE = 8
"""Side of a coarse cell, in cells; rays are tested against coarse cells first."""
_THRESHOLD = 0.01
"""Optical depth of one sample from which its cell is occupied, published."""
_MEMORY = 4.0
"""Upper bound of the remembered optical depth, as a multiple of the threshold: then a cell that
turned empty is left after a few updates."""


@dataclass(frozen=True)
class OccupancyConfig:
    """Settings of the grid; the defaults are the published ones where such exist.

    Attributes:
        resolution: V, cells a side.
        every: training steps between updates.
        parts: each update evaluates every n-th cell, another part each time.
        decay: of the remembered optical depth at every update of the cell.
    """

    resolution: int = 128
    every: int = 16
    parts: int = 1
    decay: float = 0.9

    def __post_init__(self) -> None:
        check_positive(self)
        if not 0 <= self.decay < 1:
            raise ValueError(f"occupancy.decay must be in [0, 1), got {self.decay}")


@dataclass(frozen=True)
class PackedSamples:
    """P samples of R rays (`num_rays`; some may have none), in order from the camera.

    Rays, the ranks on them (both int64) and depths are (P,).
    """

    rays: Tensor
    ranks: Tensor
    depths: Tensor
    num_rays: int

    def __len__(self) -> int:
        return len(self.rays)

    def where(self, chosen: Tensor) -> PackedSamples:
        """Select samples by a bool mask (P,) or by numbers; ranks do not change."""
        rays, ranks, depths = (array[chosen] for array in (self.rays, self.ranks, self.depths))
        return PackedSamples(rays, ranks, depths, self.num_rays)

    def within(self, budget: int) -> PackedSamples:
        """Return the first rays, at least one, that have at most `budget` samples together."""
        if len(self) <= budget:
            return self
        num_rays = max(1, int(self.rays[budget]))
        return replace(self.where(self.rays < num_rays), num_rays=num_rays)

    def points(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Positions (P, 3) of the samples on rays (R, 3), (R, 3)."""
        return origins[self.rays] + directions[self.rays] * self.depths[:, None]


def render_weights(samples: PackedSamples, optical_depths: Tensor) -> tuple[Tensor, Tensor]:
    """Weights T_i (1 - exp(-tau_i)) of samples, and T_i = exp(-sum_{j<i} tau_j) (NeRF Eq. 3).

    Optical depths tau are density times length; all are (P,).
    """
    if not len(samples):
        return optical_depths, optical_depths
    width = int(samples.ranks.max()) + 1
    rows = optical_depths.new_zeros(samples.num_rays, width)
    rows[samples.rays, samples.ranks] = optical_depths
    before = (rows.cumsum(dim=1) - rows)[samples.rays, samples.ranks]
    transmittance = torch.exp(-before)
    return transmittance * -torch.expm1(-optical_depths), transmittance


def distortion_loss(samples: PackedSamples, weights: Tensor, length: float) -> Tensor:
    """Distortion loss (R,) of each ray: how far apart its weights (P,) are (mip-NeRF 360, Eq. 15).

    The sum over all pairs of weights times distance, plus a third of a sample's length times each
    squared weight; world units.
    """
    if not len(samples):
        return weights.new_zeros(samples.num_rays)
    width = int(samples.ranks.max()) + 1
    place = samples.rays, samples.ranks
    rows = weights.new_zeros(samples.num_rays, width, 2)
    rows[place] = torch.stack([weights, weights * samples.depths], dim=-1)
    before = (rows.cumsum(dim=1) - rows)[place]
    pairs = 2 * weights * (samples.depths * before[:, 0] - before[:, 1])
    return accumulate_along_rays(samples, pairs + weights.square() * (length / 3))


def accumulate_along_rays(samples: PackedSamples, values: Tensor) -> Tensor:
    """Sum values (P, ...) of the samples over each ray, (R, ...)."""
    out = values.new_zeros(samples.num_rays, *values.shape[1:])
    return out.index_add(0, samples.rays, values)


def _lookup(grid: Tensor, cell: float, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Values of a grid (V, V, V) with the given cell size at points (...), clamped outside."""
    size = len(grid)
    i, j, k = (((a + OBJECT_HALF_SIDE) / cell).long().clamp(0, size - 1) for a in (x, y, z))
    return grid.flatten()[(i * size + j) * size + k]


def _lookup_rays(
    grid: Tensor, cell: float, origins: Tensor, directions: Tensor, depths: Tensor
) -> Tensor:
    """Values (B, n) of a grid at depths (B, n) on rays (B, 3), (B, 3)."""
    x, y, z = (origins[:, i, None] + directions[:, i, None] * depths for i in range(3))
    return _lookup(grid, cell, x, y, z)


@torch.no_grad()
def render_visibility(
    samples: PackedSamples,
    density: Callable[[PackedSamples], Tensor],
    length: float,
    max_optical_depth: float,
    slab: int = 8,
) -> tuple[Tensor, Tensor]:
    """Find the samples with less than `max_optical_depth` in front of them, `slab` a ray at a time.

    `density` gives the density per world unit of some samples of `length`.

    Returns:
        which samples these are, bool (P,), and the optical depths of these samples alone.
    """
    passed = samples.depths.new_zeros(samples.num_rays)
    thickness = torch.zeros_like(samples.depths)
    seen = torch.zeros_like(samples.rays, dtype=torch.bool)
    left = torch.arange(len(samples), device=seen.device)
    first = 0
    while len(left):
        chosen = samples.ranks[left] < first + slab
        numbers, left = left[chosen], left[~chosen]
        part = samples.where(numbers)
        thickness[numbers] = density(part) * length
        rows = thickness.new_zeros(samples.num_rays, slab)
        rows[part.rays, part.ranks - first] = thickness[numbers]
        before = passed[:, None] + rows.cumsum(dim=1) - rows
        seen[numbers] = before[part.rays, part.ranks - first] < max_optical_depth
        passed = passed + rows.sum(dim=1)
        left = left[passed[samples.rays[left]] < max_optical_depth]
        first += slab
    return seen, thickness[seen]


class OccupancyGrid(nn.Module):
    """Cells of the cube |x|, |y|, |z| <= 0.6 in which rays are sampled.

    A cell remembers the largest optical depth found in it, with a decay. Cells above the threshold
    are occupied, and so are their neighbours, so that objects can grow. The names of the buffers
    are keys of saved checkpoints.
    """

    remembered: Tensor
    occupied: Tensor
    coarse: Tensor
    box: Tensor

    def __init__(
        self, config: OccupancyConfig, length: float, candidates: Tensor | None = None
    ) -> None:
        """Mark candidates (bool, indexed x, y, z, (V, V, V); None for every cell) as occupied.

        `length` is that of a sample, world units.
        """
        super().__init__()
        self.config = config
        self.length = length
        cells = (config.resolution,) * 3
        start = torch.ones(cells) if candidates is None else candidates.float()
        if start.shape != cells:
            raise ValueError(f"expected candidates of shape {cells}, got {tuple(start.shape)}")
        self.register_buffer("remembered", start * _MEMORY * _THRESHOLD)
        self.register_buffer("occupied", torch.zeros_like(start, dtype=torch.bool))
        coarse = (-(-config.resolution // _COARSE),) * 3
        self.register_buffer("coarse", torch.zeros(coarse, dtype=torch.bool, device=start.device))
        self.register_buffer("box", torch.zeros(2, 3, device=start.device))
        self._update_occupied()
        self._block = max(1, int(_COARSE * self.cell / length))

    @property
    def cell(self) -> float:
        """Side of a cell, world units."""
        return 2 * OBJECT_HALF_SIDE / self.config.resolution

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (..., 3) are in occupied cells; False outside of the cube."""
        occupied = _lookup(self.occupied, self.cell, *points.unbind(dim=-1))
        return occupied & inside_object_cube(points)

    def march(
        self, origins: Tensor, directions: Tensor, shifts: Tensor | None = None
    ) -> PackedSamples:
        """Sample rays (R, 3) of unit directions at equal distances, in occupied cells only.

        The samples are at (k + shift) lengths, k = 0, 1, ..., with shifts in [0, 1), (R,), 0.5 by
        default.
        """
        centre, half = self.box.mean(dim=0), (self.box[1] - self.box[0]).clamp_min(1e-6) / 2
        near, far = depths_in_cube((origins - centre) / half, directions / half, 1.0)
        shifts = torch.full_like(near, 0.5) if shifts is None else shifts
        blocks, first = self._blocks(origins, directions, near, far, shifts)

        steps = torch.arange(self._block, device=origins.device)
        depths = (first[:, None] + steps + shifts[blocks, None]) * self.length  # (B, n)
        kept = (depths >= near[blocks, None]) & (depths <= far[blocks, None])
        kept &= _lookup_rays(self.occupied, self.cell, origins[blocks], directions[blocks], depths)
        rays = blocks[:, None].expand_as(kept)[kept]
        counts = torch.bincount(rays, minlength=len(origins))
        starts = counts.cumsum(dim=0) - counts
        ranks = torch.arange(len(rays), device=rays.device) - starts[rays]
        return PackedSamples(rays, ranks, depths[kept], len(origins))

    def _blocks(
        self, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rays and first samples, (B,), of blocks of n successive samples near an occupied cell.

        A block is at most a coarse cell long: its middle is in one next to those of its samples.
        """
        hits = (far > near).nonzero()[:, 0]
        first = (near[hits] / self.length - shifts[hits]).ceil()
        last = (far[hits] / self.length - shifts[hits]).floor()
        count = int((last - first).max()) // self._block + 1 if len(hits) else 0
        first = first[:, None] + self._block * torch.arange(count, device=hits.device)
        middles = (first + (self._block - 1) / 2 + shifts[hits, None]) * self.length
        near_any = _lookup_rays(
            self.coarse, _COARSE * self.cell, origins[hits], directions[hits], middles
        )
        near_any &= first <= last[:, None]
        return hits[near_any.nonzero()[:, 0]], first[near_any]

    @torch.no_grad()
    def update(self, density: DensityFunction, turn: int) -> None:
        """Evaluate the density at a random point in part of the cells; `turn` decides on both."""
        config, size = self.config, self.config.resolution
        device = self.remembered.device
        numbers = torch.arange(turn % config.parts, size**3, config.parts)
        generator = torch.Generator().manual_seed(turn)
        jitter = torch.rand(len(numbers), 3, generator=generator).to(device)
        numbers = numbers.to(device)
        cells = torch.stack([numbers // size**2, numbers // size % size, numbers % size], dim=-1)
        points = (cells + jitter) * self.cell - OBJECT_HALF_SIDE
        found = torch.cat([density(chunk) for chunk in points.split(_CHUNK)]) * self.length
        flat = self.remembered.view(-1)
        flat[numbers] = torch.maximum(
            flat[numbers] * config.decay, found.clamp_max(_MEMORY * _THRESHOLD)
        )
        self._update_occupied()

    def replace(self, occupied: Tensor) -> None:
        """Replace the remembered state: exactly these cells, bool (V, V, V), and neighbours."""
        self.remembered.copy_(occupied * _MEMORY * _THRESHOLD)
        self._update_occupied()

    @torch.no_grad()
    def _update_occupied(self) -> None:
        """Compute the occupied cells and their bounding box from the remembered state."""
        enough = (self.remembered >= _THRESHOLD).float()
        grown = F.max_pool3d(enough[None], 3, stride=1, padding=1)[0] > 0
        self.occupied.copy_(grown)
        coarse = F.max_pool3d(grown.float()[None], _COARSE, ceil_mode=True)
        self.coarse.copy_(F.max_pool3d(coarse, 3, stride=1, padding=1)[0])
        found = grown.nonzero()
        if len(found):
            corners = torch.stack([found.amin(dim=0), found.amax(dim=0) + 1])
            self.box.copy_(corners * self.cell - OBJECT_HALF_SIDE)
        else:
            self.box.zero_()
