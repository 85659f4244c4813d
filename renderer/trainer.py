"""The training loop of every reconstruction method."""

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
from renderer.checkpoint import check_parts
from renderer.methods.base import Method, StepResult

log = logging.getLogger(__name__)

SYNC_SECONDS = 0.2
"""How often losses are read back from the device, which waits for the GPU."""
LOG_LINES = 10
"""Log lines of a whole run if stderr is not a terminal."""
StepCallback = Callable[[int, int], None]
"""(steps done, all steps); an exception ends the training without a checkpoint."""
LOG_SECONDS = 60.0
"""Longest time between two log lines."""


class TrainableMethod(Method, Protocol):
    """A method that is a `torch.nn.Module`."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that training changes."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore such a state."""


class Training:
    """Training state: an untrained method, its optimizer, its seeded generator and the step."""

    def __init__(self, method: TrainableMethod, seed: int) -> None:
        self.method = method
        groups = method.parameter_groups()
        self.optimizer = torch.optim.Adam(
            [{"params": list(group.parameters), "betas": group.betas} for group in groups]
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        """Number of finished steps."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.method.num_steps

    def train_step(self) -> StepResult:
        """Run one optimization step."""
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
        """Raise FloatingPointError if a parameter is nan or infinite."""
        groups = self.optimizer.param_groups
        if not all(torch.isfinite(value).all() for group in groups for value in group["params"]):
            raise FloatingPointError(_diverged(self.step))

    def state(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        return {
            "step": self.step,
            "method": dict(self.method.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state`.

        Raises:
            ValueError: keys, types or the step do not fit. Torch raises other errors.
        """
        check_parts(state, step=int, method=Mapping, optimizer=Mapping, generator=Tensor)
        if not 0 <= state["step"] <= self.method.num_steps:
            raise ValueError(f"step is {state['step']}, expected 0 to {self.method.num_steps}")
        absent = {"state", "param_groups"} - set(state["optimizer"])
        if absent:
            raise ValueError(f"the optimizer lacks {' and '.join(sorted(absent))}")
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step = state["step"]


def _diverged(step: int) -> str:
    return (
        f"the training diverged: nan or infinite numbers by step {step}. The last finite "
        f"checkpoint, if there is one, is kept"
    )


@dataclass
class _RunningMean:
    """Losses since the last read-back, summed on the device."""

    count: int = 0
    loss: Tensor | float = 0.0
    squared_error: Tensor | float = 0.0
    read_at: float = 0.0

    def add(self, result: StepResult) -> None:
        self.count += 1
        self.loss = self.loss + result.loss.detach()
        self.squared_error = self.squared_error + result.squared_error

    def read(self, step: int) -> dict[str, float]:
        """Return the mean loss and the PSNR in dB, and reset the sums; both must be finite."""
        loss, error = (float(s) / max(self.count, 1) for s in (self.loss, self.squared_error))
        if not math.isfinite(loss) or not math.isfinite(error):
            raise FloatingPointError(_diverged(step))
        self.count, self.loss, self.squared_error = 0, 0.0, 0.0
        self.read_at = time.monotonic()
        return {"loss": loss, "psnr": -10.0 * math.log10(max(error, 1e-10))}


def train(
    training: Training,
    stop: StopFlag,
    save: Callable[[], None],
    save_every: float,
    preview: Callable[[int], None],
    preview_every: int,
    on_step: StepCallback | None = None,
) -> None:
    """Run the remaining steps, or until `stop`, which is checked after every step, is set.

    `save` writes a checkpoint every `save_every` seconds and at the end, never with nan or infinite
    parameters; `preview` renders an image of the given step every `preview_every` steps and, unless
    stopped, at the end.

    Raises:
        FloatingPointError: nan or infinite numbers.
    """
    total = training.method.num_steps
    recent, on_terminal = _RunningMean(), sys.stderr.isatty()
    began, first = time.monotonic(), training.step
    saved, saved_step, logged = began, first or None, began

    def save_checked() -> None:
        nonlocal saved, saved_step
        training.check_finite()
        save()
        saved, saved_step = time.monotonic(), training.step

    with tqdm(total=total, initial=first, unit="step", disable=not on_terminal) as bar:
        while not training.finished and stop.signal is None:
            recent.add(training.train_step())
            bar.update()
            if on_step is not None:
                on_step(training.step, total)
            step, now = training.step, time.monotonic()
            log_due = not on_terminal and (_is_due(step, total) or now - logged >= LOG_SECONDS)
            preview_due = step % preview_every == 0 or training.finished
            save_due = now - saved >= save_every or training.finished
            if log_due or preview_due or save_due or now - recent.read_at >= SYNC_SECONDS:
                numbers = recent.read(step)
                bar.set_postfix(numbers, refresh=False)
            if log_due:
                logged = now
                left = (now - began) / (step - first) * (total - step)
                quality = "loss {loss:.4f}, PSNR {psnr:.2f} dB".format(**numbers)
                log.info("step %d of %d: %s, about %.0f s left", step, total, quality, left)
            if preview_due:  # before the checkpoint: a run killed in between renders it again
                training.check_finite()
                preview(step)
            if save_due:
                save_checked()
    if training.step != saved_step:
        recent.read(training.step)
        save_checked()


def _is_due(step: int, total: int) -> bool:
    """Whether a tenth of the run ends with this step."""
    return step * LOG_LINES // total > (step - 1) * LOG_LINES // total
