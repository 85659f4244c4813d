"""The training loss of the small model: v-prediction, and samples that are pure noise."""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.config import SyncDreamerConfig
from ldm.model import SyncDreamer
from ldm.spatial_volume import ViewGeometry
from ldm.training.loss import (
    EncodedBatch,
    Loss,
    diffusion_loss,
    predict_target_views,
    q_sample,
    select_views,
    view_errors,
)
from ldm.training.random_draws import TrainingNoise


def v_target(model: SyncDreamer, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return v = sqrt(a) noise - sqrt(1 - a) x_0, a = alpha_bar_t; arguments as in `q_sample`."""
    return q_sample(model, noise, -latents, timesteps)


def v_prediction_loss(
    model: SyncDreamer,
    encoded: EncodedBatch,
    elevations: Tensor,
    noise: TrainingNoise,
    geometry: ViewGeometry,
    drop_conditions: bool = False,
) -> Tensor:
    """Mean squared error of the predicted v of each target view, see `diffusion_loss`.

    The noisy latents of pure samples (`StepConfig.pure_noise`) are the noise alone.
    """
    latents = encoded.targets.sample(noise.target_posterior) * model.config.autoencoder.scale
    noisy = q_sample(model, latents, noise.epsilon, noise.timesteps)
    noisy = torch.where(noise.pure[:, None, None, None, None], noise.epsilon, noisy)
    conditioning = model.make_conditioning(encoded.input, elevations, noise.input_posterior)
    predicted = predict_target_views(model, noisy, noise, conditioning, geometry, drop_conditions)
    target = v_target(model, latents, noise.epsilon, noise.timesteps)
    return view_errors(predicted, select_views(target, noise.target_views))


def choose_loss(config: SyncDreamerConfig) -> Loss:
    """Return the loss that fits what a model predicts."""
    return v_prediction_loss if config.prediction == "v" else diffusion_loss
