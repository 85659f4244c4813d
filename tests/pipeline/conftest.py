from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.config import SamplerConfig
from multiview.images import views_to_strip
from pipeline.image_to_3d import Context, PipelineConfig
from pipeline.selection.elevation import ElevationConfig
from tests.renderer.small_runs import SIZE, TINY, ellipsoid


class FakeGenerator:
    """Draws an ellipsoid, spoiled by noise that depends on all it is told; counts what it draws."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, int]] = []

    size = SIZE

    def settings(self, sampler: SamplerConfig) -> dict[str, object]:
        return {"weights": "toy", **vars(sampler)}

    def generate(
        self, pixels: np.ndarray, elevation_deg: float, seed: int, sampler: SamplerConfig
    ) -> np.ndarray:
        self.drawn.append((elevation_deg, seed))
        told = f"{pixels.sum()} {elevation_deg} {seed}".encode()
        noise = np.random.default_rng(list(told)).normal(size=(16, SIZE, SIZE, 1))
        pictures = ellipsoid()
        alpha = pictures[..., 3:]
        colours = (pictures[..., :3] + (alpha > 0.99) * noise * seed / 200).clip(0, 0.9)
        views = np.where(alpha > 0.99, colours, pictures[..., :3])
        return views_to_strip((views * 255).round().astype(np.uint8))


@pytest.fixture
def view_generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def context(view_generator: FakeGenerator) -> Context:
    return Context(view_generator)


@pytest.fixture(scope="session")
def config() -> PipelineConfig:
    return PipelineConfig(
        backend="white",
        crop_size="auto",
        elevation="auto",
        draft_steps=2,
        sample_num=3,
        seed=1,
        sampler=SamplerConfig(steps=3),
        renderer=replace(TINY, mlp=replace(TINY.mlp, resolution=16)),
        preset="fast",
        device=torch.device("cpu"),
        elevations=ElevationConfig(step=10.0, drafts_at=(0.0, 30.0), size=32, resolution=24),
    )


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
