"""NeuS (Wang et al. 2021) as SyncDreamer published it: sampling, rendering, losses.

Random numbers are arguments. R rays, S samples a ray.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.config import check_positive
from renderer.methods.fields import NeuSField
from renderer.rays import inside_object_cube, points_on_rays
from renderer.volume_rendering import (
    accumulate,
    annealed_cosine,
    composite_on_white,
    sample_pdf,
    sdf_to_alpha,
    weights_from_alpha,
)

SDFFunction = Callable[[Tensor], Tensor]
"""Signed distances (...,) of points (..., 3)."""

_SLOPE_EPSILON = 1e-5
_STEEPEST_SLOPE = 1e3
_MASK_EPSILON = 1e-5
_FIRST_INV_S = 64.0
"""Sharpness of the density of the first round of up-sampling, published; it doubles every round."""
_COLOR_WEIGHT, _MASK_WEIGHT, _EIKONAL_WEIGHT = 0.5, 1.0, 0.1
"""Published weights of the losses: colours, opacities, deviation of the gradients from length 1."""
_SOFTNESS = 0.001
"""Added under the root of the soft L1 loss, squared units of colour; published."""
_WARMUP_START = 0.02
"""Learning rate at step 0, as a share of its peak; published."""
_DECAY = math.sqrt(0.02)
"""Factor of the learning rate at every full interval, published: 0.02 after two of them."""


@dataclass(frozen=True)
class SamplingConfig:
    """Numbers of samples of a ray (NeuS, hierarchical sampling).

    Attributes:
        coarse: evenly spaced samples.
        importance: additional samples near the surface, in all rounds together.
        rounds: of up-sampling.
    """

    coarse: int = 64
    importance: int = 64
    rounds: int = 4

    def __post_init__(self) -> None:
        check_positive(self)
        if self.importance % self.rounds:
            raise ValueError(
                f"importance must be a multiple of rounds = {self.rounds}, got {self.importance}"
            )


def _upsample_depths(
    sdf: Tensor, depths: Tensor, inside: Tensor, inv_s: float, num_samples: int
) -> Tensor:
    """Propose n more depths (R, n) where the signed distance (R, S) changes its sign.

    The slope of a section is the more negative one of its own and the previous section's, and at
    most 0 (published code, not in the paper). Sections without a sample in the cube get no weight.
    """
    lengths = depths.diff(dim=-1)
    slopes = sdf.diff(dim=-1) / (lengths + _SLOPE_EPSILON)
    previous = torch.cat([torch.zeros_like(slopes[:, :1]), slopes[:, :-1]], dim=-1)
    slopes = torch.minimum(slopes, previous).clamp(-_STEEPEST_SLOPE, 0.0)
    slopes = slopes * (inside[:, 1:] | inside[:, :-1])
    middle = 0.5 * (sdf[:, 1:] + sdf[:, :-1])
    weights = weights_from_alpha(sdf_to_alpha(middle, slopes, lengths, inv_s))
    return sample_pdf(depths, weights, num_samples)


@torch.no_grad()
def sample_depths(
    sdf: SDFFunction,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    config: SamplingConfig,
    uniforms: Tensor | None = None,
) -> Tensor:
    """Choose the increasing depths (R, S), S = coarse + importance, at which rays are sampled.

    `uniforms` in [0, 1), (R,), shift the coarse samples in training. Compat: by up to 1 / coarse in
    world units to both sides, whatever the distance of the samples.
    """
    steps = torch.linspace(0.0, 1.0, config.coarse, dtype=near.dtype, device=near.device)
    depths = near[:, None] + (far - near)[:, None] * steps
    if uniforms is not None:
        depths = depths + (uniforms[:, None] - 0.5) * 2.0 / config.coarse

    points = points_on_rays(origins, directions, depths)
    distances = sdf(points)
    for i in range(config.rounds):
        inside = inside_object_cube(points_on_rays(origins, directions, depths))
        inv_s = _FIRST_INV_S * 2.0**i
        new = _upsample_depths(distances, depths, inside, inv_s, config.importance // config.rounds)
        depths, order = torch.cat([depths, new], dim=-1).sort(dim=-1)
        if i + 1 < config.rounds:
            new_distances = sdf(points_on_rays(origins, directions, new))
            distances = torch.cat([distances, new_distances], dim=-1).gather(-1, order)
    return depths


@dataclass(frozen=True)
class Rendering:
    """Result of rendering R rays of S samples.

    Attributes:
        color: in front of white, in [0, 1], (R, 3).
        opacity: sum of the weights: the predicted mask, (R,).
        normal: sum of the weighted unit normals, not normalised, world axes, (R, 3).
        gradient_error: (|gradient of the SDF| - 1)^2, 0 outside the object's cube, (R, S).
        inside: samples in the object's cube, bool (R, S).
    """

    color: Tensor
    opacity: Tensor
    normal: Tensor
    gradient_error: Tensor
    inside: Tensor


def _scatter(values: Tensor, chosen: Tensor) -> Tensor:
    """Put values (P, ...) where `chosen` (R, S) is true, zeros elsewhere: (R, S, ...)."""
    out = values.new_zeros(*chosen.shape, *values.shape[1:])
    out[chosen] = values
    return out


def render_rays(
    surface_field: NeuSField,
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,
    cos_anneal: float = 1.0,
) -> Rendering:
    """Render rays through the samples in the object's cube (NeuS Eq. 11 and 13).

    Sections go from each depth, (R, S), to the next; the last one is as long as the one before it.
    The field is evaluated in their middles, only inside the cube. For `cos_anneal` see
    `annealed_cosine`.
    """
    lengths = depths.diff(dim=-1)
    lengths = torch.cat([lengths, lengths[:, -1:]], dim=-1)
    points = points_on_rays(origins, directions, depths + 0.5 * lengths)
    inside = inside_object_cube(points)

    inner_points = points[inside]  # (P, 3)
    inner_directions = directions[:, None, :].expand_as(points)[inside]
    surface = surface_field.surface(inner_points)
    normals = F.normalize(surface.gradients, dim=-1)
    colors = surface_field.color(inner_points, normals, -inner_directions, surface.features)
    cosine = annealed_cosine((inner_directions * surface.gradients).sum(dim=-1), cos_anneal)
    alpha = sdf_to_alpha(surface.sdf, cosine, lengths[inside], surface_field.inv_s())
    gradient_error = (surface.gradients.norm(dim=-1) - 1.0).square()

    weights = weights_from_alpha(_scatter(alpha, inside))  # (R, S)
    opacity = weights.sum(dim=-1)  # before the colours: gradients are added in this order
    return Rendering(
        color=composite_on_white(weights, _scatter(colors, inside)),
        opacity=opacity,
        normal=accumulate(weights, _scatter(normals, inside)),
        gradient_error=_scatter(gradient_error, inside),
        inside=inside,
    )


def soft_l1(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over rays of sqrt(|difference|^2 + 0.001), (R, 3) against (R, 3)."""
    return ((predicted - target).square().sum(dim=-1) + _SOFTNESS).sqrt().mean()


