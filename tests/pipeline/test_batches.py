"""Samples that a GPU generates together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from ldm.config import SamplerConfig
from pipeline import view_generator as module
from pipeline.view_generator import SyncDreamerGenerator

SAMPLER = SamplerConfig(steps=1)


@pytest.fixture
def generator(small_config, monkeypatch):
    """A generator with memory for `fits` samples at once; `batches` has the seeds that it tried."""
    monkeypatch.setattr(module, "sampling_settings", lambda *_: {})
    monkeypatch.setattr(SyncDreamerGenerator, "model", lambda _: None)
    monkeypatch.setattr(SyncDreamerGenerator, "_encoded", lambda *_: None)
    batches: list[list[int]] = []

    def generate_strips(
        model: None, features: None, elevation_deg: float, seeds: Sequence[int], *_: object
    ) -> list[np.ndarray]:
        batches.append(list(seeds))
        if len(seeds) > made.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [np.full((1, 16, 3), seed, np.uint8) for seed in seeds]

    monkeypatch.setattr(module, "generate_strips", generate_strips)
    made = SyncDreamerGenerator(small_config, "x.ckpt", torch.device("cuda"), "fp32", 8)
    made.fits, made.batches = 4, batches
    return made


def seeds_of(generator, number: int) -> list[int]:
    pixels = np.zeros((64, 64, 3), np.float32)
    strips = generator.generate_batch(pixels, 20.0, range(5, 5 + number), SAMPLER)
    return [int(strip[0, 0, 0]) for strip in strips]


def test_a_gpu_generates_four_together(generator):
    assert seeds_of(generator, 6) == [5, 6, 7, 8, 9, 10]
    assert generator.batches == [[5, 6, 7, 8], [9, 10]]


def test_fewer_where_the_memory_is_short(generator):
    generator.fits = 1
    assert seeds_of(generator, 4) == [5, 6, 7, 8]
    assert generator.batches == [[5, 6, 7, 8], [5, 6], [5], [6], [7], [8]]
    generator.fits = 0
    with pytest.raises(MemoryError, match="8 views at once"):
        seeds_of(generator, 2)


def test_a_cpu_generates_one_by_one(generator):
    generator.device = torch.device("cpu")
    assert seeds_of(generator, 3) == [5, 6, 7]
    assert generator.batches == [[5], [6], [7]]
