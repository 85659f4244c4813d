"""The training loss (paper Sec. 3.2 and 4.1).

All N views of an object are noised at one timestep and lifted into the spatial volume; the noise
of a random one of them (or a few: the T target views of the loss) is predicted and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ldm.data.samples import TrainingBatch, to_model_range
from ldm.model import Conditioning, ImageFeatures, SyncDreamer
from ldm.networks.autoencoder import DiagonalGaussian
from ldm.spatial_volume import ViewGeometry
from ldm.training.metrics import timed
from ldm.training.random_draws import ConditionDropout, TrainingNoise, condition_dropout

IMAGES_AT_ONCE = 32
"""Number of images that the autoencoder encodes at once; bounds the memory."""


@dataclass(frozen=True)
class EncodedBatch:
    """Outputs of the frozen encoders for a batch."""

    targets: DiagonalGaussian  # posterior of the targets' latents, (B, N, C, H, W)
    input: ImageFeatures


Loss = Callable[[SyncDreamer, EncodedBatch, Tensor, TrainingNoise, ViewGeometry, bool], Tensor]
"""Function with the arguments of `diffusion_loss`."""


def encode_batch(model: SyncDreamer, batch: TrainingBatch) -> EncodedBatch:
    """Run the frozen encoders, without gradients and in float32."""
    with torch.no_grad(), torch.autocast(batch.target_images.device.type, enabled=False):
        images = rearrange(batch.target_images, "b n c h w -> (b n) c h w")
        posteriors = [
            model.first_stage_model.encode(to_model_range(part))
            for part in images.split(IMAGES_AT_ONCE)
        ]
        mean, std = (
            rearrange(torch.cat(parts), "(b n) c h w -> b n c h w", b=len(batch))
            for parts in ([p.mean for p in posteriors], [p.std for p in posteriors])
        )
        features = model.encode_image(to_model_range(batch.input_images))
    return EncodedBatch(DiagonalGaussian(mean, std), features)


def q_sample(model: SyncDreamer, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Sample q(x_t | x_0) by the model's schedule; latents x_0 (B, N, C, H, W), timesteps (B,)."""
    signal, rest = (
        model.get_buffer(name)[timesteps][:, None, None, None, None]
        for name in ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
    )
    return signal * latents + rest * noise


def select_views(values: Tensor, views: Tensor) -> Tensor:
    """Select T views of each object, (B, N, ...) by (B, T) -> (B, T, ...)."""
    return values[torch.arange(len(values), device=values.device)[:, None], views]


def predict_target_views(
    model: SyncDreamer,
    noisy: Tensor,
    noise: TrainingNoise,
    conditioning: Conditioning,
    geometry: ViewGeometry,
    drop_conditions: bool,
) -> Tensor:
    """Predict with the UNet for each object's target views, (B, T, C, H, W).

    `noisy` has the latents x_t of all views, (B, N, C, H, W); otherwise as `diffusion_loss`.
    """
    targets, count = noise.target_views, noise.target_views.shape[1]
    with timed("volume"):
        time = model.embed_time(noise.timesteps)
        volume = model.build_spatial_volume(noisy, time, conditioning, geometry)
        viewpoints = select_views(conditioning.viewpoints, targets)
        frustums = model.spatial_volume.view_frustums(
            volume, time, viewpoints, geometry.rays_in_volume[targets]
        )
    with timed("unet", inputs=frustums):
        context = rearrange(select_views(conditioning.context, targets), "b t c -> (b t) 1 c")
        image = repeat(conditioning.input_latents, "b c h w -> (b t) c h w", t=count)
        if drop_conditions:
            dropout = condition_dropout(noise.dropout)
            context, image, frustums = drop(dropout, context, image, frustums)
        x = rearrange(select_views(noisy, targets), "b t c h w -> (b t) c h w")
        x = torch.cat([x, image], dim=1)
        predicted = model.unet(x, noise.timesteps.repeat_interleave(count), context, frustums)
    return predicted.unflatten(0, targets.shape)


def drop(
    dropout: ConditionDropout, context: Tensor, image: Tensor, frustums: list[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Zero dropped conditions (B T, ...). Compat: the image token is, after its projection."""

    def zero(dropped: Tensor, values: Tensor) -> Tensor:
        keep = (~dropped).to(values.dtype).repeat_interleave(len(values) // len(dropped))
        return values * keep.reshape(-1, *(1 for _ in values.shape[1:]))

    volumes = [zero(dropout.volume, frustum) for frustum in frustums]
    return zero(dropout.clip, context), zero(dropout.concat, image), volumes


def diffusion_loss(
    model: SyncDreamer,
    encoded: EncodedBatch,
    elevations: Tensor,
    noise: TrainingNoise,
    geometry: ViewGeometry,
    drop_conditions: bool = False,
) -> Tensor:
    """Mean squared error of the predicted noise of each target view n, float32, (B, T).

        || noise^(n) - model^(n)(x_t^(1:N), t) ||^2
        with x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise

    Of B objects, whose input views have the elevations (B,) in radians; see `StepConfig` for
    `drop_conditions`. The trainer averages the losses.
    """
    latents = encoded.targets.sample(noise.target_posterior) * model.config.autoencoder.scale
    noisy = q_sample(model, latents, noise.epsilon, noise.timesteps)
    conditioning = model.make_conditioning(encoded.input, elevations, noise.input_posterior)
    predicted = predict_target_views(model, noisy, noise, conditioning, geometry, drop_conditions)
    return view_errors(predicted, select_views(noise.epsilon, noise.target_views))


def view_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each view, (B, T, C, H, W) each -> float32, (B, T)."""
    return (predicted.float() - target).square().flatten(2).mean(dim=2)