def eikonal_loss(gradient_error: Tensor, inside: Tensor) -> Tensor:
    """Mean of (|gradient| - 1)^2, (R, S), over the samples inside the object's cube.

    Compat: 1e-5 is added per sample, not once, in the denominator.
    """
    counted = inside.to(gradient_error.dtype)
    return (gradient_error * counted).sum() / (counted + _MASK_EPSILON).sum()


def neus_losses(
    rendering: Rendering, colors: Tensor, masks: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss, and its color, mask and eikonal terms without their weights (NeuS Sec. 3.3).

    Colours are on white, (R, 3); without masks, opacities in [0, 1], (R,), their term is 0.
    """
    color = soft_l1(rendering.color, colors)
    eikonal = eikonal_loss(rendering.gradient_error, rendering.inside)
    mask = torch.zeros_like(color) if masks is None else F.mse_loss(rendering.opacity, masks)
    total = _COLOR_WEIGHT * color + _MASK_WEIGHT * mask + _EIKONAL_WEIGHT * eikonal
    return total, {"color": color, "mask": mask, "eikonal": eikonal}


@dataclass(frozen=True)
class LearningRateConfig:
    """Learning rate: linear warm-up to the peak; a decay every `interval` steps from step 0."""

    peak: float = 5e-4
    warmup_steps: int = 100
    interval: int = 1000

    def __post_init__(self) -> None:
        check_positive(self)


def learning_rate(step: int, config: LearningRateConfig) -> float:
    """Learning rate of a training step, counted from 0."""
    if step < config.warmup_steps:
        progress = step / config.warmup_steps
        return config.peak * (_WARMUP_START + progress * (1.0 - _WARMUP_START))
    return float(config.peak * _DECAY ** (step // config.interval))
