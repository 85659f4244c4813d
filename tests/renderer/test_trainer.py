from __future__ import annotations

import logging
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.signals import StopFlag
from renderer.checkpoint import RunFingerprint, read_checkpoint, write_checkpoint
from renderer.methods.base import ParameterGroup, StepResult
from renderer.trainer import Training, train

NEVER = 1e9  # seconds, or steps
FINGERPRINT = RunFingerprint({"kind": "mlp", "mlp": {"steps": 10, "peak": (1, 2)}}, 6033, "abc")


class Line(nn.Module):
    """A method that fits a line to noisy points: random numbers, state and a buffer, no rays."""

    def __init__(self, num_steps: int = 10, breaks_at: int = -1) -> None:
        super().__init__()
        self.num_steps, self.breaks_at = num_steps, breaks_at
        self.slope, self.offset = (nn.Parameter(torch.zeros(())) for _ in range(2))
        self.register_buffer("mean_loss", torch.zeros(()))
        self.followed: list[int] = []

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.slope]), ParameterGroup([self.offset], betas=(0.5, 0.9))]

    def learning_rates(self, step: int) -> list[float]:
        return [0.1 / (1 + step), 0.0]

    def training_step(self, step: int, generator: torch.Generator) -> StepResult:
        x = torch.rand(8, generator=generator)
        loss = (self.slope * x + self.offset - 3 * x).square().mean()
        self.mean_loss.lerp_(loss.detach(), 0.5)
        if step == self.breaks_at:
            loss = loss * float("nan")
        return StepResult(loss, loss.detach())

    def after_step(self, step: int) -> None:
        self.followed.append(step)


class Run:
    """Callbacks of `train` that record their calls; `at_step` is called at every preview."""

    def __init__(self, path: Path, method: Line, seed: int = 1) -> None:
        self.path, self.training = path, Training(method, seed)
        self.saved: list[int] = []
        self.previews: list[int] = []
        self.stop = StopFlag()
        self.at_step = lambda step: None

    def save(self) -> None:
        self.saved.append(self.training.step)
        write_checkpoint(self.path, FINGERPRINT, self.training.state(), 1.0)

    def preview(self, step: int) -> None:
        self.previews.append(step)
        self.at_step(step)

    def go(self, save_every: float = NEVER, preview_every: int = 1) -> Run:
        train(self.training, self.stop, self.save, save_every, self.preview, preview_every)
        return self

    def load(self) -> Run:
        self.training.load_state(read_checkpoint(self.path, FINGERPRINT)[0])
        return self


def assert_same(a: Run, b: Run) -> None:
    assert_close(a.training.state(), b.training.state(), rtol=0, atol=0)


def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bits(tmp_path: Path):
    whole = Run(tmp_path / "a.ckpt", Line()).go()
    first = Run(tmp_path / "b.ckpt", Line())
    first.at_step = lambda step: setattr(first.stop, "signal", 2 if step == 4 else None)
    first.go()
    assert (first.training.step, first.saved) == (4, [4])
    second = Run(tmp_path / "b.ckpt", Line(), seed=99).load().go()
    assert second.training.method.followed == [4, 5, 6, 7, 8, 9]
    assert_same(whole, second)


def test_a_run_killed_between_a_preview_and_its_checkpoint_misses_no_preview(tmp_path: Path):
    for end in (4, 10):
        killed = Run(tmp_path / f"{end}.ckpt", Line())

        def kill_after(step: int, end: int = end) -> None:
            if step == end:
                raise SystemExit

        killed.at_step = kill_after
        with pytest.raises(SystemExit):
            killed.go(save_every=0.0, preview_every=2)
        resumed = Run(killed.path, Line()).load().go(preview_every=2)
        assert resumed.previews == list(range(end, 11, 2))


