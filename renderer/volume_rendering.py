"""Volume rendering of samples along rays; symbols and equations of NeuS (Wang et al. 2021).

R rays, S samples a ray; f is the signed distance, Phi_s(x) = sigmoid(s x).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ALPHA_EPSILON = 1e-5
_TRANSMITTANCE_EPSILON = 1e-7
_PDF_EPSILON = 1e-5


def weights_from_alpha(alpha: Tensor) -> Tensor:
    """Weights T_i alpha_i of samples (..., S) in order from the camera (NeuS Eq. 11).

    T_i = prod_{j<i} (1 - alpha_j). Compat: 1e-7 is added to every factor, which keeps a gradient
    behind an opaque sample; the sum of the weights can exceed 1 by about S * 1e-7.
    """
    passed = (1.0 - alpha + _TRANSMITTANCE_EPSILON).cumprod(dim=-1)
    transmittance = torch.cat([torch.ones_like(passed[..., :1]), passed[..., :-1]], dim=-1)
    return transmittance * alpha


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sum (..., C) along rays of values (..., S, C) with weights (..., S)."""
    return (weights[..., None] * values).sum(dim=-2)


def composite_on_white(weights: Tensor, colors: Tensor) -> Tensor:
    """Colour (..., 3) of rays in front of white; weights (..., S), colours (..., S, 3)."""
    return accumulate(weights, colors) + (1.0 - weights.sum(dim=-1, keepdim=True))


def sample_pdf(
    bins: Tensor, weights: Tensor, num_samples: int, uniforms: Tensor | None = None
) -> Tensor:
    """Sample n depths (..., n) from a piecewise constant density by inverting its CDF.

    `bins` are increasing edges, (..., S + 1); weights (..., S) need not sum to 1. `uniforms` in [0,
    1), (..., n), decide the order; None takes the mid-points (k + 0.5) / n. Compat: 1e-5 is added
    to all weights, and cells with less than 1e-5 of the probability are not stretched: samples in
    them stay close to the cell's beginning.
    """
    weights = weights + _PDF_EPSILON
    cdf = (weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    cdf = torch.cat([torch.zeros_like(cdf[..., :1]), cdf], dim=-1)
    if uniforms is None:
        steps = torch.arange(num_samples, dtype=cdf.dtype, device=cdf.device)
        uniforms = ((steps + 0.5) / num_samples).expand(*cdf.shape[:-1], num_samples)

    above = torch.searchsorted(cdf, uniforms.contiguous(), right=True)
    below = (above - 1).clamp_min(0)
    above = above.clamp_max(cdf.shape[-1] - 1)
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    left, right = bins.gather(-1, below), bins.gather(-1, above)

    gap = cdf_above - cdf_below
    gap = torch.where(gap < _PDF_EPSILON, torch.ones_like(gap), gap)
    return left + (uniforms - cdf_below) / gap * (right - left)


def cos_anneal_ratio(step: int, anneal_steps: int = 200) -> float:
    """Progress of the cosine annealing at a training step, 0 to 1; 1 when not training."""
    return min(1.0, step / anneal_steps) if anneal_steps > 0 else 1.0


def annealed_cosine(cosine: Tensor, ratio: float) -> Tensor:
    """Slope of f along the ray, at most 0, from the cosine of ray and SDF gradient.

    From the published code. With ratio 1 (`cos_anneal_ratio`) only surfaces that face the camera
    count, min(cosine, 0); with ratio 0 it is min(cosine - 1, 0) / 2, which gives all surfaces a
    gradient while the shape is still wrong.
    """
    return -(F.relu(0.5 - 0.5 * cosine) * (1.0 - ratio) + F.relu(-cosine) * ratio)


def sdf_to_alpha(
    sdf: Tensor, cosine: Tensor, section_lengths: Tensor, inv_s: Tensor | float
) -> Tensor:
    """Opacity in [0, 1] of sections of rays from f in their middle (NeuS Eq. 13).

    alpha = (Phi_s(f_start) - Phi_s(f_end)) / Phi_s(f_start), with both ends extrapolated by the
    slope `cosine` (`annealed_cosine`); `inv_s` is s, large for a sharp surface. Compat: 1e-5 is
    added to numerator and denominator, so empty space has alpha 1e-5, not 0.
    """
    half_change = 0.5 * cosine * section_lengths
    cdf_start = torch.sigmoid((sdf - half_change) * inv_s)
    cdf_end = torch.sigmoid((sdf + half_change) * inv_s)
    alpha = (cdf_start - cdf_end + _ALPHA_EPSILON) / (cdf_start + _ALPHA_EPSILON)
    return alpha.clamp(0.0, 1.0)
