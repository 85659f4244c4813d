from __future__ import annotations

from itertools import pairwise

import pytest

from ldm.schedule import ScheduleConfig, ddim_steps, ddim_timesteps, schedule_buffers


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_any_number_of_steps_gives_exactly_that_many_distinct_ones_in_the_schedule(spacing):
    for steps in range(1, 1001):
        timesteps = ddim_timesteps(steps, spacing=spacing)
        assert len(set(timesteps)) == steps
        assert timesteps == sorted(timesteps)
        assert timesteps[0] >= 0
        assert timesteps[-1] == 999 if spacing == "trailing" else timesteps[-1] <= 999


def test_where_the_published_rule_gives_the_asked_number_ours_are_the_same():
    exact = []
    for steps in range(1, 1001):
        published = [t + 1 for t in range(0, 1000, 1000 // steps)]
        if len(published) == steps and published[-1] < 1000:
            assert ddim_timesteps(steps) == published
            exact.append(steps)
    assert exact == [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500]


def test_trailing_steps_begin_in_noise_and_are_as_many():
    assert ddim_timesteps(4, spacing="trailing") == [249, 499, 749, 999]
    alphas_cumprod = schedule_buffers(ScheduleConfig())["alphas_cumprod"]
    table = ddim_steps(alphas_cumprod, 4, eta=0.0, spacing="trailing")
    assert [step.timestep for step in table] == [999, 749, 499, 249]
    assert table[-1].alpha_bar_prev == float(alphas_cumprod[0])


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int):
    with pytest.raises(ValueError, match=f"got {steps}"):
        ddim_timesteps(steps)


def test_the_reverse_process_ends_at_the_first_entry_of_the_schedule_without_noise():
    alphas_cumprod = schedule_buffers(ScheduleConfig())["alphas_cumprod"]
    for count in (1, 3, 7, 1000):
        steps = ddim_steps(alphas_cumprod, count, eta=1.0)
        assert len(steps) == count
        assert steps[-1].alpha_bar_prev == float(alphas_cumprod[0])
        assert [step.add_noise for step in steps] == [True] * (count - 1) + [False]
        assert all(step.sigma >= 0 for step in steps)
        for step, following in pairwise(steps):
            assert step.alpha_bar_prev == following.alpha_bar
    assert all(step.sigma == 0 for step in ddim_steps(alphas_cumprod, 9, eta=0.0))
