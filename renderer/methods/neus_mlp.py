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
from renderer.methods.fields import AutocastField, NeuSField, NeuSFieldConfig, SDFNetworkConfig
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
            advice = "use a GPU, or the fast method (configs/neus.yaml)"
            log.warning(
                "%d steps of published networks take hours on a CPU: %s", config.steps, advice
            )
        half = config.half and device.type == "cuda"
        self.renderer = (AutocastField if half else NeuSField)(config.networks).to(device)
        self._rays = all_rays(views, self.pixel_offset, device)
        masks = self._rays.masks
        self._foreground = None if masks is None else (masks > 0.5).nonzero()[:, 0]
        if self._foreground is not None and not len(self._foreground):
            raise ValueError("all masks are empty: there is nothing to reconstruct")

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
        anneal = cos_anneal_ratio(step, self.config.anneal_steps)
        rendering = self._render(batch.origins, batch.directions, anneal, uniforms)
        loss, _ = neus_losses(rendering, batch.colors, batch.masks)
        error = (rendering.color.detach() - batch.colors).square().mean()
        return StepResult(loss, error)

    def _sample_ray_indices(self, generator: torch.Generator) -> Tensor:
        """Random numbers of the rays of a step, on the device."""

        def random(count: int, among: Tensor | None = None) -> Tensor:
            total = len(self._rays) if among is None else len(among)
            numbers = torch.randint(total, (count,), generator=generator).to(self.device)
            return numbers if among is None else among[numbers]

        inside = (self.config.foreground_rays, self._foreground)
        return torch.cat([random(self.config.rays), random(*inside)])

    def _render(
        self,
        origins: Tensor,
        directions: Tensor,
        cos_anneal: float = 1.0,
        uniforms: Tensor | None = None,
    ) -> Rendering:
        near, far = depths_around_origin(origins, directions)
        sampling, sdf = self.config.sampling, self.renderer.sdf
        depths = sample_depths(sdf, origins, directions, near, far, sampling, uniforms)
        return render_rays(self.renderer, origins, directions, depths, cos_anneal)

    def after_step(self, step: int) -> None:
        """Do nothing."""

    @torch.no_grad()
    def render(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        """Render any number of rays without gradients."""
        chunks = zip(origins.split(_RAYS_AT_ONCE), directions.split(_RAYS_AT_ONCE), strict=True)
        parts = [self._render(*chunk) for chunk in chunks]
        color, opacity, normal = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("color", "opacity", "normal")
        )
        return RenderedRays(color.clamp(0.0, 1.0), opacity.clamp(0.0, 1.0), normal)

    def shape(self) -> SDFGrid:
        """Sample the signed distance, finely near the surface, in full precision."""
        sdf = lambda points: self.renderer.sdf_network(points)[..., 0]  # noqa: E731
        return sample_near_surface(sdf, self.config.resolution, self.device)


@torch.no_grad()
def sample_near_surface(sdf: SDFFunction, resolution: int, device: torch.device) -> SDFGrid:
    """Sample a signed distance, (P, 3) to (P,), on a grid over the object's cube.

    V = `resolution` samples a side include both ends. They are exact in all blocks that the surface
    may intersect, even if the gradient has twice its length; in the others they are interpolated.
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
