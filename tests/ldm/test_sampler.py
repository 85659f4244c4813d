from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from ldm.config import SamplerConfig
from ldm.sampler import NoisePredictor, ddim_update, sample_ddim
from ldm.schedule import DDIMStep, ScheduleConfig, ddim_steps, schedule_buffers

ALPHAS_CUMPROD = schedule_buffers(ScheduleConfig())["alphas_cumprod"]


def test_known_noise_gives_back_the_clean_latents():
    x_0, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    step = ddim_steps(ALPHAS_CUMPROD, 20, eta=0.0)[5]
    x_t = step.alpha_bar**0.5 * x_0 + (1 - step.alpha_bar) ** 0.5 * noise
    x_prev = ddim_update(x_t, noise, step, torch.zeros_like(x_t))
    expected = step.alpha_bar_prev**0.5 * x_0 + (1 - step.alpha_bar_prev) ** 0.5 * noise
    torch.testing.assert_close(x_prev, expected, rtol=1e-4, atol=1e-5)


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
        out = sample_ddim(predict, torch.randn_like(x_0), steps, lambda: torch.randn(4, 8, 8))
        residual = (1 - ALPHAS_CUMPROD[0]).sqrt()  # the process ends one step before t = 0
        assert (out - ALPHAS_CUMPROD[0].sqrt() * x_0).std() < 1.2 * residual


def test_noise_is_sampled_once_a_step_but_the_last():
    draw, steps = Mock(return_value=torch.zeros(1)), ddim_steps(ALPHAS_CUMPROD, 7, eta=1.0)
    seen = []
    sample_ddim(lambda x, t: seen.append(t) or x * 0, torch.zeros(1), steps, draw)
    assert draw.call_count == 6
    assert seen == [step.timestep for step in steps]


def test_the_callback_gets_every_prediction_and_changes_nothing():
    x_0, start, noises = torch.randn(4, 8, 8), torch.randn(4, 8, 8), torch.randn(9, 4, 8, 8)
    predict = exact_predictor(x_0)

    def sample(on_step=None) -> torch.Tensor:
        draws = iter(noises)
        steps = ddim_steps(ALPHAS_CUMPROD, 9, eta=1.0)
        return sample_ddim(predict, start, steps, lambda: next(draws), on_step)

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

    steps = ddim_steps(ALPHAS_CUMPROD, 7, eta=1.0)
    zero = torch.zeros(1)
    with pytest.raises(InterruptedError):
        sample_ddim(lambda x, t: asked.append(t) or x * 0, zero, steps, lambda: zero, on_step)
    assert len(asked) == 2


def test_the_noise_term_is_sigma_times_the_noise():
    x, e, z = torch.randn(3, 5).unbind(0)
    noisy, silent = (DDIMStep(9, 0.5, 0.6, sigma=0.3, add_noise=a) for a in (True, False))
    difference = ddim_update(x, e, noisy, z) - ddim_update(x, e, silent, z)
    torch.testing.assert_close(difference, 0.3 * z)


def test_the_direction_term_is_the_root_of_at_least_1e_minus_7():
    zero, one = torch.zeros(1), torch.ones(1)
    step = DDIMStep(9, 1.0, 1.0, sigma=0.0, add_noise=False)
    torch.testing.assert_close(ddim_update(zero, one, step, zero), torch.tensor([1e-7]).sqrt())


@pytest.mark.parametrize("setting", [{"steps": 0}, {"eta": -0.5}, {"eta": 1.5}, {"temperature": 2}])
def test_settings_out_of_range_are_refused(setting: dict):
    with pytest.raises(ValueError, match=r"at least 1|from 0 to 1"):
        SamplerConfig(**setting)
