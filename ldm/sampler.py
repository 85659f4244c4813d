"""DDIM over all views at once; the model is known only as a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ldm.schedule import DDIMStep

NoisePredictor = Callable[[Tensor, int], Tensor]
"""(noisy latents x_t, time step t) -> predicted noise of the same shape."""
StepWatch = Callable[[int, Tensor], None]
"""(number of steps done, clean latents x_0 as they are predicted so far) -> nothing; what it raises
ends the sampling."""


def predicted_x_0(x_t: Tensor, noise_prediction: Tensor, alpha_bar: Tensor) -> Tensor:
    """Clean latents that a noise prediction means (DDIM, Eq. 9).

    Compat: not clipped.
    """
    return (x_t - (1 - alpha_bar).sqrt() * noise_prediction) / alpha_bar.sqrt()


def ddim_update(x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, noise: Tensor) -> Tensor:
    """Take one reverse step (DDIM, Eq. 12).

    Compat: the direction term's root is taken of at least 1e-7.

    Args:
        x_t: noisy latents, any shape.
        noise_prediction: epsilon predicted for them, the same shape.
        step: the coefficients.
        noise: standard normal, the same shape; not used where `step.add_noise` is false.

    Returns:
        latents at the time step before.
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
    draw_noise: Callable[[], Tensor],
    watch: StepWatch | None = None,
) -> Tensor:
    """Run the reverse process from pure noise to clean latents.

    All views share one process: at each step `predict_noise` sees all of them (paper Sec. 3.2).

    Args:
        predict_noise: the model.
        latents: standard normal at the first time step, any shape.
        steps: from `ldm.schedule.ddim_steps`; wrap it to show progress.
        draw_noise: called once for each step that adds noise, in order.
        watch: told of every step when it is done; does not change the result.

    Returns:
        clean latents, the same shape.
    """
    for number, step in enumerate(steps, start=1):
        noise_prediction = predict_noise(latents, step.timestep)
        noise = draw_noise() if step.add_noise else torch.zeros_like(latents)
        noisy, latents = latents, ddim_update(latents, noise_prediction, step, noise)
        if watch is not None:
            alpha_bar = torch.tensor(step.alpha_bar, dtype=noisy.dtype, device=noisy.device)
            watch(number, predicted_x_0(noisy, noise_prediction, alpha_bar))
    return latents
