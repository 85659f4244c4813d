from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multiview.images import view_names
from tests.conftest import ROOT, SHARED

EXAMPLES = ROOT / "eval_examples"
NO_NVDIFFRAST = not (torch.cuda.is_available() and importlib.util.find_spec("nvdiffrast"))
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(NO_NVDIFFRAST, reason="needs a CUDA device and nvdiffrast"),
]


def save_views(folder: Path, views: np.ndarray) -> Path:
    """Write views (N, S, S, 3 or 4), [0, 1], as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in zip(view_names(), views, strict=True):
        Image.fromarray((view * 255).round().astype(np.uint8)).save(folder / name)
    return folder


def ring_of_views(size: int = 64) -> np.ndarray:
    """A coloured disc whose colours turn with the azimuth, on white, (16, S, S, 3)."""
    y, x = np.mgrid[:size, :size] / size
    disc = ((x - 0.5) ** 2 + (y - 0.45) ** 2 < 0.1)[..., None]
    views = []
    for azimuth in np.arange(16) / 16 * 2 * np.pi:
        wave = [0.5 + 0.5 * np.sin(azimuth + phase + 6 * x) for phase in (0, 2, 4)]
        views.append(np.where(disc, np.stack(wave, axis=-1), 1.0))
    return np.stack(views)


@pytest.fixture(scope="session")
def chicken() -> Path:
    """The scanned toy with 16 views that the published model generated for it."""
    return _reference("data/chicken")


@pytest.fixture(scope="session")
def eval_goldens() -> dict[str, np.ndarray]:
    return dict(np.load(_reference("goldens/eval.npz")))


def _reference(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip("the reference data are not beside the project")
    return SHARED / name


INTEGRATION_FIXTURES = {"report", "objects", "box"}
"""Tests with these fixtures evaluate whole objects or run COLMAP."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(folder) and INTEGRATION_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.integration)
