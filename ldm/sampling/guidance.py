"""Guidance: how the predictions of several branches of the denoiser are combined into one.

Every form is linear, its weights sum to 1, and it knows the denoiser as a callable only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ldm.depth_attention import CONDITIONAL, NO_INPUT, NO_VOLUME, UNCONDITIONAL, Branch
from ldm.sampling.config import GuidanceConfig

Denoiser = Callable[[Tensor, int, Sequence[Branch]], Tensor]
"""(noisy latents x_t, timestep t, K branches) -> the prediction of each branch, (K, *x_t.shape)."""
NoisePredictor = Callable[[Tensor, int], Tensor]
"""(noisy latents x_t, timestep t) -> predicted noise of the same shape."""


def classifier_free_guidance(denoise: Denoiser, scale: float) -> NoisePredictor:
    """Combine the predictions with and without the input view (paper Sec. 3.2).

    e = e_uncond + s (e_cond - e_uncond);   s = 1 evaluates the conditional branch only
    """

    def guided(latents: Tensor, timestep: int) -> Tensor:
        if scale == 1.0:
            return denoise(latents, timestep, [CONDITIONAL])[0]
        conditional, unconditional = denoise(latents, timestep, [CONDITIONAL, UNCONDITIONAL])
        return unconditional + scale * (conditional - unconditional)

    return guided


def harmony_guidance(denoise: Denoiser, input_scale: float, volume_scale: float) -> NoisePredictor:
    """Guide apart by the input view and by the other views (HarmonyView, 2312.15980, Eq. 9).

    e = e_full + s1 (e_full - e_no_input) + s2 (e_full - e_no_volume);   a branch whose scale is 0
    is not evaluated
    """
    dropped = [(NO_INPUT, input_scale), (NO_VOLUME, volume_scale)]
    dropped = [(branch, scale) for branch, scale in dropped if scale]

    def guided(latents: Tensor, timestep: int) -> Tensor:
        branches = [CONDITIONAL, *(branch for branch, _ in dropped)]
        full, *without = denoise(latents, timestep, branches)
        result = full
        for (_, scale), prediction in zip(dropped, without, strict=True):
            result = result + scale * (full - prediction)
        return result

    return guided


def guidance(
    denoise: Denoiser, config: GuidanceConfig, scale: float, alphas_cumprod: Tensor
) -> NoisePredictor:
    """Return the guided prediction that a configuration asks for.

    With an interval, the conditional branch alone is evaluated at all noise levels
    sigma = sqrt((1 - alpha_bar) / alpha_bar) outside (low, high] (2404.07724, Eq. 6).
    """
    conditional = classifier_free_guidance(denoise, 1.0)
    if config.kind == "none":
        return conditional
    if config.kind == "harmony":
        guided = harmony_guidance(denoise, config.input_scale, config.volume_scale)
    else:
        guided = classifier_free_guidance(denoise, scale)
    if config.interval is None:
        return guided
    low, high = config.interval
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().tolist()

    def within_interval(latents: Tensor, timestep: int) -> Tensor:
        predict = guided if low < sigmas[timestep] <= high else conditional
        return predict(latents, timestep)

    return within_interval
