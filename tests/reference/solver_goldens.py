"""Write trajectories of diffusers' solvers, which ours are compared with: tests/data/solvers.npz.

diffusers is needed for this only. Run from the project's root, where it is installed:

    python -m tests.reference.solver_goldens
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldm.schedule import ScheduleConfig, ddim_timesteps, schedule_buffers
from tests.reference.seeded_weights import seeded_noise

PATH = Path(__file__).parents[1] / "data" / "solvers.npz"
STEPS = (5, 10, 20, 50)
SHAPE = (4, 6)
"""Latents of different sizes, see `start`."""
SOLVERS = ("dpm++", "dpm++sde", "unipc", "ddim")


def start() -> torch.Tensor:
    """Initial latents: numbers from 0.02 to 3."""
    return torch.linspace(0.02, 3.0, SHAPE[0] * SHAPE[1]).reshape(SHAPE)


def output(x: torch.Tensor, timestep: int) -> torch.Tensor:
    """The closed-form model: what a network would say, noise or v."""
    return x * timestep / (timestep + 1)


def step_noise(steps: int) -> torch.Tensor:
    """Standard normal noise of each step, zero in the last."""
    noise = torch.from_numpy(seeded_noise(f"solver-{steps}", (steps, *SHAPE)))
    noise[-1] = 0
    return noise


def cases() -> list[tuple[str, str, str, int]]:
    """All combinations of solver, what is predicted, spacing of the timesteps, and steps."""
    return list(product(SOLVERS, ("noise", "v"), ("leading", "trailing"), STEPS))


def make_scheduler(solver: str, prediction: str) -> Any:
    """A solver of diffusers for our schedule, ending at its first noise level."""
    import diffusers

    schedule = ScheduleConfig()
    common: dict[str, Any] = {
        "num_train_timesteps": schedule.timesteps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon" if prediction == "noise" else "v_prediction",
    }
    if solver == "ddim":
        return diffusers.DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=False)
    common["final_sigmas_type"] = "sigma_min"
    if solver == "unipc":
        return diffusers.UniPCMultistepScheduler(**common, solver_order=2, solver_type="bh2")
    kind = "sde-dpmsolver++" if solver == "dpm++sde" else "dpmsolver++"
    return diffusers.DPMSolverMultistepScheduler(**common, algorithm_type=kind, solver_order=2)


def use_timesteps(scheduler: Any, timesteps: list[int]) -> None:
    """Let a scheduler take exactly these timesteps, in decreasing order."""
    scheduler.set_timesteps(len(timesteps))
    scheduler.timesteps = torch.tensor(timesteps)
    alpha_bar = scheduler.alphas_cumprod
    sigmas = ((1 - alpha_bar) / alpha_bar).sqrt()
    scheduler.sigmas = torch.cat([sigmas[timesteps], sigmas[:1]])


def ddim_trajectory(scheduler: Any, timesteps: list[int], x: torch.Tensor) -> list[torch.Tensor]:
    """DDIM with eta 0; its scheduler knows no uneven timesteps, so each step is one of its own."""
    path = []
    for timestep, following in zip(timesteps, [*timesteps[1:], 0], strict=True):
        scheduler.num_inference_steps = 1
        scheduler.register_to_config(num_train_timesteps=max(timestep - following, 1))
        x = scheduler.step(output(x, timestep), timestep, x, eta=0.0).prev_sample
        path.append(x)
    return path


def trajectory(solver: str, prediction: str, timesteps: list[int]) -> list[torch.Tensor]:
    """Latents after every step."""
    scheduler, x, path = make_scheduler(solver, prediction), start(), []
    if solver == "ddim":
        return ddim_trajectory(scheduler, timesteps, x)
    use_timesteps(scheduler, timesteps)
    more: Callable[[int], dict[str, Any]] = lambda _: {}  # noqa: E731
    if solver == "dpm++sde":
        noise = step_noise(len(timesteps))
        more = lambda number: {"variance_noise": noise[number]}  # noqa: E731
    for number, timestep in enumerate(scheduler.timesteps):
        out = scheduler.step(output(x, int(timestep)), timestep, x, **more(number))
        x = out.prev_sample
        path.append(x)
    return path


def main() -> None:
    """Write the file."""
    goldens = {}
    for solver, prediction, spacing, steps in cases():
        timesteps = ddim_timesteps(steps, spacing=spacing)[::-1]  # type: ignore[arg-type]
        path = torch.stack(trajectory(solver, prediction, timesteps)).numpy()
        goldens[f"{solver} {prediction} {spacing} {steps}"] = path
    ours = schedule_buffers(ScheduleConfig())["alphas_cumprod"]
    theirs = make_scheduler("unipc", "noise").alphas_cumprod
    torch.testing.assert_close(theirs, ours)
    np.savez_compressed(PATH, **goldens)


if __name__ == "__main__":
    main()
