"""Validation images while training."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning.pytorch", reason="pip install -r requirements/train.txt")

from ldm.training.callbacks import share_of_images
from tests.ldm.training import training_runs
from tests.ldm.training.training_runs import SmallRun

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_ranks_share_the_validation_images_evenly(count: int, world_size: int):
    shares = [share_of_images(count, rank, world_size) for rank in range(world_size)]
    assert {len(share) for share in shares} == {math.ceil(count / world_size)}
    in_order = [number for row in zip(*shares, strict=True) for number in row]
    assert in_order[:count] == list(range(count))


@pytest.mark.slow
def test_two_processes_generate_each_validation_image_once(run: SmallRun, tmp_path: Path):
    images = tmp_path / "val"
    images.mkdir()
    for number in range(4):
        shutil.copy(run.data / "val" / "box-20.png", images / f"box{number}-20.png")
    settings = [
        f"data.validation={images}", "validation.every=1", "validation.sampler.steps=2",
        "run.max_steps=1", "run.save_every=1", "run.keep_every=1",
    ]  # fmt: skip
    training_runs.start(tmp_path / "one", run.flags(*settings), False)
    assert len(json.loads((tmp_path / "one.0").read_text())) == 4
    both = SmallRun(tmp_path / "both", run.start, run.data)
    flags = both.flags(*settings, "data.batch_size=1", "run.cpu_processes=2")
    training_runs.start(tmp_path / "two", flags, True)
    seeds = [json.loads((tmp_path / f"two.{rank}").read_text()) for rank in range(2)]
    assert [len(part) for part in seeds] == [2, 2]
    assert len({*seeds[0], *seeds[1]}) == 4
    alone, shared = run.validation_image(1), both.validation_image(1)
    assert alone.shape == shared.shape == (4 * 64, 17 * 64, 3)
    assert np.abs(alone - shared).mean() < 1  # but for the rounding of the gradients
    rows = alone.reshape(4, 64, 17 * 64, 3)
    assert all(np.abs(rows[0] - row).mean() > 1 for row in rows[1:])  # other seeds
