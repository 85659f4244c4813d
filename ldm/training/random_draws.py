"""The random numbers of a training step: timesteps, target views, noise, dropped conditions.

They follow from the seed and the sample's number in the training, so they do not depend on resuming
nor on how the samples are distributed over processes and batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ldm.training.config import StepConfig

DROP_RATE = 0.05
"""Probability of each of the four kinds of dropout."""


@dataclass(frozen=True)
class TrainingNoise:
    """The random numbers of B samples."""

    timesteps: Tensor  # t of each object, the same for all its views, (B,)
    target_views: Tensor  # views whose noise is predicted, (B, T)
    epsilon: Tensor  # standard normal (times a temperature where it is pure), (B, N, C, H, W)
    target_posterior: Tensor  # for the latents of the targets, likewise
    input_posterior: Tensor  # for the latents of the input view, (B, C, H, W)
    dropout: Tensor  # uniform in [0, 1), float32, (B,); see `condition_dropout`
    pure: Tensor  # samples that are noise only, bool, (B,); see `StepConfig.pure_noise`

    def to(self, device: torch.device) -> TrainingNoise:
        """Copy to a device."""
        return TrainingNoise(**{name: value.to(device) for name, value in vars(self).items()})


def sample_training_noise(
    seed: int,
    numbers: range,
    latent_shape: tuple[int, int, int, int],
    num_timesteps: int,
    config: StepConfig,
) -> TrainingNoise:
    """Draw the random tensors of samples on the CPU; `latent_shape` is (N, C, H, W).

    The samples' `numbers` count over the whole training and all processes.
    """
    samples: dict[str, list[Tensor]] = {name: [] for name in TrainingNoise.__dataclass_fields__}
    for number in numbers:
        generator = np.random.Generator(np.random.PCG64([seed, number]))

        def normal(shape: tuple[int, ...], generator: np.random.Generator = generator) -> Tensor:
            return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))

        if config.timestep_power:
            t = int(num_timesteps * generator.random() ** (1 / (1 + config.timestep_power)))
        else:
            t = int(generator.integers(num_timesteps))
        temperature, pure = 1.0, False
        if config.pure_noise:
            temperature = generator.random() / config.pure_noise
            pure = temperature < 1
        if pure:
            t = num_timesteps - 1
        samples["timesteps"].append(torch.tensor(t))
        samples["pure"].append(torch.tensor(pure))
        views = generator.permutation(latent_shape[0])[: config.target_views]
        samples["target_views"].append(torch.from_numpy(views))
        samples["dropout"].append(torch.tensor(generator.random(dtype=np.float32)))
        samples["epsilon"].append(min(temperature, 1.0) * normal(latent_shape))
        samples["target_posterior"].append(normal(latent_shape))
        samples["input_posterior"].append(normal(latent_shape[1:]))
    return TrainingNoise(**{name: torch.stack(values) for name, values in samples.items()})


@dataclass(frozen=True)
class ConditionDropout:
    """Which objects of a batch drop which condition, bool, (B,) each."""

    clip: Tensor
    volume: Tensor
    concat: Tensor


def condition_dropout(uniform: Tensor) -> ConditionDropout:
    """Decide from one uniform number a sample what is dropped; each 5 % of the samples.

    In increasing order of the number: everything, the input latents, the volumes, the image
    token; the other samples keep all. Compared in float32, upper limits included.
    """
    everything = uniform <= DROP_RATE

    def part(number: int) -> Tensor:
        low, high = round(number * DROP_RATE, 2), round((number + 1) * DROP_RATE, 2)
        return (uniform > low) & (uniform <= high)

    return ConditionDropout(
        clip=everything | part(3), volume=everything | part(2), concat=everything | part(1)
    )
