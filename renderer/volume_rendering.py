"""Volume rendering of samples along rays.

Shape letters: R rays, S samples a ray. Symbols and equation numbers are those of NeuS (Wang et
al. 2021): f is the signed distance, Phi_s(x) = sigmoid(s x), T_i the transmittance before sample i.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ALPHA_EPSILON = 1e-5
_TRANSMITTANCE_EPSILON = 1e-7
_PDF_EPSILON = 1e-5


def weights_from_alpha(alpha: Tensor) -> Tensor:
    """Weights T_i alpha_i of samples in order from the camera, T_i = prod_{j<i} (1 - alpha_j).

    Source: NeuS Eq. 11. Compat: 1e-7 is added to every factor of T_i, so that the product keeps a
    gradient behind an opaque sample; the sum of the weights can exceed 1 by about S * 1e-7.

    Args:
        alpha: opacity of every sample in [0, 1], (..., S).

    Returns:
        (..., S).
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
    """Sample depths from a piecewise constant density by inverting its CDF.

    Compat: 1e-5 is added to all weights, and cells with less than 1e-5 of the probability are
    not stretched: samples in them stay close to the cell's beginning.

    Args:
        bins: increasing edges of the cells, (..., S + 1).
        weights: not negative, need not sum to 1, (..., S).
        num_samples: n, a ray.
        uniforms: random numbers in [0, 1), (..., n), from the caller's generator; None takes the
            mid-points (k + 0.5) / n, which makes the result deterministic and increasing.

    Returns:
        depths, (..., n), in the order of `uniforms`.
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
    """Progress of the cosine annealing at a training step, from 0 to 1.

    Rendering without training uses 1.
    """
    return min(1.0, step / anneal_steps) if anneal_steps > 0 else 1.0


def annealed_cosine(cosine: Tensor, ratio: float) -> Tensor:
    """Cosine between ray and SDF gradient, annealed, as slope of f along the ray.

    Source: the published NeuS implementation; not in the paper. With ratio 1 only surfaces that
    face the camera count, min(cosine, 0). With ratio 0 it is min(cosine - 1, 0) / 2, which
    gives all surfaces a gradient while the shape is still wrong.

    Args:
        cosine: direction times gradient, negative where the ray enters, (...).
        ratio: from `cos_anneal_ratio`.

    Returns:
        at most 0, (...).
    """
    return -(F.relu(0.5 - 0.5 * cosine) * (1.0 - ratio) + F.relu(-cosine) * ratio)


def sdf_to_alpha(
    sdf: Tensor, cosine: Tensor, section_lengths: Tensor, inv_s: Tensor | float
) -> Tensor:
    """Opacity of sections of rays from the signed distance in their middle.

    alpha = (Phi_s(f_start) - Phi_s(f_end)) / Phi_s(f_start), with f at both ends extrapolated
    from the middle by the slope (NeuS Eq. 13).

    Compat: 1e-5 is added to numerator and denominator, so empty space has alpha 1e-5, not 0.

    Args:
        sdf: f in the middle of every section, positive outside, (...).
        cosine: slope of f along the ray, at most 0 (`annealed_cosine`), (...).
        section_lengths: (...).
        inv_s: s, the sharpness; large for a sharp surface.

    Returns:
        in [0, 1], (...).
    """
    half_change = 0.5 * cosine * section_lengths
    cdf_start = torch.sigmoid((sdf - half_change) * inv_s)
    cdf_end = torch.sigmoid((sdf + half_change) * inv_s)
    alpha = (cdf_start - cdf_end + _ALPHA_EPSILON) / (cdf_start + _ALPHA_EPSILON)
    return alpha.clamp(0.0, 1.0)
