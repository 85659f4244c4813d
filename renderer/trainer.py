"""The loop that trains any `Method`: steps, progress, pictures, and how it is stopped."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from common.signals import StopFlag
from renderer.methods.base import Method, StepResult

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often the numbers of the last steps are looked at, which waits for the GPU."""
LOG_LINES = 10
"""Of a whole run whose output is not a terminal."""
Report = Callable[[int, int], None]
"""(steps done, of how many) -> nothing; what it raises ends the work, and nothing is saved."""
LOG_SECONDS = 60.0
"""Where steps are slow a line comes at least so often."""


class TrainableMethod(Method, Protocol):
    """A method that is a `torch.nn.Module`."""

    def state_dict(self) -> dict[str, Any]:
        """All that training changes in it."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Go back to such a state."""


class Training:
    """A method, its optimizer and its random numbers: what is saved, and goes on later.

    Args:
        method: untrained.
        seed: of the random numbers of all steps.
    """

    def __init__(self, method: TrainableMethod, seed: int) -> None:
        self.method = method
        groups = method.parameter_groups()
        self.optimizer = torch.optim.Adam(
            [{"params": list(group.parameters), "betas": group.betas} for group in groups]
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        """Steps that have been made."""

    @property
    def finished(self) -> bool:
        """Whether all steps have been made."""
        return self.step >= self.method.num_steps

    def advance(self) -> StepResult:
        """Make one step."""
        rates = self.method.learning_rates(self.step)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        result = self.method.training_step(self.step, self.generator)
        self.optimizer.zero_grad()
        result.loss.backward()
        self.optimizer.step()
        self.method.after_step(self.step)
        self.step += 1
        return result

    def check_finite(self) -> None:
        """Raise FloatingPointError where a parameter is nan or infinite."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if not torch.isfinite(parameter).all():
                    raise FloatingPointError(_diverged(self.step))

    def state(self) -> dict[str, Any]:
        """Return tensors and plain values that say all of it."""
        return {
            "step": self.step,
            "method": dict(self.method.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken.

        Raises:
            ValueError: it is no state of such a training; what torch finds wrong with the parts has
                errors of its own.
        """
        expected = {"step": int, "method": Mapping, "optimizer": Mapping, "generator": Tensor}
        for name, kind in expected.items():
            if name not in state:
                raise ValueError(f"{name} is missing")
            if not isinstance(state[name], kind) or isinstance(state[name], bool):
                raise ValueError(f"{name} is of type {type(state[name]).__name__}")
        if not 0 <= state["step"] <= self.method.num_steps:
            raise ValueError(f"it is of step {state['step']}, there are {self.method.num_steps}")
        absent = {"state", "param_groups"} - set(state["optimizer"])
        if absent:
            raise ValueError(f"the optimizer lacks {' and '.join(sorted(absent))}")
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]


def _diverged(step: int) -> str:
    return (
        f"the training broke down: nan or infinite numbers by step {step}. The last checkpoint "
        f"that was good, if there is one, is kept. Try another --seed or smaller learning rates"
    )


@dataclass
class _Recent:
    """The steps since their numbers were last looked at, in tensors of the device."""

    count: int = 0
    loss: Tensor | float = 0.0
    squared_error: Tensor | float = 0.0
    looked: float = 0.0

    def add(self, result: StepResult) -> None:
        self.count += 1
        self.loss = self.loss + result.loss.detach()
        self.squared_error = self.squared_error + result.squared_error

    def look(self, step: int) -> dict[str, float]:
        """Mean loss and PSNR in dB; begins anew.

        Raises:
            FloatingPointError: a loss was nan or infinite.
        """
        loss, error = (float(s) / max(self.count, 1) for s in (self.loss, self.squared_error))
        if not math.isfinite(loss) or not math.isfinite(error):
            raise FloatingPointError(_diverged(step))
        self.count, self.loss, self.squared_error = 0, 0.0, 0.0
        self.looked = time.monotonic()
        return {"loss": loss, "psnr": -10.0 * math.log10(max(error, 1e-10))}


def train(
    training: Training,
    stop: StopFlag,
    save: Callable[[], None],
    save_every: float,
    draw: Callable[[int], None],
    draw_every: int,
    report: Report | None = None,
) -> None:
    """Make the steps that are left, or as many as there are until `stop`.

    Args:
        training: goes on from where it is.
        stop: looked at after each step.
        save: writes the checkpoint; called at the end too, but never where numbers are not finite.
        save_every: seconds between calls of `save`.
        draw: makes a picture of a step; called after the last one too, unless stopped.
        draw_every: steps between pictures.
        report: told of every step.

    Raises:
        FloatingPointError: nan or infinite numbers.
    """
    total = training.method.num_steps
    recent, on_terminal = _Recent(), sys.stderr.isatty()
    began, first = time.monotonic(), training.step
    saved, saved_step, logged = began, first or None, began

    def keep() -> None:
        nonlocal saved, saved_step
        training.check_finite()
        save()
        saved, saved_step = time.monotonic(), training.step

    with tqdm(total=total, initial=first, unit="step", disable=not on_terminal) as bar:
        while not training.finished and stop.signal is None:
            recent.add(training.advance())
            bar.update()
            if report is not None:
                report(training.step, total)
            step, now = training.step, time.monotonic()
            log_due = not on_terminal and (_is_due(step, total) or now - logged >= LOG_SECONDS)
            draw_due = step % draw_every == 0 or training.finished
            save_due = now - saved >= save_every or training.finished
            if log_due or draw_due or save_due or now - recent.looked >= LOOK_SECONDS:
                numbers = recent.look(step)
                bar.set_postfix(numbers, refresh=False)
            if log_due:
                logged = now
                left = (now - began) / (step - first) * (total - step)
                log.info(
                    "step %d of %d: loss %.4f, PSNR %.2f dB, about %.0f s left",
                    step, total, numbers["loss"], numbers["psnr"], left,
                )  # fmt: skip
            if draw_due:  # before the checkpoint: a run that is killed between draws it again
                training.check_finite()
                draw(step)
            if save_due:
                keep()
    if training.step != saved_step:
        recent.look(training.step)
        keep()


def _is_due(step: int, total: int) -> bool:
    """Whether a tenth of the run ends with this step."""
    return step * LOG_LINES // total > (step - 1) * LOG_LINES // total