def test_each_group_has_its_own_learning_rate_and_momentum(tmp_path: Path):
    run = Run(tmp_path / "a.ckpt", Line()).go()
    groups = [(group["lr"], group["betas"]) for group in run.training.optimizer.param_groups]
    assert groups == [(0.01, (0.9, 0.999)), (0.0, (0.5, 0.9))]
    assert run.training.method.offset == 0
    # Adam's first step is as long as the learning rate
    first = Run(tmp_path / "b.ckpt", Line(num_steps=1)).go()
    assert_close(first.training.method.slope.detach(), torch.tensor(0.1), rtol=1e-4, atol=0)


def test_checkpoints_and_previews_come_when_they_are_due(tmp_path: Path):
    run = Run(tmp_path / "a.ckpt", Line()).go(preview_every=4)
    assert (run.previews, run.saved) == ([4, 8, 10], [10])
    often = Run(tmp_path / "a.ckpt", Line()).go(save_every=0.0, preview_every=5)
    assert (often.previews, often.saved) == ([5, 10], list(range(1, 11)))


def test_a_finished_run_makes_no_step_and_writes_nothing(tmp_path: Path):
    Run(tmp_path / "a.ckpt", Line()).go()
    again = Run(tmp_path / "a.ckpt", Line()).load().go()
    assert again.saved == again.previews == []


def test_a_loss_that_is_not_finite_ends_the_run_and_the_last_good_checkpoint_stays(tmp_path: Path):
    run = Run(tmp_path / "a.ckpt", Line(breaks_at=6))
    with pytest.raises(FloatingPointError, match="by step 7"):
        run.go(save_every=0.0)
    assert run.saved == [1, 2, 3, 4, 5, 6]
    assert read_checkpoint(tmp_path / "a.ckpt", FINGERPRINT)[0]["step"] == 6


def test_a_loss_that_is_not_finite_is_noticed_before_the_next_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("renderer.trainer.SYNC_SECONDS", 0.0)
    with pytest.raises(FloatingPointError, match="by step 7"):
        Run(tmp_path / "a.ckpt", Line(breaks_at=6)).go(preview_every=100)


def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path: Path):
    run = Run(tmp_path / "a.ckpt", Line())

    def spoil(step: int) -> None:
        run.training.method.offset.data.fill_(float("inf"))
        run.stop.signal = 2

    run.at_step = spoil
    with pytest.raises(FloatingPointError):
        run.go()
    assert run.saved == []


def test_an_end_that_is_asked_for_before_the_first_step_leaves_a_checkpoint_too(tmp_path: Path):
    run = Run(tmp_path / "a.ckpt", Line())
    run.stop.signal = signal.SIGINT
    run.go()
    assert run.saved == [0]
    assert_same(Run(tmp_path / "b.ckpt", Line()).go(), Run(run.path, Line()).load().go())


def test_without_a_terminal_ten_lines_show_the_progress(tmp_path: Path, caplog, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO):
        Run(tmp_path / "a.ckpt", Line(num_steps=37)).go(preview_every=100)
    lines = [record.getMessage() for record in caplog.records]
    steps = [int(re.match(r"step (\d+) of 37: loss .* PSNR .* dB", line)[1]) for line in lines]
    assert len(steps) == 10
    assert steps[-1] == 37
    assert set(np.diff(steps)) <= {3, 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 11}, "step is 11, expected 0 to 10"),
        ({"step": -1}, "step is -1, expected 0 to 10"),
        ({"step": 2.5}, "step is 2.5"),
        ({"step": True}, "step is True"),
        ({"method": 3}, "method is 3"),
        ({"optimizer": {}}, "optimizer lacks param_groups and state"),
        ({"generator": [1]}, r"generator is \[1\]"),
        *(({name: None}, f"{name} is missing") for name in ("step", "method", "generator")),
    ],
)
def test_a_state_that_is_not_of_the_training_is_refused(tmp_path: Path, change, message):
    training = Run(tmp_path / "a.ckpt", Line()).go().training
    state = {**training.state(), **change}
    with pytest.raises(ValueError, match=message):
        training.load_state({name: value for name, value in state.items() if value is not None})
