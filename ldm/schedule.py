"""The noise schedule, DDIM's timesteps, and the embedding of a timestep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.config import check_positive

Spacing = Literal["leading", "trailing", "log_snr"]


@dataclass(frozen=True)
class ScheduleConfig:
    """Forward process: scaled-linear beta schedule (Stable Diffusion's schedule)."""

    timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.0120

    def __post_init__(self) -> None:
        check_positive(self)


@dataclass(frozen=True)
class DDIMStep:
    """One reverse step from timestep `timestep` to the one before it (DDIM, Eq. 12)."""

    timestep: int  # t given to the networks
    alpha_bar: float  # cumulative product of alphas at t
    alpha_bar_prev: float  # the same at the timestep that the result belongs to
    sigma: float  # standard deviation of the noise that is added
    add_noise: bool  # false for the last step


def schedule_buffers(config: ScheduleConfig) -> dict[str, Tensor]:
    """Compute the seven schedule tensors that a checkpoint holds, float32, (timesteps,).

    Compat: float32 throughout, and the logarithm of the posterior variance is cut at -10.
    """
    ends = math.sqrt(config.beta_start), math.sqrt(config.beta_end)
    betas = torch.linspace(*ends, config.timesteps) ** 2
    alphas = 1.0 - betas
    alphas_cumprod = alphas.cumprod(dim=0)
    previous = torch.cat([torch.ones_like(alphas[:1]), alphas_cumprod[:-1]])
    posterior_variance = betas * (1.0 - previous) / (1.0 - alphas_cumprod)
    return {
        "betas": betas,
        "alphas": alphas,
        "alphas_cumprod": alphas_cumprod,
        "sqrt_alphas_cumprod": alphas_cumprod.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1.0 - alphas_cumprod).sqrt(),
        "posterior_variance": posterior_variance,
        "posterior_log_variance_clipped": posterior_variance.clamp_min(1e-20).log().clamp_min(-10),
    }


def ddim_timesteps(steps: int, timesteps: int = 1000, spacing: Spacing = "leading") -> list[int]:
    """Spread exactly `steps` timesteps evenly over the schedule, in increasing order.

    "leading" ones begin at the clean end. Compat: the first is 1, not 0, and for every divisor of
    `timesteps` but itself these are the published `range(0, T, T // S) + 1`. With all T steps
    they are 0 .. T-1. "trailing" ones end at T - 1, at almost pure noise, so that the process
    starts from the noise level of its first timestep (Lin et al. 2024, Sec. 3.3).
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"the number of sampling steps must be 1 .. {timesteps}, got {steps}")
    if spacing == "trailing":
        return [(i + 1) * timesteps // steps - 1 for i in range(steps)]
    offset = 1 if steps < timesteps else 0
    return [i * timesteps // steps + offset for i in range(steps)]


def log_snr_timesteps(steps: int, alphas_cumprod: Tensor) -> list[int]:
    """Spread exactly `steps` timesteps evenly in log-SNR, in increasing order, the last is T - 1.

    The solvers of order 2 are made for such steps (DPM-Solver, 2206.00927, Sec. 3.4). Where the
    schedule has too few timesteps, at the clean end, all are taken.
    """
    ddim_timesteps(steps, len(alphas_cumprod))  # checks the number
    log_snr = torch.logit(alphas_cumprod.double())
    wanted = torch.linspace(float(log_snr[0]), float(log_snr[-1]), steps + 1)[1:]
    nearest = (log_snr[:, None] - wanted).abs().argmin(dim=0).tolist()
    timesteps: list[int] = []
    for i, timestep in enumerate(nearest):
        following = timesteps[-1] + 1 if timesteps else 0
        timesteps.append(min(max(timestep, following), len(alphas_cumprod) - steps + i))
    return timesteps


def ddim_steps(
    alphas_cumprod: Tensor, steps: int, eta: float, spacing: Spacing = "leading"
) -> list[DDIMStep]:
    """Tabulate the reverse process (DDIM, Eq. 12 and 16).

    From the schedule in use, float32, (T,), to steps in the order of execution (decreasing time).
    With `eta` 0 the process is deterministic, with 1 as random as the ancestral sampler.
    Compat: the step that ends the process goes to `alphas_cumprod[0]`, not to 1, adds no noise,
    and still subtracts sigma^2 in its direction term. `1 - alpha_bar_prev` is rounded to float32.
    """
    schedule = alphas_cumprod.detach().cpu()
    if spacing == "log_snr":
        timesteps = log_snr_timesteps(steps, schedule)
    else:
        timesteps = ddim_timesteps(steps, len(schedule), spacing)
    alpha_bar = schedule[timesteps]
    alpha_bar_prev = torch.cat([schedule[:1], alpha_bar[:-1]])
    wide = alpha_bar.double()
    variance = (1 - alpha_bar_prev) / (1 - wide) * (1 - wide / alpha_bar_prev)
    sigma = (eta * variance.sqrt()).float()
    columns = zip(timesteps, *(v.tolist() for v in (alpha_bar, alpha_bar_prev, sigma)), strict=True)
    return [DDIMStep(t, a, b, c, i > 0) for i, (t, a, b, c) in enumerate(columns)][::-1]


def timestep_embedding(timesteps: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal embedding: (B,) of any real type -> `dim / 2` cosines, then sines, (B, dim).

    Compat: the frequencies and the angles are rounded to float32.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(max_period) * index / half)
    angles = timesteps[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
