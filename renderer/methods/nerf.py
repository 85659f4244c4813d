"""Radiance field on a hash grid: volume rendering without a surface (NeRF, Instant-NGP).

Follows the published variant: a density blob in the centre at the start, an occupancy grid, colour
and mask losses. R rays, P points or samples, N views, V cells a side.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive
from multiview.cameras import OBJECT_HALF_SIDE, PIXEL_CENTRE, Cameras
from multiview.projection import project
from multiview.visual_hull import check_not_empty, close_underside, visual_hull
from renderer.methods.base import (
    ParameterGroup,
    RenderedRays,
    SDFGrid,
    StepResult,
    Views,
    all_rays,
    near_masks,
)
from renderer.methods.neus import soft_l1
from renderer.methods.occupancy import (
    OccupancyConfig,
    OccupancyGrid,
    PackedSamples,
    accumulate_along_rays,
    distortion_loss,
    render_visibility,
    render_weights,
)
from renderer.methods.radiance_field import DENSITY_SCALE, FieldConfig, RadianceField

_OPAQUE = 7.0
"""Optical depth at which rays end: a thousandth of the light is left."""
_CANDIDATE_CELLS = 64
"""Cells a side of the grid of candidates; much smaller than the masks' margin."""
_HULL_CELLS = 96
_HULL_SLACK = 0.0125
"""The surface may be outside of the hull by this much, a cell of the hull; world units."""
_RAYS_AT_ONCE = 1 << 15
_LEARNING_RATE = 1e-2
_FINAL_RATE = 0.1
"""Learning rate at the last step, as a share of the first one."""
_LOSS_WEIGHTS = {"color": 0.5, "mask": 10.0, "distortion": 0.3, "solid": 0.002}
"""Those of colours and masks are the published ones; the distortion loss is mip-NeRF 360's."""
_SOLID_DENSITY = 40.0
"""Density that the interior density loss aims at, well above that of the surface."""
_HIDDEN_EVERY = 8
"""The interior density loss takes every n-th of the hidden samples, which is enough and cheaper."""
_BACKGROUND = 0.1
"""Share of the rays that are anywhere, not only near the masks."""
_MARGIN = 0.05
"""By which the masks are dilated, as a share of the views' size: masks may be too small."""
_AGREEMENT = 0.75
"""Share of the dilated masks that a cell must lie in to be occupied at the start: some are bad."""
_SURFACE_DENSITY = 15.0
"""Density on the surface of the mesh."""


@dataclass(frozen=True)
class NeRFConfig:
    """Settings of the method; the defaults are the published ones where such exist.

    Attributes:
        network: sizes of the field.
        occupancy: settings of the occupancy grid.
        steps: number of training steps.
        rays: per step.
        max_samples: of all rays of a step together; further rays are left out.
        length: distance between the samples of a ray, world units.
        mesh_resolution: samples a side for the mesh.
        half: evaluate the networks in bfloat16 (CUDA only).
    """

    network: FieldConfig = field(default_factory=FieldConfig)
    occupancy: OccupancyConfig = field(default_factory=OccupancyConfig)
    steps: int = 2000
    rays: int = 40960
    max_samples: int = 1 << 20
    length: float = 0.01
    mesh_resolution: int = 256
    half: bool = False

    def __post_init__(self) -> None:
        check_positive(self)
        if self.length <= 0:
            raise ValueError(f"nerf.length must be positive, got {self.length}")
        if self.mesh_resolution < 2:
            raise ValueError(f"nerf.mesh_resolution must be at least 2, got {self.mesh_resolution}")


