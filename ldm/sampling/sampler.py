"""The reverse process over all views at once: guidance and a solver, combined with a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ldm.depth_attention import Branch
from ldm.model import Conditioning, ImageFeatures, SyncDreamer
from ldm.sampling.config import GuidanceConfig, SamplerConfig, Solver
from ldm.sampling.guidance import NoisePredictor, guidance
from ldm.sampling.solvers import SOLVERS, History, predicted_x_0
from ldm.schedule import DDIMStep, ddim_steps

LatentsCallback = Callable[[int, Tensor], None]
"""(number of steps done, current prediction of the clean latents x_0) -> nothing; an exception
ends the sampling."""


def solve(
    predict_noise: NoisePredictor,
    latents: Tensor,
    steps: Iterable[DDIMStep],
    sample_noise: Callable[[], Tensor],
    on_step: LatentsCallback | None = None,
    solver: Solver = "ddim",
) -> Tensor:
    """Run the reverse process, shared by all views, from pure noise to clean latents (Sec. 3.2).

    The steps are from `ldm.schedule.ddim_steps`; `sample_noise` is called once for each that adds
    noise, in order. `on_step` is called after every step and does not change the result.
    """
    update = SOLVERS[solver]
    history: History | None = None
    for number, step in enumerate(steps, start=1):
        noise_prediction, noisy = predict_noise(latents, step.timestep), latents
        noise = sample_noise() if step.add_noise else torch.zeros_like(latents)
        latents, history = update(noisy, noise_prediction, step, noise, history)
        if on_step is not None:
            alpha_bar = torch.tensor(step.alpha_bar, dtype=noisy.dtype, device=noisy.device)
            on_step(number, predicted_x_0(noisy, noise_prediction, alpha_bar))
    return latents


def noise_predictor(
    model: SyncDreamer,
    conditioning: Conditioning,
    guidance_scale: float,
    views_at_once: int = 8,
    config: GuidanceConfig | None = None,
) -> NoisePredictor:
    """Return a model's guided prediction of the noise in all views; its weights must not change.

    By default the guidance is classifier-free, of the given scale.
    """
    cache = model.sampling_cache()

    def denoise(latents: Tensor, timestep: int, branches: Sequence[Branch]) -> Tensor:
        return model(latents, timestep, conditioning, cache, branches, views_at_once)

    config = config or GuidanceConfig()
    guided = guidance(denoise, config, guidance_scale, model.alphas_cumprod)
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

    See `sample_batch`; `on_step` gets latents (N, C, H, W).
    """
    callback = None if on_step is None else lambda number, x_0: on_step(number, x_0[0])
    batch = sample_batch(
        model, features, elevation, config, 1, sample_noise, views_at_once, progress_bar, callback
    )
    return batch[0]


def sample_batch(
    model: SyncDreamer,
    features: ImageFeatures,
    elevation: float,
    config: SamplerConfig,
    num_samples: int,
    sample_noise: Callable[[tuple[int, ...]], Tensor],
    views_at_once: int = 8,
    progress_bar: Callable[[list[DDIMStep]], Iterable[DDIMStep]] = iter,
    on_step: LatentsCallback | None = None,
) -> Tensor:
    """Generate B samples of the N views of an object together: latents, (B, N, C, H, W).

    The model is in evaluation mode, the features are of one input image, its elevation is in
    radians. `sample_noise`, shape -> standard normal on the model's device, is called for the
    posterior (B, C, H, W), then for the initial latents and each step (B, N, C, H, W).
    `progress_bar` wraps the steps; `on_step` is called after each. `views_at_once` is of a sample.
    """
    shape = (num_samples, *model.config.latent_shape)
    features = replace(features, embedding=features.embedding.expand(num_samples, -1, -1))
    elevations = torch.full((num_samples,), elevation, device=model.azimuth.device)
    posterior_noise = sample_noise((num_samples, *shape[2:]))
    conditioning = model.make_conditioning(features, elevations, posterior_noise)
    predict_noise = noise_predictor(
        model, conditioning, config.guidance_scale, views_at_once, config.guidance
    )
    steps = ddim_steps(model.alphas_cumprod, config.steps, config.ddim_eta, config.spacing)

    def scaled_noise() -> Tensor:
        return config.temperature * sample_noise(shape)

    noisy = scaled_noise()
    bar = progress_bar(steps)
    return solve(predict_noise, noisy, bar, scaled_noise, on_step, config.solver)
