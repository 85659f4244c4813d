"""The published method: NeuS with its networks, trained on random rays.

It needs a GPU: every step evaluates eight layers of 256 channels at half a million points.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive
from multiview.cameras import OBJECT_HALF_SIDE
from renderer.methods.base import ParameterGroup, RenderedRays, SDFGrid, StepResult, Views, all_rays
from renderer.methods.fields import (
    NeuSField,
    NeuSFieldConfig,
    SDFNetworkConfig,
    SurfaceField,
    SurfaceSamples,
)
from renderer.methods.neus import (
    LearningRateConfig,
    Rendering,
    SamplingConfig,
    SDFFunction,
    learning_rate,
    neus_losses,
    render_rays,
    sample_depths,
)
from renderer.rays import PUBLISHED_PIXEL_OFFSET, depths_around_origin
from renderer.volume_rendering import cos_anneal_ratio

log = logging.getLogger(__name__)

BLOCK = 8
"""Side of the blocks that `sample_near_surface` samples finely or coarsely, in samples."""
POINTS_AT_ONCE = 1 << 18
"""Points per evaluation of the network when the mesh is extracted."""
_RAYS_AT_ONCE = 2048
"""When rendering without training; bounds the memory."""


@dataclass(frozen=True)
class MLPNeuSConfig:
    """Settings of the published method; the defaults are its values.

    Attributes:
        networks: sizes.
        sampling: of a ray.
        learning_rate: of all parameters.
        steps: number of training steps.
        rays: per step, anywhere in the views.
        foreground_rays: additional rays per step, inside the masks; anywhere without masks.
        anneal_steps: steps of the cosine annealing, see `cos_anneal_ratio`.
        resolution: of the mesh, samples along each side of the cube.
        half: half precision of colours and sampling (CUDA only), see `AutocastField`.
    """

    networks: NeuSFieldConfig = field(default_factory=NeuSFieldConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    learning_rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    steps: int = 2000
    rays: int = 3584
    foreground_rays: int = 512
    anneal_steps: int = 200
    resolution: int = 512
    half: bool = False

    def __post_init__(self) -> None:
        check_positive(self)
        if self.resolution < 2 * BLOCK:
            raise ValueError(f"resolution must be at least {2 * BLOCK}, got {self.resolution}")


class MLPNeuS(nn.Module):
    """The networks of NeuS and their training: a `Method`.

    The names of the parameters are those of the published checkpoints, `renderer.` included.
    """

    def __init__(self, config: MLPNeuSConfig, views: Views, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.device = device
        self.num_steps = config.steps
        self.pixel_offset = PUBLISHED_PIXEL_OFFSET
        if device.type == "cpu" and config.networks.sdf.width >= SDFNetworkConfig.width:
            log.warning(
                "%d steps with networks of the published size take hours on a CPU: use a GPU, or "
                "the fast method (configs/neus.yaml)",
                config.steps,
            )
        self.renderer = NeuSField(config.networks).to(device)
        self._rays = all_rays(views, self.pixel_offset, device)
        masks = self._rays.masks
        self._foreground = None if masks is None else (masks > 0.5).nonzero()[:, 0]
        if self._foreground is not None and not len(self._foreground):
            raise ValueError("all masks are empty: there is nothing to reconstruct")

    @property
    def _surface(self) -> SurfaceField:
        half = self.config.half and self.device.type == "cuda"
        return AutocastField(self.renderer) if half else self.renderer

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters, in one group."""
        return [ParameterGroup(list(self.renderer.parameters()))]

    def learning_rates(self, step: int) -> list[float]:
        """Learning rate of the one group."""
        return [learning_rate(step, self.config.learning_rate)]

    def training_step(self, step: int, generator: torch.Generator) -> StepResult:
        """Render random rays, more of them inside the masks, and compare them with the views."""
        index = self._sample_ray_indices(generator)
        uniforms = torch.rand(len(index), generator=generator).to(self.device)
        batch = self._rays.at(index)
        rendering = self._render(
            batch.origins,
            batch.directions,
            cos_anneal_ratio(step, self.config.anneal_steps),
            uniforms,
        )
        losses = neus_losses(rendering, batch.colors, batch.masks)
        return StepResult(
            loss=losses.total,
            squared_error=(rendering.color.detach() - batch.colors).square().mean(),
            terms={
                "color": losses.color.detach(),
                "mask": losses.mask.detach(),
                "eikonal": losses.eikonal.detach(),
                "inv_s": self.renderer.inv_s().detach(),
            },
        )

    def _sample_ray_indices(self, generator: torch.Generator) -> Tensor:
        """Random numbers of the rays of a step, on the device."""
        groups = [(None, self.config.rays), (self._foreground, self.config.foreground_rays)]
        indices = []
        for among, count in groups:
            total = len(self._rays) if among is None else len(among)
            numbers = torch.randint(total, (count,), generator=generator).to(self.device)
            indices.append(numbers if among is None else among[numbers])
        return torch.cat(indices)

    def _render(
        self,
        origins: Tensor,
        directions: Tensor,
        cos_anneal: float = 1.0,
        uniforms: Tensor | None = None,
    ) -> Rendering:
        near, far = depths_around_origin(origins, directions)
        depths = sample_depths(
            self._surface.sdf, origins, directions, near, far, self.config.sampling, uniforms
        )
        return render_rays(self._surface, origins, directions, depths, cos_anneal)

    def after_step(self, step: int) -> None:
        """Do nothing."""

    @torch.no_grad()
    def render(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        """Render any number of rays without gradients."""
        size = _RAYS_AT_ONCE
        parts = [
            self._render(some_origins, some_directions)
            for some_origins, some_directions in zip(
                origins.split(size), directions.split(size), strict=True
            )
        ]
        return RenderedRays(
            color=torch.cat([part.color for part in parts]).clamp(0.0, 1.0),
            opacity=torch.cat([part.opacity for part in parts]).clamp(0.0, 1.0),
            normal=torch.cat([part.normal for part in parts]),
        )

    def shape(self) -> SDFGrid:
        """Sample the signed distance, finely near the surface."""
        return sample_near_surface(self.renderer.sdf, self.config.resolution, self.device)


class AutocastField:
    """A field with colours in bfloat16, and with float16 distances for choosing samples.

    Colours have gradients and need the range of float32; distances for sampling have none and need
    more digits. Distances that are differentiated twice stay in float32.
    """

    def __init__(self, field: NeuSField) -> None:
        self._field = field

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distances (...,) without gradients, for choosing samples."""
        with torch.autocast(points.device.type, torch.float16):
            return self._field.sdf(points).float()

    def surface(self, points: Tensor) -> SurfaceSamples:
        """Signed distances with gradients and features, in float32."""
        return self._field.surface(points)

    def color(self, points: Tensor, normals: Tensor, to_camera: Tensor, features: Tensor) -> Tensor:
        """Colours in [0, 1], (P, 3)."""
        with torch.autocast(points.device.type, torch.bfloat16):
            return self._field.color(points, normals, to_camera, features).float()

    def inv_s(self) -> Tensor:
        """The sharpness s of the surface, a scalar."""
        return self._field.inv_s()


@torch.no_grad()
def sample_near_surface(sdf: SDFFunction, resolution: int, device: torch.device) -> SDFGrid:
    """Sample a signed distance on a grid over the object's cube, coarsely far from the surface.

    Samples are exact in all blocks that the surface may intersect, even if the gradient has twice
    the length that it should have; in the other blocks they are interpolated. This takes about a
    tenth of the 134 million evaluations of 512 samples a side.

    Args:
        sdf: (P, 3) to (P,).
        resolution: V, samples along each side of the cube, both ends included.
        device: of the points.
    """
    spacing = 2 * OBJECT_HALF_SIDE / (resolution - 1)
    blocks = math.ceil((resolution - 1) / BLOCK)

    def evaluate(nodes: Tensor) -> Tensor:
        """Distances at integer grid coordinates, (P, 3) to (P,), on the CPU."""
        parts = nodes.to(device).split(POINTS_AT_ONCE)
        return torch.cat([sdf(part * spacing - OBJECT_HALF_SIDE).float().cpu() for part in parts])

    coarse = evaluate(torch.cartesian_prod(*[torch.arange(blocks + 1) * BLOCK] * 3))
    coarse = coarse.reshape(1, 1, blocks + 1, blocks + 1, blocks + 1)
    nearest = -F.max_pool3d(-coarse.abs(), 2, stride=1)
    crossed = F.max_pool3d(coarse, 2, stride=1) * -F.max_pool3d(-coarse, 2, stride=1) <= 0
    half_diagonal = math.sqrt(3) / 2 * BLOCK * spacing
    corners = (crossed | (nearest < 2 * half_diagonal))[0, 0].nonzero() * BLOCK

    side = blocks * BLOCK + 1
    values = F.interpolate(coarse, (side, side, side), mode="trilinear", align_corners=True)[0, 0]
    inner = torch.cartesian_prod(*[torch.arange(BLOCK)] * 3)
    for some in corners.split(max(1, POINTS_AT_ONCE // len(inner))):
        nodes = (some[:, None] + inner).reshape(-1, 3)
        values[nodes.unbind(dim=1)] = evaluate(nodes)
    sampled = values[:resolution, :resolution, :resolution]
    return SDFGrid(np.ascontiguousarray(sampled.numpy()), -OBJECT_HALF_SIDE, spacing)
