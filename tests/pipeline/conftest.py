from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.model import SyncDreamer
from multiview.cameras import orbit_cameras
from pipeline.api import MultiviewImages
from pipeline.image_to_3d import Context, PipelineConfig
from pipeline.selection import ranking
from pipeline.selection.elevation import ElevationConfig, ElevationEstimate
from tests.conftest import ROOT
from tests.fakes import FakeGenerator, fake_reconstruct, small_config
from tests.renderer.small_runs import TINY, ellipsoid

SMALL_CFG = ROOT / "configs" / "tiny.yaml"
SIZES = {"cameras.image_size": 64, "volume.voxels": 8, "volume.depth_planes": 8}
SMALL = [f"model.{name}={value}" for name, value in SIZES.items()]
"""Overrides of `SMALL_CFG` that give the model of the fixture `small_model`."""


@pytest.fixture(scope="session")
def small_checkpoint(small_model: SyncDreamer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ckpt") / "small.ckpt"
    torch.save({"state_dict": small_model.state_dict()}, path)
    return path


ONE_STEP = ["sampler.steps=1", "sampler.guidance_scale=1", "sampler.eta=0"]


def by_small_model(checkpoint: Path) -> list[str]:
    """Flags of `generate.py` for the fixture `small_checkpoint`, with one step."""
    overrides = [f"--set={text}" for text in (*SMALL, *ONE_STEP)]
    return ["--cfg", str(SMALL_CFG), "--ckpt", str(checkpoint), "--device", "cpu", *overrides]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def view_generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def context(view_generator: FakeGenerator) -> Context:
    return Context(view_generator)


@pytest.fixture(scope="session")
def config() -> PipelineConfig:
    return small_config()


@pytest.fixture(scope="session")
def single(config: PipelineConfig) -> PipelineConfig:
    """One sample of a known elevation."""
    return replace(config, elevation=20.0, num_samples=1)


OPENED: list[dict[str, int]] = []


def _on_event(event: str, arguments: tuple[object, ...]) -> None:
    for counts in OPENED if event == "open" else ():
        if str(arguments[0]) in counts:
            counts[str(arguments[0])] += 1


@cache
def _add_hook() -> None:
    sys.addaudithook(_on_event)  # cannot be removed


@contextmanager
def file_reads(paths: Sequence[Path]) -> Iterator[dict[str, int]]:
    """How often files are opened within a `with`, whoever opens them."""
    _add_hook()
    OPENED.append(dict.fromkeys(map(str, paths), 0))
    yield OPENED[-1]
    OPENED.pop()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """The ellipsoid on white, without alpha."""
    path = tmp_path / "photo.png"
    picture = (ellipsoid()[0, ..., :3] * 255).round().astype(np.uint8)
    Image.fromarray(picture).resize((96, 96), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread_and_short_videos():
    """The number of threads changes results by rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("renderer.reconstruction.FRAMES", 4)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def estimate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the estimated elevation, and for which drafts are made (default: for all)."""

    def replace_by(degrees: float, drafts_at: Sequence[float] | None = None) -> None:
        def found(target, draft, config):
            config, values = config or ElevationConfig(), np.zeros(2)
            for assumed in drafts_at or config.drafts_at:
                assert draft(assumed).shape[0] == 16
            return ElevationEstimate(degrees, 3.0, values, values, values, values)

        monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", found)

    return replace_by


@pytest.fixture
def no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("there is no object in view 3")

    monkeypatch.setattr("pipeline.selection.elevation_drafts.estimate_elevation", fail)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, estimate: Callable[..., None]) -> None:
    """No estimate, equal scores, and a mesh that depends on the strip and the seed alone."""
    estimate(12.34)
    monkeypatch.setattr(ranking, "score_sample", lambda *_: ranking.SampleScore(score=0.5))
    monkeypatch.setattr("pipeline.image_to_3d.reconstruct", fake_reconstruct)


def toy_views() -> MultiviewImages:
    images = (ellipsoid()[..., :3] * 255).round().astype(np.uint8)
    return MultiviewImages(images, orbit_cameras(16, image_size=32), 20.0, 0)


@pytest.fixture
def quick_renderer(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A reconstruction of seconds; which configuration and preset were asked for."""
    asked = []

    def load(path, preset):
        assert path.is_file()
        asked.append((path.name, preset))
        return TINY

    monkeypatch.setattr("pipeline.api.load_renderer_config", load)
    return asked
