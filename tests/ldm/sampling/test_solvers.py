"""The solvers, on models of closed form: whole trajectories of diffusers, and known solutions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from demo.model import v_to_noise
from ldm.config import SamplerConfig
from ldm.sampling.sampler import solve
from ldm.sampling.solvers import SOLVERS
from ldm.schedule import DDIMStep, ScheduleConfig, ddim_steps, schedule_buffers
from tests.reference import solver_goldens as reference

ALPHAS_CUMPROD = schedule_buffers(ScheduleConfig())["alphas_cumprod"]
GOLDENS = np.load(reference.PATH)


def predictor(prediction: str, alphas_cumprod: torch.Tensor = ALPHAS_CUMPROD):
    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        out = reference.output(x, timestep)
        return out if prediction == "noise" else v_to_noise(out, x, alphas_cumprod[timestep])

    return predict


@pytest.mark.parametrize(("solver", "prediction", "spacing", "steps"), reference.cases())
def test_whole_trajectories_are_those_of_diffusers(solver, prediction, spacing, steps):
    noise = iter(reference.step_noise(steps))
    x, history = reference.start(), None
    predict = predictor(prediction)
    golden = GOLDENS[f"{solver} {prediction} {spacing} {steps}"]
    for step, expected in zip(ddim_steps(ALPHAS_CUMPROD, steps, 0.0, spacing), golden, strict=True):
        x, history = SOLVERS[solver](x, predict(x, step.timestep), step, next(noise), history)
        np.testing.assert_allclose(x.numpy(), expected, rtol=1e-5, atol=1e-5)


KNOWN = [
    ("dpm++", "noise", 0.33014698), ("dpm++", "v", 0.22509935), ("unipc", "noise", 0.2464),
]  # fmt: skip
"""Of diffusers' own tests: mean |x| after 10 steps of the linear schedule."""


@pytest.mark.parametrize(("solver", "prediction", "mean"), KNOWN)
def test_the_known_values_of_the_linear_schedule(solver: str, prediction: str, mean: float):
    alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
    timesteps = np.linspace(0, 999, 11).round().astype(int)[:0:-1].tolist()
    levels = alphas_cumprod[[*timesteps, 0]].tolist()
    lower_order_at_the_end = solver == "unipc"  # that test of diffusers switches it off for DPM
    steps = [
        DDIMStep(t, now, then, 0.0, t != timesteps[-1] or not lower_order_at_the_end)
        for t, (now, then) in zip(timesteps, itertools.pairwise(levels), strict=True)
    ]
    start = (torch.arange(768) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
    predict = predictor(prediction, alphas_cumprod)
    x = solve(predict, start, steps, lambda: torch.zeros_like(start), solver=solver)
    assert x.abs().mean().item() == pytest.approx(mean, abs=1e-4 if mean == 0.2464 else 1e-5)


def gaussian_data(mean: float, deviation: float):
    """The exact predictor of normally distributed data, and where its ODE leads from noise z."""

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        a = ALPHAS_CUMPROD[timestep].double()
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * deviation**2 + 1 - a)

    def lead(x: torch.Tensor, first: float, last: float) -> torch.Tensor:
        spread = [math.sqrt(a * deviation**2 + 1 - a) for a in (first, last)]
        return math.sqrt(last) * mean + spread[1] / spread[0] * (x - math.sqrt(first) * mean)

    return predict, lead


def error(solver: str, steps: int, deviation: float, spacing: str = "log_snr") -> float:
    predict, lead = gaussian_data(1.5, deviation)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    table = ddim_steps(ALPHAS_CUMPROD, steps, 0.0, spacing)
    x = solve(predict, start, table, lambda: torch.zeros_like(start), solver=solver)
    exact = lead(start, table[0].alpha_bar, table[-1].alpha_bar_prev)
    return float((x - exact).square().mean().sqrt())


@pytest.mark.parametrize("deviation", [0.05, 0.2, 0.5, 0.8])
def test_20_steps_of_order_2_come_closer_to_the_solution_than_50_of_ddim(deviation: float):
    ddim = error("ddim", 50, deviation, "trailing")
    for solver in ("dpm++", "unipc"):
        assert error(solver, 20, deviation) < ddim / 3
        assert error(solver, 200, deviation) < error(solver, 20, deviation)
        assert error(solver, 20, deviation) < error("ddim", 50, deviation, "log_snr") / 2


def test_the_first_step_is_that_of_ddim():
    x, e, z = torch.randn(3, 4, 8, 8).unbind(0)
    for solver, eta in (("dpm++", 0.0), ("unipc", 0.0), ("dpm++sde", 1.0)):
        step = ddim_steps(ALPHAS_CUMPROD, 20, eta)[3]
        expected, _ = SOLVERS["ddim"](x, e, step, z, None)
        found, _ = SOLVERS[solver](x, e, step, z, None)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_stochastic_solver_keeps_the_spread_of_the_data_better_than_ddim():
    predict, _ = gaussian_data(1.5, 0.5)
    start = torch.randn(20000, dtype=torch.float64)
    table = ddim_steps(ALPHAS_CUMPROD, 20, 1.0, "log_snr")
    off = {}
    for solver in ("ddim", "dpm++sde"):
        x = solve(predict, start, table, lambda: torch.randn_like(start), solver=solver)
        assert x.mean().item() == pytest.approx(1.5, abs=0.03)
        off[solver] = abs(x.std().item() - 0.5)
    assert off["dpm++sde"] < 0.03
    assert off["dpm++sde"] < off["ddim"] / 2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [2, 3, 1000])
def test_any_number_of_steps_gives_finite_latents(solver: str, steps: int):
    table = ddim_steps(ALPHAS_CUMPROD, steps, 1.0)  # with 1000, the last step has no width
    start = torch.randn(5)
    x = solve(predictor("noise"), start, table, lambda: torch.randn(5), solver=solver)
    assert x.isfinite().all()


@pytest.mark.parametrize("solver", ["dpm++", "dpm++sde", "unipc"])
def test_one_step_is_below_the_order_of_a_solver(solver: str):
    with pytest.raises(ValueError, match="order 2 and needs at least 2 steps, got 1"):
        SamplerConfig(steps=1, solver=solver)
