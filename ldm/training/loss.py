"""One training step as functions: what is drawn, what is predicted, and the loss (paper Sec. 4.1).

All N views of an object are noised at one time step and read into the spatial volume; the noise
of one random target view (or a few) is predicted and compared.

Every random number of a sample follows from the seed and the sample's number in the training.
So a resumed run goes on with the same numbers, and they do not depend on how the samples are
spread over processes and batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from common.config import check_positive
from ldm.data.samples import TrainingBatch, to_model_range
from ldm.model import Conditioning, ImageFeatures, SyncDreamer
from ldm.networks.autoencoder import DiagonalGaussian
from ldm.spatial_volume import ViewGeometry

IMAGES_AT_ONCE = 32
"""That the autoencoder encodes; bounds the memory."""
DROP_RATE = 0.05
"""Of each of the four ways to drop conditions."""

Mark = Callable[[str], None]
"""Told the name of what has just been computed, for the report of where the time goes."""


@dataclass(frozen=True)
class StepConfig:
    """What a training step is.

    Attributes:
        target_views: views of an object whose noise is predicted; the paper has 1.
        drop_conditions: leave out conditions of a fifth of the samples: see `drop_masks`.
        timestep_power: p; the density of the time steps is proportional to t^p. The paper has 0;
            more of them train what decides the shape, at high noise.
        pure_noise: share of the samples that are what the sampler begins with: at the last time
            step, no trace of the object, and noise of a random temperature. At that time step the
            schedule leaves a trace, which a model learns to rely on (Lin et al. 2024, Sec. 2);
            and noise below its full size is what `SamplerConfig.temperature` asks for.
    """

    target_views: int = 1
    drop_conditions: bool = False
    timestep_power: float = 0.0
    pure_noise: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self)
        if not 0 <= self.timestep_power < math.inf:
            raise ValueError(f"step.timestep_power must not be below 0, got {self.timestep_power}")
        if not 0 <= self.pure_noise <= 1:
            raise ValueError(f"step.pure_noise must be from 0 to 1, got {self.pure_noise}")


@dataclass(frozen=True)
class Draws:
    """The random numbers of B samples.

    Attributes:
        timesteps: t of each object, the same for all its views, (B,).
        target_views: views whose noise is predicted, (B, T).
        noise: standard normal (times the temperature, where it is pure), (B, N, C, H, W).
        target_posterior: for the latents of the targets, likewise.
        input_posterior: for the latents of the input view, (B, C, H, W).
        drop: uniform in [0, 1), float32, (B,).
        pure: where there is only noise, bool, (B,).
    """

    timesteps: Tensor
    target_views: Tensor
    noise: Tensor
    target_posterior: Tensor
    input_posterior: Tensor
    drop: Tensor
    pure: Tensor

    def to(self, device: torch.device) -> Draws:
        """Copy to a device."""
        return Draws(**{name: value.to(device) for name, value in vars(self).items()})


def draw_samples(
    seed: int,
    numbers: range,
    latent_shape: tuple[int, int, int, int],
    timesteps: int,
    config: StepConfig,
) -> Draws:
    """Draw what the samples with these numbers need, on the CPU.

    Args:
        seed: of the training.
        numbers: of the samples, counted over the whole training and all processes.
        latent_shape: (N, C, H, W).
        timesteps: of the schedule.
        config: how many different target views, T, and which time steps and noise.
    """
    drawn: dict[str, list[Tensor]] = {name: [] for name in Draws.__dataclass_fields__}
    for number in numbers:
        generator = np.random.Generator(np.random.PCG64([seed, number]))

        def normal(shape: tuple[int, ...], generator: np.random.Generator = generator) -> Tensor:
            return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))

        if config.timestep_power:
            t = int(timesteps * generator.random() ** (1 / (1 + config.timestep_power)))
        else:
            t = int(generator.integers(timesteps))
        temperature, pure = 1.0, False
        if config.pure_noise:
            temperature = generator.random() / config.pure_noise
            pure = temperature < 1
        if pure:
            t = timesteps - 1
        drawn["timesteps"].append(torch.tensor(t))
        drawn["pure"].append(torch.tensor(pure))
        chosen = generator.permutation(latent_shape[0])[: config.target_views]
        drawn["target_views"].append(torch.from_numpy(chosen))
        drawn["drop"].append(torch.tensor(generator.random(dtype=np.float32)))
        drawn["noise"].append(min(temperature, 1.0) * normal(latent_shape))
        drawn["target_posterior"].append(normal(latent_shape))
        drawn["input_posterior"].append(normal(latent_shape[1:]))
    return Draws(**{name: torch.stack(values) for name, values in drawn.items()})


@dataclass(frozen=True)
class DropMasks:
    """Which conditions are left out, (B,) each."""

    clip: Tensor
    volume: Tensor
    concat: Tensor


def drop_masks(drop: Tensor) -> DropMasks:
    """Decide from one uniform number a sample what is left out; each 5 % of the samples.

    In increasing order of the number: everything, the input latents, the volumes, the image
    token; the rest keeps all. Compared in float32, limits included below.
    """
    everything = drop <= DROP_RATE

    def part(number: int) -> Tensor:
        return (drop > round(number * DROP_RATE, 2)) & (drop <= round((number + 1) * DROP_RATE, 2))

    return DropMasks(
        clip=everything | part(3), volume=everything | part(2), concat=everything | part(1)
    )


@dataclass(frozen=True)
class Encoded:
    """What the frozen encoders make of a batch.

    Attributes:
        targets: posterior of the targets' latents, (B, N, C, H, W).
        input: features of the input view.
    """

    targets: DiagonalGaussian
    input: ImageFeatures


def encode_batch(model: SyncDreamer, batch: TrainingBatch) -> Encoded:
    """Run the frozen encoders, without gradients and in float32."""
    with torch.no_grad(), torch.autocast(batch.target_images.device.type, enabled=False):
        views = rearrange(batch.target_images, "b n c h w -> (b n) c h w")
        posteriors = [
            model.first_stage_model.encode(to_model_range(part))
            for part in views.split(IMAGES_AT_ONCE)
        ]
        mean, std = (
            rearrange(torch.cat(parts), "(b n) c h w -> b n c h w", b=len(batch))
            for parts in ([p.mean for p in posteriors], [p.std for p in posteriors])
        )
        features = model.encode_image(to_model_range(batch.input_images))
    return Encoded(DiagonalGaussian(mean, std), features)


def add_noise(model: SyncDreamer, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Run the forward process, q(x_t | x_0), with the schedule of the checkpoint.

    Args:
        model: whose schedule it is.
        latents: x_0, (B, N, C, H, W).
        noise: standard normal, likewise.
        timesteps: (B,).
    """
    signal, rest = (
        model.get_buffer(name)[timesteps][:, None, None, None, None]
        for name in ("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod")
    )
    return signal * latents + rest * noise


