"""Solvers of the reverse process: each takes one step, given the network's prediction.

DDIM (2010.02502); DPM-Solver++(2M) and its stochastic form (2211.01095); UniPC (2302.04867). The
last three see the process as one in  lambda = log(alpha / sigma),  alpha = sqrt(alpha_bar),
sigma = sqrt(1 - alpha_bar), and predict the clean latents. They are of order 2: they need the
prediction of the step before, which is in an explicit `History`. Below, a step leads from x_t at
lambda_t to x at lambda = lambda_t + h, and ' marks the step before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ldm.sampling.config import Solver
from ldm.schedule import DDIMStep

FEW_STEPS = 15
"""With fewer, the last step of DPM-Solver++ is of order 1, as in the authors' code: more stable."""


@dataclass(frozen=True)
class NoiseLevel:
    """A noise level of the process x = alpha x_0 + sigma noise."""

    alpha_bar: float

    @property
    def alpha(self) -> float:
        """Factor of the clean latents."""
        return math.sqrt(self.alpha_bar)

    @property
    def sigma(self) -> float:
        """Factor of the noise."""
        return math.sqrt(1 - self.alpha_bar)

    @property
    def half_log_snr(self) -> float:
        """Lambda, half the logarithm of the signal-to-noise ratio."""
        return math.log(self.alpha / self.sigma)


@dataclass(frozen=True)
class Prediction:
    """Clean latents predicted at a noise level."""

    level: NoiseLevel
    x_0: Tensor


@dataclass(frozen=True)
class History:
    """What the solvers of order 2 keep between steps.

    Attributes:
        steps: number of steps done.
        latents: x_t of the last step.
        predictions: the last one or two, the latest first.
    """

    steps: int
    latents: Tensor
    predictions: tuple[Prediction, ...]


Update = Callable[[Tensor, Tensor, DDIMStep, Tensor, History | None], tuple[Tensor, History | None]]
"""(x_t, noise prediction, step, standard normal noise, history; None: the first step) -> the
latents of the next step and the history for it; latents, prediction and noise have one shape."""


def predicted_x_0(x_t: Tensor, noise_prediction: Tensor, alpha_bar: Tensor) -> Tensor:
    """Clean latents implied by a noise prediction (DDIM, Eq. 9). Compat: not clipped."""
    return (x_t - (1 - alpha_bar).sqrt() * noise_prediction) / alpha_bar.sqrt()


def ddim_update(x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, noise: Tensor) -> Tensor:
    """Take one reverse step (DDIM, Eq. 12) from latents x_t of any shape; the others have it too.

    `noise` is standard normal (times the temperature), not used where `step.add_noise` is false.
    Compat: the radicand of the direction term is clamped to at least 1e-7.
    """
    alpha_bar, alpha_bar_prev, sigma = torch.tensor(
        [step.alpha_bar, step.alpha_bar_prev, step.sigma], dtype=x_t.dtype, device=x_t.device
    )
    x_0 = predicted_x_0(x_t, noise_prediction, alpha_bar)
    direction = (1 - alpha_bar_prev - sigma**2).clamp_min(1e-7).sqrt()
    x_prev = alpha_bar_prev.sqrt() * x_0 + direction * noise_prediction
    return x_prev + sigma * noise if step.add_noise else x_prev


def _ddim(
    x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, noise: Tensor, _: History | None
) -> tuple[Tensor, None]:
    return ddim_update(x_t, noise_prediction, step, noise), None


def dpm_solver_update(
    x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, _: Tensor, history: History | None
) -> tuple[Tensor, History]:
    """Take one step of DPM-Solver++(2M) (2211.01095, Algorithm 2), without noise.

    x = sigma / sigma_t x_t + alpha (1 - e^-h) D,   D = x_0 + h / (2 h') (x_0 - x_0')

    The first step has D = x_0, which makes it DDIM's with eta 0.
    """
    history = _remember(x_t, noise_prediction, step, history)
    return _predicted(x_t, step, history, few=FEW_STEPS), history


def sde_dpm_solver_update(
    x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, noise: Tensor, history: History | None
) -> tuple[Tensor, History]:
    """Take one step of SDE-DPM-Solver++(2M) (2211.01095); the first is DDIM's with eta 1.

    x = sigma / sigma_t e^-h x_t + alpha (1 - e^-2h) D + sigma sqrt(1 - e^-2h) z,

    with D as in `dpm_solver_update`, and no z where `step.add_noise` is false.
    """
    history = _remember(x_t, noise_prediction, step, history)
    now, end, h = _levels(step)
    gain = -math.expm1(-2 * h)
    extrapolated = _extrapolated(step, history, few=FEW_STEPS)
    x = end.sigma / now.sigma * math.exp(-h) * x_t + end.alpha * gain * extrapolated
    return x + end.sigma * math.sqrt(gain) * noise if step.add_noise else x, history


