"""The random numbers of a training step and which conditions they drop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldm.training.config import StepConfig
from ldm.training.random_draws import condition_dropout, sample_training_noise
from tests.conftest import SHARED, needs_shared


def golden(name: str) -> np.ndarray:
    return np.load(SHARED / "goldens" / "training.npz")[name]


@needs_shared
def test_conditions_are_dropped_as_published():
    masks = condition_dropout(torch.from_numpy(golden("drop_random")))
    clip, volume, concat, everything = golden("drop_clip_volume_concat_all")
    np.testing.assert_array_equal(masks.clip.numpy(), clip | everything)
    np.testing.assert_array_equal(masks.volume.numpy(), volume | everything)
    np.testing.assert_array_equal(masks.concat.numpy(), concat | everything)


def test_each_way_to_drop_conditions_takes_a_twentieth_of_the_samples():
    drop = (torch.arange(20_000, dtype=torch.float32) + 0.5) / 20_000
    masks = condition_dropout(drop)
    for mask in (masks.clip, masks.volume, masks.concat):
        assert mask.float().mean().item() == pytest.approx(0.1)
    assert (masks.clip & masks.volume & masks.concat).float().mean().item() == pytest.approx(0.05)
    kept = ~(masks.clip | masks.volume | masks.concat)
    assert kept.float().mean().item() == pytest.approx(0.8)


def test_draws_follow_from_the_number_of_the_sample_alone():
    shape = (16, 4, 8, 8)
    together = sample_training_noise(3, range(10, 14), shape, 1000, StepConfig(2))
    apart = [
        sample_training_noise(3, range(n, n + 1), shape, 1000, StepConfig(2)) for n in range(10, 14)
    ]
    for name, value in vars(together).items():
        torch.testing.assert_close(
            value, torch.cat([getattr(draw, name) for draw in apart]), rtol=0, atol=0
        )
    other = sample_training_noise(4, range(10, 14), shape, 1000, StepConfig(2))
    assert not torch.equal(together.epsilon, other.epsilon)


def test_draws_are_spread_as_they_should_be():
    draws = sample_training_noise(0, range(4000), (16, 1, 1, 1), 1000, StepConfig(3))
    assert draws.timesteps.min() >= 0
    assert draws.timesteps.max() <= 999
    assert draws.timesteps.float().mean().item() == pytest.approx(499.5, abs=20)
    assert all(len(set(views)) == 3 for views in draws.target_views.tolist())
    counts = torch.bincount(draws.target_views.flatten(), minlength=16)
    assert counts.float().std() / counts.float().mean() < 0.06
    assert draws.epsilon.std().item() == pytest.approx(1.0, abs=0.02)
    assert draws.dropout.mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_density_of_the_time_steps_is_a_power_of_them(power: float):
    config = StepConfig(timestep_power=power)
    t = sample_training_noise(0, range(4000), (16, 1, 1, 1), 1000, config).timesteps.double()
    assert 0 <= t.min() <= t.max() <= 999
    for part in (0.25, 0.5, 0.75):
        share = (t < 1000 * part).double().mean().item()
        assert share == pytest.approx(part ** (1 + power), abs=0.03)


def test_a_share_of_the_samples_is_pure_noise_of_any_temperature():
    shape = (16, 4, 4, 4)
    draws = sample_training_noise(0, range(2000), shape, 1000, StepConfig(pure_noise=0.4))
    assert draws.pure.double().mean().item() == pytest.approx(0.4, abs=0.03)
    assert (draws.timesteps[draws.pure] == 999).all()
    assert draws.timesteps[~draws.pure].double().mean().item() == pytest.approx(499.5, abs=30)
    size = draws.epsilon.flatten(1).std(dim=1)
    assert (size[~draws.pure] - 1).abs().max() < 0.1
    for part in (0.25, 0.5, 0.75):
        share = (size[draws.pure] < part).double().mean().item()
        assert share == pytest.approx(part, abs=0.06)
    assert not sample_training_noise(0, range(50), shape, 1000, StepConfig()).pure.any()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_an_impossible_share_of_pure_noise_is_refused(share: float):
    with pytest.raises(ValueError, match=f"pure_noise must be from 0 to 1, got {share}"):
        StepConfig(pure_noise=share)


def test_an_impossible_density_of_the_time_steps_is_refused():
    with pytest.raises(ValueError, match="timestep_power must not be below 0, got -1"):
        StepConfig(timestep_power=-1.0)
