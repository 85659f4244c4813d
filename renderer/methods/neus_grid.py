"""NeuS on a grid of signed distances, the fast default method.

The shape is that of silhouettes and stereo (`initial_shape`) plus corrections, trained on grids of
several resolutions, coarse ones first. Rays are rendered as in NeuS (Wang et al. 2021), but only in
a short interval around their first intersection with the surface, and with the sharpness on a
schedule; an occupancy grid skips empty space. Colours are a grid too, and do not depend on the
viewing direction. Distances in a grid are in cells. R rays, S samples a ray, P points, V cells a
side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multiview.cameras import OBJECT_HALF_SIDE, PIXEL_CENTRE
from multiview.visual_hull import cell_centres
from renderer.methods.base import (
    ParameterGroup,
    Rays,
    RenderedRays,
    SDFGrid,
    StepResult,
    Views,
    all_rays,
    near_masks,
)
from renderer.methods.initial_shape import initial_colors, initial_distances
from renderer.methods.neus import soft_l1
from renderer.methods.occupancy import OccupancyConfig, OccupancyGrid
from renderer.rays import points_on_rays
from renderer.volume_rendering import (
    accumulate,
    composite_on_white,
    sdf_to_alpha,
    weights_from_alpha,
)

_BLOCK = 3
"""Side of a cell of the occupancy grid, in cells of the shape."""
_MARGIN = 4.0
"""Space further outside the surface than this is empty, cells."""
_NO_SAMPLE = 9.0
"""Signed distance that stands for a missing sample, cells."""
_FAR_DEPTH = 1.5
"""Depth of a missing sample: the distance from the cameras to the origin."""
_RAYS_AT_ONCE = 1 << 15
_SAMPLES = 20
"""Per ray, around the surface."""
_SOFTNESS = (1.0, 0.35)
"""Of the surface, 1 / inv_s, at the first and the last step, cells: about a cell, then sharper than
the grid."""
_LEARNING_RATE = 0.05
"""Of the shape, in cells, and of the colours' logits."""
_FINAL_RATE = 0.2
"""Learning rates at the last step, as a share of the first ones."""
_LOSS_WEIGHTS = {"color": 1.0, "mask": 0.5, "eikonal": 0.005}
_AGREEMENT, _SMOOTHER = (0.5, 0.9), 10.0
"""Where views agree on the depth of at most the first share of their pixels, which is so of blurred
views by a small model, the surface is this many times smoother; from the second share on, it is as
smooth as is set. In between the factor grows exponentially."""
_SLACK = 1.0
"""The surface may be outside of the hull by this much, cells: masks are not more exact."""
_MASK_MARGIN = 6.0
"""Rays are trained up to this far from the masks, 256ths of the image: others see nothing."""
_LEVEL_CELLS, _LEVEL_STARTS = (4, 2, 1), 6
"""Side of a cell of each trained grid, in cells of the shape, coarse ones first; each starts this
share (a sixth) of all steps after the one before it."""
_NEAR = 2.0
"""Distances that are kept for the mesh, cells."""
_CUBIC = (-0.0703125, 0.8671875, 0.2265625, -0.0234375)
"""Weights of the cells -1 to 2 at a quarter of a cell from cell 0."""
_RENEW_EVERY = 25
"""Steps between updates of the occupancy grid; the surface moves less than its margin in them."""


