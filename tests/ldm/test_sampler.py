from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from ldm.config import SamplerConfig
from ldm.sampling.guidance import NoisePredictor
from ldm.sampling.sampler import solve
from ldm.sampling.solvers import ddim_update
from ldm.schedule import (
    DDIMStep,
    ScheduleConfig,
    ddim_steps,
    ddim_timesteps,
    log_snr_timesteps,
    schedule_buffers,
)

ALPHAS_CUMPROD = schedule_buffers(ScheduleConfig())["alphas_cumprod"]


def exact_predictor(x_0: torch.Tensor) -> NoisePredictor:
    """For data that is a single point, the noise in x_t is known."""

    def predict(x_t: torch.Tensor, t: int) -> torch.Tensor:
        alpha_bar = ALPHAS_CUMPROD[t]
        return (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()

    return predict


def test_one_clean_image_is_recovered_from_pure_noise_by_its_exact_predictor():
    x_0 = torch.randn(4, 8, 8)
    predict = exact_predictor(x_0)
    for eta in (0.0, 1.0):
        steps = ddim_steps(ALPHAS_CUMPROD, 50, eta)
        out = solve(predict, torch.randn_like(x_0), steps, lambda: torch.randn(4, 8, 8))
        residual = (1 - ALPHAS_CUMPROD[0]).sqrt()  # the process ends one step before t = 0
        assert (out - ALPHAS_CUMPROD[0].sqrt() * x_0).std() < 1.2 * residual


def test_the_callback_gets_every_prediction_and_changes_nothing():
    x_0, start, noises = torch.randn(4, 8, 8), torch.randn(4, 8, 8), torch.randn(9, 4, 8, 8)
    predict = exact_predictor(x_0)

    def sample(on_step=None) -> torch.Tensor:
        draws = iter(noises)
        steps = ddim_steps(ALPHAS_CUMPROD, 9, eta=1.0)
        return solve(predict, start, steps, lambda: next(draws), on_step)

    seen = []
    assert torch.equal(sample(lambda number, found: seen.append((number, found))), sample())
    assert [number for number, _ in seen] == list(range(1, 10))
    for _, found in seen:
        torch.testing.assert_close(found, x_0, rtol=1e-3, atol=1e-3)


def test_an_exception_in_the_callback_ends_the_sampling():
    asked = []

    def on_step(number: int, found: torch.Tensor) -> None:
        if number == 2:
            raise InterruptedError

    steps, zero = ddim_steps(ALPHAS_CUMPROD, 7, eta=1.0), torch.zeros(1)
    with pytest.raises(InterruptedError):
        solve(lambda x, t: asked.append(t) or x * 0, zero, steps, lambda: zero, on_step)
    assert len(asked) == 2


def test_the_direction_term_is_the_root_of_at_least_1e_minus_7():
    zero, one = torch.zeros(1), torch.ones(1)
    step = DDIMStep(9, 1.0, 1.0, sigma=0.0, add_noise=False)
    torch.testing.assert_close(ddim_update(zero, one, step, zero), torch.tensor([1e-7]).sqrt())


@pytest.mark.parametrize("setting", [{"steps": 0}, {"eta": -0.5}, {"eta": 1.5}, {"temperature": 2}])
def test_settings_out_of_range_are_refused(setting: dict):
    with pytest.raises(ValueError, match=r"at least 1|from 0 to 1"):
        SamplerConfig(**setting)


@pytest.mark.integration
@pytest.mark.parametrize("spacing", ["leading", "trailing", "log_snr"])
def test_any_number_of_steps_gives_exactly_that_many_distinct_ones_in_the_schedule(spacing):
    for steps in range(1, 1001):
        if spacing == "log_snr":
            timesteps = log_snr_timesteps(steps, ALPHAS_CUMPROD)
        else:
            timesteps = ddim_timesteps(steps, spacing=spacing)
        assert len(set(timesteps)) == steps
        assert timesteps == sorted(timesteps)
        assert timesteps[0] >= 0
        assert timesteps[-1] <= 999 if spacing == "leading" else timesteps[-1] == 999


def test_where_the_published_rule_gives_the_asked_number_ours_are_the_same():
    exact = []
    for steps in range(1, 1001):
        published = [t + 1 for t in range(0, 1000, 1000 // steps)]
        if len(published) == steps and published[-1] < 1000:
            assert ddim_timesteps(steps) == published
            exact.append(steps)
    assert exact == [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500]


def test_trailing_steps_begin_in_noise():
    table = ddim_steps(ALPHAS_CUMPROD, 4, eta=0.0, spacing="trailing")
    assert [step.timestep for step in table] == [999, 749, 499, 249]
    assert table[-1].alpha_bar_prev == float(ALPHAS_CUMPROD[0])


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int):
    with pytest.raises(ValueError, match=f"got {steps}"):
        ddim_timesteps(steps)


def test_the_reverse_process_ends_at_the_first_entry_of_the_schedule_without_noise():
    for count in (1, 3, 7, 1000):
        steps = ddim_steps(ALPHAS_CUMPROD, count, eta=1.0)
        assert len(steps) == count
        assert steps[-1].alpha_bar_prev == float(ALPHAS_CUMPROD[0])
        assert [step.add_noise for step in steps] == [True] * (count - 1) + [False]
        assert all(step.sigma >= 0 for step in steps)
        for step, following in pairwise(steps):
            assert step.alpha_bar_prev == following.alpha_bar
    assert all(step.sigma == 0 for step in ddim_steps(ALPHAS_CUMPROD, 9, eta=0.0))
