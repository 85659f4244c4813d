"""Self-consistency of views without truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

for package in ("trimesh", "scipy"):
    pytest.importorskip(package, reason="needs requirements/eval.txt")

from common.config import load_config
from evaluation.benchmark.self_consistency import self_consistency
from renderer.config import RendererConfig
from tests.conftest import ROOT
from tests.renderer.small_runs import ellipsoid, write_strip

SMALL = ["grid.resolution=32", "grid.steps=20", "grid.rays=512"]


def measure(path: Path, views: np.ndarray) -> tuple[float, float]:
    config = load_config(RendererConfig, ROOT / "configs" / "neus.yaml", SMALL)
    return self_consistency(write_strip(path, views), config, torch.device("cpu"))


@pytest.mark.integration
def test_views_of_one_object_are_more_consistent_than_of_two(tmp_path: Path):
    views = ellipsoid()[..., :3].copy()
    distance, similarity = measure(tmp_path / "one.png", views)
    assert distance < 0.03
    other = views.copy()
    other[1::2] = np.roll(views[1::2], 4, axis=2)[..., ::-1]  # the odd views show it aside, blue
    distance_of_two, similarity_of_two = measure(tmp_path / "two.png", other)
    assert distance_of_two > 1.5 * distance
    assert similarity_of_two < similarity - 2


@pytest.mark.integration
def test_half_of_the_views_without_an_object_is_named(tmp_path: Path):
    views = ellipsoid()[..., :3].copy()
    views[1::2] = 1.0
    with pytest.raises(ValueError, match=r"half\.png: no surface from the odd views"):
        measure(tmp_path / "half.png", views)
