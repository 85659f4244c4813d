"""Fixtures: a small training set, a checkpoint to start from, a finished training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import train_syncdreamer
from tests.ldm.training.training_runs import SmallRun, make_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), objects=5)


@pytest.fixture(scope="session")
def start(small_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.ckpt"
    torch.save({"state_dict": small_model.state_dict()}, path)
    return path


@pytest.fixture
def run(tmp_path: Path, start: Path, data: Path) -> SmallRun:
    return SmallRun(tmp_path, start, data)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, start: Path, data: Path) -> SmallRun:
    """A training of eight steps, with everything optional; others are compared with it."""
    run = SmallRun(tmp_path_factory.mktemp("finished"), start, data)
    settings = [
        "run.max_steps=8", f"data.validation={data / 'val'}", "validation.every=4",
        "validation.sampler.steps=2", "step.drop_conditions=true", "step.target_views=2",
        "optimizer.ema_decay=0.5", "optimizer.gradient_clip=1.0",
    ]  # fmt: skip
    train_syncdreamer.main(run.flags(*settings))
    run.settings = settings
    return run
