from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.image_to_3d import Context, PipelineConfig
from tests.fakes import FakeGenerator, small_config
from tests.renderer.small_runs import ellipsoid


@pytest.fixture
def view_generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def context(view_generator: FakeGenerator) -> Context:
    return Context(view_generator)


@pytest.fixture(scope="session")
def config() -> PipelineConfig:
    return small_config()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The ellipsoid on white, without alpha."""
    path = tmp_path / "photo.png"
    picture = (ellipsoid()[0, ..., :3] * 255).round().astype(np.uint8)
    Image.fromarray(picture).resize((96, 96), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(autouse=True)
def one_thread_and_short_videos(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def changed(config: PipelineConfig, **changes: object) -> PipelineConfig:
    return replace(config, **changes)  # type: ignore[arg-type]