@dataclass(frozen=True)
class GridNeuSConfig:
    """Settings of the method; lengths are in cells of the shape.

    Attributes:
        resolution: V, cells a side of the object's cube.
        steps: number of training steps.
        rays: per step.
        smoothness: weight of the squared Laplacian for views that agree; for others it is up to
            ten times as large.
    """

    resolution: int = 96
    steps: int = 300
    rays: int = 2048
    smoothness: float = 0.01

    def __post_init__(self) -> None:
        for name in ("resolution", "steps", "rays"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.smoothness < math.inf:
            raise ValueError(f"smoothness must be 0 or more, got {self.smoothness}")
        if self.resolution < 8:
            raise ValueError(f"resolution must be at least 8, got {self.resolution}")


@dataclass(frozen=True)
class _SampleInterval:
    """Increasing depths (R, S + 1), whether rays hit, (R,), depth of the lowest distance, (R,)."""

    depths: Tensor
    hit: Tensor
    deepest: Tensor


class GridNeuS(nn.Module):
    """Signed distances and colours on grids; a `renderer.methods.base.Method`.

    The names of buffers and parameters are keys of saved checkpoints.
    """

    start: Tensor
    bound: Tensor

    def __init__(self, config: GridNeuSConfig, views: Views, device: torch.device) -> None:
        """Estimate the initial shape, and cast the rays.

        Without masks, the initial shape is the hull of all that is not white.

        Raises:
            ValueError: the masks have no volume in common.
        """
        super().__init__()
        self.config = config
        self.num_steps = config.steps
        self.pixel_offset = PIXEL_CENTRE
        self.cell = 2 * OBJECT_HALF_SIDE / config.resolution
        start, bound, agreement = initial_distances(views, config.resolution, _SLACK, device)
        doubt = (_AGREEMENT[1] - agreement) / (_AGREEMENT[1] - _AGREEMENT[0])
        self.smoothness = config.smoothness * _SMOOTHER ** min(max(doubt, 0.0), 1.0)
        self.register_buffer("start", start)
        self.register_buffer("bound", bound)
        self.levels = nn.ParameterList(
            torch.zeros(1, 1, *[config.resolution // cells] * 3, device=device)
            for cells in _LEVEL_CELLS
        )
        trusted = views.trusted()
        self.colors = nn.Parameter(initial_colors(start, trusted).to(device))
        self.rays = all_rays(trusted, self.pixel_offset, device)
        self.candidates = torch.arange(len(self.rays), device=device)
        if trusted.masks is not None:
            near = near_masks(trusted.masks, _MASK_MARGIN * trusted.size / 256 - 0.5)
            self.candidates = torch.from_numpy(np.flatnonzero(near)).to(device)
        cells = -(-config.resolution // _BLOCK)
        self.occupancy = OccupancyGrid(OccupancyConfig(resolution=cells), self.cell).to(device)
        self._update_occupancy()

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group per level, and one for the colours."""
        betas = (0.9, 0.99)
        return [ParameterGroup([values], betas) for values in (*self.levels, self.colors)]

    def learning_rates(self, step: int) -> list[float]:
        """Exponential decay; 0 for levels that have not started."""
        rate = _LEARNING_RATE * _FINAL_RATE ** (step / self.config.steps)
        starts = [level * self.config.steps // _LEVEL_STARTS for level in range(len(self.levels))]
        return [*(rate if step >= start else 0.0 for start in starts), rate]

    def inv_s(self, step: int) -> float:
        """Sharpness of the surface at a step, 1 / cells."""
        first, last = _SOFTNESS
        return float(1.0 / (first * (last / first) ** (step / self.config.steps)))

    def distances(self) -> Tensor:
        """Signed distances of all cells, in cells, (1, 1, V, V, V)."""
        size = (self.config.resolution,) * 3
        added = [
            F.interpolate(values, size=size, mode="trilinear", align_corners=False)
            if values.shape[-1] != size[0]
            else values
            for values in self.levels
        ]
        return torch.maximum(self.start + sum(added), self.bound)

    def training_step(self, step: int, generator: torch.Generator) -> StepResult:
        """Render a batch of rays and compare it with the views."""
        config = self.config
        number = torch.randint(len(self.candidates), (config.rays,), generator=generator)
        shifts = torch.rand(config.rays, generator=generator).to(self.candidates.device)
        rays = self.rays.at(self.candidates[number.to(self.candidates.device)])
        distances, inv_s = self.distances(), self.inv_s(step)
        lines = (rays.origins, rays.directions)
        interval = self._find_surface(distances.detach(), *lines, inv_s, shifts)
        rendered = self._render(distances, *lines, interval, inv_s)
        terms = {
            "color": soft_l1(rendered.color, rays.colors),
            "mask": self._mask_loss(distances, rays, interval, inv_s),
            **_regularization_losses(distances),
        }
        weights = {**_LOSS_WEIGHTS, "smoothness": self.smoothness}
        first, *others = (weights[name] * term for name, term in terms.items())
        loss = sum(others, first)
        error = (rendered.color.detach() - rays.colors).square().mean()
        return StepResult(loss, error)

    def after_step(self, step: int) -> None:
        """Update the occupancy grid."""
        if (step + 1) % _RENEW_EVERY == 0:
            self._update_occupancy()

    @torch.no_grad()
    def _update_occupancy(self) -> None:
        """Mark the blocks of cells that are near the surface or inside."""
        near = (self.distances() < _MARGIN).float()
        self.occupancy.replace(F.max_pool3d(near, _BLOCK, ceil_mode=True)[0, 0])

    @torch.no_grad()
    def _find_surface(
        self,
        distances: Tensor,
        origins: Tensor,
        directions: Tensor,
        inv_s: float,
        shifts: Tensor | None,
    ) -> _SampleInterval:
        """March along rays (R, 3) to the surface, and place samples around the intersection.

        `distances` is (1, 1, V, V, V), `inv_s` 1 / cells: the softer the surface, the longer the
        interval. `shifts` of the samples are random, in [0, 1), (R,), or None.
        """
        samples = self.occupancy.march(origins, directions)
        values = _sample_trilinear(distances, samples.points(origins, directions))[0]
        width = int(samples.ranks.max()) + 1 if len(samples) else 1
        found = origins.new_full((len(origins), width), _NO_SAMPLE)
        depths = origins.new_full((len(origins), width), _FAR_DEPTH)
        found[samples.rays, samples.ranks] = values
        depths[samples.rays, samples.ranks] = samples.depths
        inside = found < 0
        hit, lowest = inside.any(dim=1), found.argmin(dim=1, keepdim=True)
        first = torch.where(hit[:, None], inside.float().argmax(dim=1, keepdim=True), lowest)
        at, before = found.gather(1, first), found.gather(1, (first - 1).clamp_min(0))
        back = (-at / (before - at).clamp_min(1e-3)).clamp(0, 1) * self.cell
        middle = depths.gather(1, first) - torch.where(hit[:, None], back, 0.0)
        half = self.cell * (4.0 / inv_s + 1.0)
        steps = torch.linspace(-1.0, 1.0, _SAMPLES + 1, device=origins.device)
        if shifts is not None:
            steps = steps + (shifts[:, None] - 0.5) * 2.0 / _SAMPLES
        return _SampleInterval(middle + steps * half, hit, depths.gather(1, lowest)[:, 0])

    def _render(
        self,
        distances: Tensor,
        origins: Tensor,
        directions: Tensor,
        interval: _SampleInterval,
        inv_s: float,
        normals: bool = False,
    ) -> RenderedRays:
        """Render R rays (NeuS Eq. 11 and 13); the last sample of a ray that hits is opaque."""
        ends = points_on_rays(origins, directions, interval.depths)  # (R, S + 1, 3)
        shape = ends.shape[:2]
        sdf = _sample_trilinear(distances, ends.reshape(-1, 3))[0].reshape(shape)
        middle, change = 0.5 * (sdf[:, 1:] + sdf[:, :-1]), sdf.diff(dim=1).clamp_max(0.0)
        alpha = sdf_to_alpha(middle, change, torch.ones_like(change), inv_s)
        last = torch.where(interval.hit, torch.ones_like(alpha[:, -1]), alpha[:, -1])
        weights = weights_from_alpha(torch.cat([alpha[:, :-1], last[:, None]], dim=1))
        middles = (0.5 * (ends[:, 1:] + ends[:, :-1])).reshape(-1, 3)
        colors = torch.sigmoid(_sample_trilinear(self.colors, middles)).T.reshape(*weights.shape, 3)
        normal = torch.zeros_like(origins)
        if normals:
            normal = accumulate(weights, _normals(distances, middles).reshape(colors.shape))
        return RenderedRays(composite_on_white(weights, colors), weights.sum(dim=1), normal)

    def _mask_loss(
        self, distances: Tensor, rays: Rays, interval: _SampleInterval, inv_s: float
    ) -> Tensor:
        """Squared error of the opacities at the deepest points of the rays.

        Where a mask is grossly wrong, the opacity is close to 0 or 1 and has hardly any gradient:
        it moves outlines a little, but makes no holes.
        """
        if rays.masks is None:
            return distances.new_zeros(())
        points = points_on_rays(rays.origins, rays.directions, interval.deepest[:, None])[:, 0]
        opacity = torch.sigmoid(-_sample_trilinear(distances, points)[0] * inv_s)
        return F.mse_loss(opacity, rays.masks)

    @torch.no_grad()
    def render(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        """Render any number of rays at the final sharpness."""
        distances, inv_s = self.distances(), self.inv_s(self.config.steps)
        parts = []
        for some in zip(origins.split(_RAYS_AT_ONCE), directions.split(_RAYS_AT_ONCE), strict=True):
            interval = self._find_surface(distances, *some, inv_s, None)
            parts.append(self._render(distances, *some, interval, inv_s, normals=True))
        return RenderedRays.cat(parts)

    @torch.no_grad()
    def shape(self) -> SDFGrid:
        """Return the signed distances in world units, on cells of half the side."""
        near = self.distances()[0, 0].clamp(-_NEAR, _NEAR)  # cubic weights overshoot at jumps
        sdf = double_resolution((near * self.cell).cpu().numpy())
        return SDFGrid(sdf, float(cell_centres(len(sdf))[0]), self.cell / 2)


def _sample_trilinear(grid: Tensor, points: Tensor) -> Tensor:
    """Values (C, P) of a grid (1, C, V, V, V), indexed x, y, z, at points (P, 3), clamped."""
    places = (points / OBJECT_HALF_SIDE).flip(-1)[None, :, None, None]
    values = F.grid_sample(grid, places, padding_mode="border", align_corners=False)
    return values.reshape(grid.shape[1], -1)


def double_resolution(values: np.ndarray) -> np.ndarray:
    """Interpolate values on the cells of a cube, (V, V, V), at cells of half the side.

    By cubic convolution (Keys 1981). Marching cubes on the coarse cells makes facets that smoothing
    cannot remove without shrinking thin parts.
    """
    for axis in range(3):
        padded = np.pad(np.moveaxis(values, axis, 0), ((2, 2), (0, 0), (0, 0)), mode="edge")
        near = [padded[k : k + values.shape[axis]] for k in range(5)]
        below = sum(w * x for w, x in zip(_CUBIC[::-1], near[:-1], strict=True))
        above = sum(w * x for w, x in zip(_CUBIC, near[1:], strict=True))
        pairs = np.stack([below, above], axis=1)
        values = np.moveaxis(pairs.reshape(-1, *pairs.shape[2:]), 0, axis)
    return np.ascontiguousarray(values)


def _normals(distances: Tensor, points: Tensor) -> Tensor:
    """Unit normals by central differences over two cells, (P, 3)."""
    step = 2 * OBJECT_HALF_SIDE / distances.shape[-1]
    slopes = [
        _sample_trilinear(distances, points + offset)[0]
        - _sample_trilinear(distances, points - offset)[0]
        for offset in torch.eye(3, device=points.device) * step
    ]
    return F.normalize(torch.stack(slopes, dim=-1), dim=-1)


def _regularization_losses(distances: Tensor) -> dict[str, Tensor]:
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