def velocity(model: SyncDreamer, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return v = sqrt(a) noise - sqrt(1 - a) x_0, a = alpha_bar_t; arguments as in `add_noise`."""
    return add_noise(model, noise, -latents, timesteps)


def of_views(values: Tensor, views: Tensor) -> Tensor:
    """Pick T views of each object, (B, N, ...) by (B, T) -> (B, T, ...)."""
    return values[torch.arange(len(values), device=values.device)[:, None], views]


def predict_views(
    model: SyncDreamer,
    noisy: Tensor,
    draws: Draws,
    conditions: Conditioning,
    masks: DropMasks | None,
    geometry: ViewGeometry,
    mark: Mark,
) -> Tensor:
    """Run the UNet on each object's target views.

    Args:
        model: whose networks are trained.
        noisy: latents x_t of all views, (B, N, C, H, W).
        draws: time steps and target views.
        conditions: of all views.
        masks: what is left out; None keeps everything.
        geometry: where the volumes are sampled.
        mark: see `Mark`; called in the backward pass too.

    Returns:
        what the UNet predicts, see `SyncDreamerConfig.prediction`, (B T, C, H, W).
    """
    views, count = draws.target_views, draws.target_views.shape[1]
    time = model.embed_time(draws.timesteps)
    volume = model.build_spatial_volume(noisy, time, conditions, geometry)
    frustums = model.spatial_volume.view_frustums(
        volume, time, of_views(conditions.viewpoints, views), geometry.rays_in_volume[views]
    )
    if torch.is_grad_enabled():
        # The gradient of the frustums is whole when that of the UNet is done.
        torch.autograd.graph.register_multi_grad_hook(frustums, lambda _: mark("unet"))
    mark("volume")

    context = rearrange(of_views(conditions.context, views), "b t c -> (b t) 1 c")
    seen = repeat(conditions.input_latents, "b c h w -> (b t) c h w", t=count)
    if masks is not None:  # Compat: after the projection, and zeros where something is left out

        def kept(dropped: Tensor, values: Tensor) -> Tensor:
            keep = (~dropped).to(values.dtype).repeat_interleave(count)
            return values * keep.reshape(-1, *(1 for _ in values.shape[1:]))

        context, seen = kept(masks.clip, context), kept(masks.concat, seen)
        frustums = [kept(masks.volume, frustum) for frustum in frustums]
    x = rearrange(of_views(noisy, views), "b t c h w -> (b t) c h w")
    noise = model.unet(
        torch.cat([x, seen], dim=1), draws.timesteps.repeat_interleave(count), context, frustums
    )
    mark("unet")
    return noise


def view_losses(
    model: SyncDreamer,
    encoded: Encoded,
    elevations: Tensor,
    draws: Draws,
    config: StepConfig,
    geometry: ViewGeometry,
    mark: Mark = lambda _: None,
) -> Tensor:
    """Mean squared error of what the UNet predicts of each target view; their mean is the loss.

    Args:
        model: whose networks are trained.
        encoded: of B objects.
        elevations: of the input views, radians, (B,).
        draws: of the B samples.
        config: whether conditions are left out.
        geometry: from `SyncDreamer.view_geometry`.
        mark: see `Mark`.

    Returns:
        float32, (B, T).
    """
    latents = encoded.targets.sample(draws.target_posterior) * model.config.autoencoder.scale
    noisy = add_noise(model, latents, draws.noise, draws.timesteps)
    noisy = torch.where(draws.pure[:, None, None, None, None], draws.noise, noisy)
    conditions = model.make_conditioning(encoded.input, elevations, draws.input_posterior)
    masks = drop_masks(draws.drop) if config.drop_conditions else None
    predicted = predict_views(model, noisy, draws, conditions, masks, geometry, mark)
    expected = draws.noise
    if model.config.prediction == "v":
        expected = velocity(model, latents, draws.noise, draws.timesteps)
    expected = rearrange(of_views(expected, draws.target_views), "b t c h w -> (b t) c h w")
    errors = (predicted.float() - expected).square().flatten(1).mean(dim=1)
    return rearrange(errors, "(b t) -> b t", b=len(latents))