class NeRF(nn.Module):
    """A radiance field and its training: a `renderer.methods.base.Method`.

    The names of buffers and parameters are keys of saved checkpoints.
    """

    def __init__(self, config: NeRFConfig, views: Views, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.num_steps = config.steps
        self.pixel_offset = PIXEL_CENTRE
        self.field = RadianceField(config.network, config.half)
        candidates = self.near_object = None
        if views.masks is not None:
            check_not_empty(views.masks >= 0.5)
            near = torch.from_numpy(near_masks(views.masks, _MARGIN * views.size))
            candidates = _candidate_cells(near, views.cameras, config.occupancy)
            self.near_object = near.flatten().nonzero()[:, 0].to(device)
        self.occupancy = OccupancyGrid(config.occupancy, config.length, candidates)
        self.rays = all_rays(views, self.pixel_offset, device)
        self.views = views
        self.to(device)

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters, in one group."""
        return [ParameterGroup(list(self.parameters()), betas=(0.9, 0.99))]

    def learning_rates(self, step: int) -> list[float]:
        """Exponential decay."""
        progress = step / max(1, self.num_steps - 1)
        return [_LEARNING_RATE * _FINAL_RATE**progress]

    def training_step(self, step: int, generator: torch.Generator) -> StepResult:  # noqa: ARG002
        """Render random rays, and compare them with the views."""
        batch = self.rays.at(self._sample_ray_indices(generator))
        shifts = torch.rand(len(batch), generator=generator).to(batch.origins.device)
        samples = self.occupancy.march(batch.origins, batch.directions, shifts)
        samples = samples.within(self.config.max_samples)
        batch = batch.at(torch.arange(samples.num_rays, device=shifts.device))
        seen, _ = self._visible(samples, batch.origins, batch.directions)
        hidden = samples.where((~seen).nonzero()[::_HIDDEN_EVERY, 0])
        samples = samples.where(seen)

        logits, features = self.field.geometry(samples.points(batch.origins, batch.directions))
        weights, _ = render_weights(samples, self.field.to_density(logits) * self.config.length)
        colors = self.field.color(features, batch.directions[samples.rays])
        opacity = accumulate_along_rays(samples, weights)
        color = accumulate_along_rays(samples, weights[:, None] * colors) + (1 - opacity[:, None])

        terms = {"color": soft_l1(color, batch.colors)}
        if batch.masks is not None:
            terms["mask"] = F.mse_loss(opacity, batch.masks)
        terms["distortion"] = distortion_loss(samples, weights, self.config.length).mean()
        hidden_points = hidden.points(batch.origins, batch.directions)
        terms["solid"] = self._interior_density_loss(hidden_points)
        weighted = (_LOSS_WEIGHTS[name] * term for name, term in terms.items())
        loss = sum(weighted, color.new_zeros(()))
        return StepResult(loss, F.mse_loss(color.detach(), batch.colors))

    def _interior_density_loss(self, hidden: Tensor) -> Tensor:
        """Mean lack of density, a share, at points (P, 3) that no light reaches; makes them solid.

        Space that other rays found to be empty stays so: the density has next to no gradient there.
        """
        lack = F.relu(1 - self.field.density(hidden) / _SOLID_DENSITY)
        return lack.mean() if len(hidden) else lack.sum()

    def _sample_ray_indices(self, generator: torch.Generator) -> Tensor:
        """Numbers of random rays, most of them near the masks if there are any, (R,)."""
        device = self.rays.origins.device
        anywhere = torch.randint(len(self.rays), (self.config.rays,), generator=generator)
        if self.near_object is None:
            return anywhere.to(device)
        near = torch.randint(len(self.near_object), (self.config.rays,), generator=generator)
        is_background = torch.rand(self.config.rays, generator=generator) < _BACKGROUND
        near = self.near_object[near.to(device)]
        return torch.where(is_background.to(device), anywhere.to(device), near)

    def after_step(self, step: int) -> None:
        """Update the occupancy grid every few steps."""
        turn, rest = divmod(step + 1, self.config.occupancy.every)
        if rest == 0:
            self.occupancy.update(self.field.density, turn)

    def _visible(
        self, samples: PackedSamples, origins: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Samples that light reaches, bool (P,), and their optical depths; no gradients."""
        density = lambda part: self.field.density(part.points(origins, directions))  # noqa: E731
        return render_visibility(samples, density, self.config.length, _OPAQUE)

    @torch.no_grad()
    def render(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        """Render any number of rays; the normal is that at the mean depth of the ray."""
        chunks = zip(origins.split(_RAYS_AT_ONCE), directions.split(_RAYS_AT_ONCE), strict=True)
        return RenderedRays.cat([self._render_chunk(*chunk) for chunk in chunks])

    def _render_chunk(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        samples = self.occupancy.march(origins, directions)
        seen, optical_depths = self._visible(samples, origins, directions)
        samples = samples.where(seen)
        weights, _ = render_weights(samples, optical_depths)
        opacity = accumulate_along_rays(samples, weights)
        depth = accumulate_along_rays(samples, weights * samples.depths) / opacity.clamp_min(1e-6)

        chosen = weights > 1e-3
        samples, weights = samples.where(chosen), weights[chosen]
        _, features = self.field.geometry(samples.points(origins, directions))
        colors = self.field.color(features, directions[samples.rays])
        color = accumulate_along_rays(samples, weights[:, None] * colors)
        color = color + (1 - accumulate_along_rays(samples, weights))[:, None]

        hit = (opacity > 1e-2).nonzero()[:, 0]
        normal = torch.zeros_like(origins)
        ends = origins[hit] + directions[hit] * depth[hit, None]
        normal[hit] = self._normals(ends) * opacity[hit, None]
        return RenderedRays(color.clamp(0, 1), opacity, normal)

    def _normals(self, points: Tensor) -> Tensor:
        """Unit normals (P, 3), opposite to the gradient of the density, at points (P, 3).

        Finite differences over the corners of a tetrahedron about as large as the cells that
        matter; the derivative would show single cells of the encoding.
        """
        corners = torch.tensor(
            [[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]],
            device=points.device,
        )
        around = (points[:, None] + self.config.length * corners).flatten(0, 1)
        logits = self.field.geometry(around)[0].view(-1, 4)
        return F.normalize(-logits @ corners, dim=-1)

    @torch.no_grad()
    def shape(self, surface_density: float = _SURFACE_DENSITY) -> SDFGrid:
        """Sample the density in the occupied cells, as a distance to its level set.

        The logits of the density, which are less curved, are divided by their slope on the surface.
        The shape is cut off at the hull of the masks with its underside closed, as no camera sees
        beyond.

        Raises:
            ValueError: the density is nowhere as high as at the surface.
        """
        resolution = self.config.mesh_resolution
        spacing = 2 * OBJECT_HALF_SIDE / resolution
        first = -OBJECT_HALF_SIDE + spacing / 2
        axis = first + spacing * torch.arange(resolution, device=self.rays.origins.device)
        level = float(np.log(np.expm1(surface_density / DENSITY_SCALE)))

        planes = []
        for x in axis:
            y, z = torch.meshgrid(axis, axis, indexing="ij")
            points = torch.stack([x.expand_as(y), y, z], dim=-1).view(-1, 3)
            plane = torch.full_like(points[:, 0], torch.inf)
            occupied = self.occupancy.contains(points)
            plane[occupied] = level - self.field.geometry(points[occupied])[0]
            planes.append(plane.view(resolution, resolution))
        lack = torch.stack(planes).cpu().numpy()
        if not (lack < 0).any():
            highest = DENSITY_SCALE * np.logaddexp(0, level - lack.min())
            raise ValueError(
                f"the density is at most {highest:.3g}, nowhere above the level of the surface, "
                f"{surface_density:g}: nothing was learned (are the masks empty?)"
            )
        sdf = _scale_to_distances(lack, spacing)
        if self.views.masks is not None:
            hull = visual_hull(self.views.masks >= 0.5, self.views.cameras, _HULL_CELLS)
            closed = torch.from_numpy(close_underside(hull, self.views.cameras))[None, None]
            fine = F.interpolate(closed, (resolution,) * 3, mode="trilinear", align_corners=False)
            sdf = np.maximum(sdf, fine[0, 0].numpy() - _HULL_SLACK)
        return SDFGrid(sdf, first, spacing)


def _scale_to_distances(lack: np.ndarray, spacing: float) -> np.ndarray:
    """Divide values (V, V, V) by their slope at the zero crossing, and clip them to 4 cells."""
    steps = []
    for axis in range(3):
        a, b = np.moveaxis(lack, axis, 0)[:-1], np.moveaxis(lack, axis, 0)[1:]
        crossing = ((a < 0) != (b < 0)) & np.isfinite(a) & np.isfinite(b)
        steps.append(np.abs(a[crossing] - b[crossing]))
    changes = np.concatenate(steps)
    slope = float(np.median(changes)) / spacing if len(changes) else 1.0
    most = 4 * spacing
    return np.clip(lack / max(slope, 1e-6), -most, most).astype(np.float32)


def _candidate_cells(masks: Tensor, cameras: Cameras, config: OccupancyConfig) -> Tensor:
    """Cells of the occupancy grid, bool (V, V, V), in enough dilated masks, bool (N, S, S)."""
    axis = (torch.arange(_CANDIDATE_CELLS) + 0.5) * (2 * OBJECT_HALF_SIDE / _CANDIDATE_CELLS)
    points = torch.cartesian_prod(*[axis - OBJECT_HALF_SIDE] * 3)
    votes = torch.zeros(len(points))
    poses = map(torch.from_numpy, (cameras.intrinsics, cameras.world_to_camera))
    for mask, intrinsics, pose in zip(masks, *(pose.float() for pose in poses), strict=True):
        pixels, _ = project(points, intrinsics, pose)
        cells = pixels.floor().long()
        clamped = cells.clamp(0, len(mask) - 1)
        votes += mask[clamped[:, 1], clamped[:, 0]] & (cells == clamped).all(dim=-1)
    enough = (votes >= _AGREEMENT * len(masks)).view(1, 1, *[_CANDIDATE_CELLS] * 3)
    return F.interpolate(enough.float(), (config.resolution,) * 3)[0, 0] > 0