def unipc_update(
    x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, _: Tensor, history: History | None
) -> tuple[Tensor, History]:
    """Take one step of UniPC-2 (2302.04867, Algorithms 1 and 2), without noise.

    UniC corrects x_t by the prediction at x_t, which costs no evaluation; UniP steps on from there.
    With B(h) = e^h - 1 ("bh2") UniP-2 is the formula of DPM-Solver++(2M). The last step is of
    order 1.
    """
    before = history
    history = _remember(x_t, noise_prediction, step, history)
    if before is not None:
        x_t = _corrected(before, history.predictions[0])
        history = replace(history, latents=x_t)
    return _predicted(x_t, step, history), history


def _corrected(before: History, now: Prediction) -> Tensor:
    """Latents at the level of `now`, from those of the step before (UniC, Algorithm 1).

    x_t = sigma_t / sigma' x' + alpha_t (1 - e^-h') (x_0' + sum over m of rho_m D_m), the weights
    from  rho_1 + rho_2 = b_1,  r rho_1 + rho_2 = b_2  (Theorem 3.1), or 1/2 of the only D_m.
    """
    last = before.predictions[0]
    h = now.level.half_log_snr - last.level.half_log_snr
    phi_1 = math.expm1(-h)
    difference = now.x_0 - last.x_0
    if len(before.predictions) == 1:
        correction = 0.5 * difference
    else:
        r = (before.predictions[1].level.half_log_snr - last.level.half_log_snr) / h
        phi_2 = phi_1 / -h - 1
        b_1, b_2 = phi_2 / phi_1, 2 * (phi_2 / -h - 0.5) / phi_1
        rho_1 = (b_1 - b_2) / (1 - r)
        correction = rho_1 * h * _slope(before) + (b_1 - rho_1) * difference
    decay = now.level.sigma / last.level.sigma
    return decay * before.latents - now.level.alpha * phi_1 * (last.x_0 + correction)


def _remember(
    x_t: Tensor, noise_prediction: Tensor, step: DDIMStep, history: History | None
) -> History:
    """The history with this step's prediction of the clean latents."""
    level = NoiseLevel(step.alpha_bar)
    now = Prediction(level, (x_t - level.sigma * noise_prediction) / level.alpha)
    if history is None:
        return History(1, x_t, (now,))
    return History(history.steps + 1, x_t, (now, history.predictions[0]))


def _levels(step: DDIMStep) -> tuple[NoiseLevel, NoiseLevel, float]:
    """Noise levels of x_t and of the result, and h."""
    now, end = NoiseLevel(step.alpha_bar), NoiseLevel(step.alpha_bar_prev)
    return now, end, end.half_log_snr - now.half_log_snr


def _predicted(x_t: Tensor, step: DDIMStep, history: History, few: float = math.inf) -> Tensor:
    """The step of DPM-Solver++(2M) and of UniP-2."""
    now, end, h = _levels(step)
    extrapolated = _extrapolated(step, history, few)
    return end.sigma / now.sigma * x_t - end.alpha * math.expm1(-h) * extrapolated


def _extrapolated(step: DDIMStep, history: History, few: float) -> Tensor:
    """D: the clean latents predicted for the middle of the step.

    Of order 1, that is not extrapolated, in the first step, and in the last of fewer than `few`.
    """
    x_0 = history.predictions[0].x_0
    last_of_few = not step.add_noise and history.steps < few
    if len(history.predictions) == 1 or last_of_few:
        return x_0
    return x_0 + 0.5 * _levels(step)[2] * _slope(history)


def _slope(history: History) -> Tensor:
    """Change of the predicted clean latents with lambda."""
    now, before = history.predictions
    return (now.x_0 - before.x_0) / (now.level.half_log_snr - before.level.half_log_snr)


SOLVERS: dict[Solver, Update] = {
    "ddim": _ddim,
    "dpm++": dpm_solver_update,
    "dpm++sde": sde_dpm_solver_update,
    "unipc": unipc_update,
}
"""By their names in `SamplerConfig`."""
