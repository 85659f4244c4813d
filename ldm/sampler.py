"""DDIM over all views at once, with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ldm.config import SamplerConfig
from ldm.depth_attention import CONDITIONAL, UNCONDITIONAL, Branch
from ldm.model import Conditioning, ImageFeatures, SyncDreamer
from ldm.schedule import DDIMStep, ddim_steps

Denoiser = Callable[[Tensor, int, Sequence[Branch]], Tensor]
"""(noisy latents x_t, timestep t, K branches) -> the prediction of each branch, (K, *x_t.shape)."""
NoisePredictor = Callable[[Tensor, int], Tensor]
"""(noisy latents x_t, timestep t) -> predicted noise of the same shape."""
LatentsCallback = Callable[[int, Tensor], None]
"""(number of steps done, current prediction of the clean latents x_0) -> nothing; an exception
ends the sampling."""


def predicted_x_0(x_t: Tensor, noise_prediction: Tensor, alpha_bar: Tensor) -> Tensor:
    """Clean latents implied by a noise prediction (DDIM, Eq. 9). Compat: not clipped."""
    return (x_t - (1 - alpha_bar).sqrt() * noise_prediction) / alpha_bar.sqrt()


def ddim_update(x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, noise: Tensor) -> Tensor:
    """Take one reverse step (DDIM, Eq. 12) from latents x_t of any shape; the others have it too.

    `noise` is standard normal (times the temperature), not used where `step.add_noise` is false.
    Compat: the radicand of the direction term is clamped to at least 1e-7.
    """
    alpha_bar, alpha_bar_prev, sigma = torch.tensor(
        [step.alpha_bar, step.alpha_bar_prev, step.sigma], dtype=x_t.dtype, device=x_t.device
    )
    x_0 = predicted_x_0(x_t, noise_prediction, alpha_bar)
    direction = (1 - alpha_bar_prev - sigma**2).clamp_min(1e-7).sqrt()
    x_prev = alpha_bar_prev.sqrt() * x_0 + direction * noise_prediction
    return x_prev + sigma * noise if step.add_noise else x_prev


def sample_ddim(
    predict_noise: NoisePredictor,
    latents: Tensor,
    steps: Iterable[DDIMStep],
    sample_noise: Callable[[], Tensor],
    on_step: LatentsCallback | None = None,
) -> Tensor:
    """Run the reverse process, shared by all views, from pure noise to clean latents (Sec. 3.2).

    The steps are from `ldm.schedule.ddim_steps`; `sample_noise` is called once for each that adds
    noise, in order. `on_step` is called after every step and does not change the result.
    """
    for number, step in enumerate(steps, start=1):
        noise_prediction = predict_noise(latents, step.timestep)
        noise = sample_noise() if step.add_noise else torch.zeros_like(latents)
        noisy, latents = latents, ddim_update(latents, noise_prediction, step, noise)
        if on_step is not None:
            alpha_bar = torch.tensor(step.alpha_bar, dtype=noisy.dtype, device=noisy.device)
            on_step(number, predicted_x_0(noisy, noise_prediction, alpha_bar))
    return latents


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


def noise_predictor(
    model: SyncDreamer, conditioning: Conditioning, guidance_scale: float, views_at_once: int = 8
) -> NoisePredictor:
    """Return a model's guided prediction of the noise in all views; its weights must not change."""
    cache = model.sampling_cache()

    def denoise(latents: Tensor, timestep: int, branches: Sequence[Branch]) -> Tensor:
        return model(latents, timestep, conditioning, cache, branches, views_at_once)

    guided = classifier_free_guidance(denoise, guidance_scale)
    return lambda latents, timestep: model.to_noise(guided(latents, timestep), latents, timestep)


def sample(
    model: SyncDreamer,
    features: ImageFeatures,
    elevation: float,
    config: SamplerConfig,
    sample_noise: Callable[[tuple[int, ...]], Tensor],
    views_at_once: int = 8,
    progress_bar: Callable[[list[DDIMStep]], Iterable[DDIMStep]] = iter,
    on_step: LatentsCallback | None = None,
) -> Tensor:
    """Generate one sample of the N views of an object: latents, float32, (N, C, H, W).

    The model is in evaluation mode, the features are of one input image, its elevation is in
    radians. `sample_noise`, shape -> standard normal on the model's device, is called for the
    posterior (1, C, H, W), then for the initial latents and each step (1, N, C, H, W).
    `progress_bar` wraps the steps; `on_step` is called after each with latents (N, C, H, W).
    """
    shape = (1, *model.config.latent_shape)
    elevations = torch.tensor([elevation], dtype=torch.float32, device=model.azimuth.device)
    conditioning = model.make_conditioning(features, elevations, sample_noise((1, *shape[2:])))
    predict_noise = noise_predictor(model, conditioning, config.guidance_scale, views_at_once)
    steps = ddim_steps(model.alphas_cumprod, config.steps, config.eta, config.spacing)

    def scaled_noise() -> Tensor:
        return config.temperature * sample_noise(shape)

    callback = None if on_step is None else lambda number, x_0: on_step(number, x_0[0])
    noisy = scaled_noise()
    return sample_ddim(predict_noise, noisy, progress_bar(steps), scaled_noise, callback)[0]
