from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from common.files import sha256
from ldm.model import SyncDreamer
from multiview.cameras import orbit_cameras
from pipeline.api import MultiviewImages
from pipeline.image_to_3d import Context, PipelineConfig
from pipeline.paths import EXPORTED
from pipeline.selection import ranking
from pipeline.selection.elevation import ElevationConfig, ElevationEstimate
from renderer.reconstruction import ReconstructionResult
from tests.conftest import ROOT
from tests.fakes import FakeGenerator, small_config
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


ONE_STEP = ["sampler.steps=1", "sampler.guidance_scale=1", "sampler.eta=0"]


class FileReads:
    """Counts, within a `with`, how often files are opened, and their contents decoded and hashed.

    Opening is counted by an audit hook, and so is hashing or decoding by path, which opens a file.
    """

    _active: ClassVar[list[FileReads]] = []

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = {str(path): path for path in paths}
        self.opened: Counter[Path] = Counter()
        self.decoded: Counter[Path] = Counter()
        self.hashed: Counter[Path] = Counter()

    def __enter__(self) -> FileReads:
        if not hasattr(FileReads, "_hook"):  # audit hooks cannot be removed
            FileReads._hook = FileReads._on_event
            sys.addaudithook(FileReads._on_event)
        self.contents = {path.read_bytes(): path for path in self.paths.values()}
        self._active.append(self)
        self._patch = pytest.MonkeyPatch()
        open_image, hash_bytes = Image.open, hashlib.sha256

        def counted_open(source, *args, **kwargs):
            if isinstance(source, BytesIO) and source.getvalue() in self.contents:
                self.decoded[self.contents[source.getvalue()]] += 1
            return open_image(source, *args, **kwargs)

        def counted_hash(data=b"", **kwargs):
            if data in self.contents:
                self.hashed[self.contents[data]] += 1
            return hash_bytes(data, **kwargs)

        self._patch.setattr(Image, "open", counted_open)
        self._patch.setattr(hashlib, "sha256", counted_hash)
        return self

    def __exit__(self, *_: object) -> None:
        self._active.remove(self)
        self._patch.undo()

    @staticmethod
    def _on_event(event: str, arguments: tuple[object, ...]) -> None:
        for reads in FileReads._active if event == "open" else ():
            if path := reads.paths.get(str(arguments[0])):
                reads.opened[path] += 1


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


METRICS = {"psnr": 20.0, "field_psnr": 21.0, "mask_iou": None, "faces": 12, "watertight": True,
           "steps": 6, "kind": "mlp", "preset": "fast", "seconds": 1.0}  # fmt: skip


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, estimate: Callable[..., None]) -> None:
    """No estimate, equal scores, and a mesh that depends on the strip and the seed alone."""
    estimate(12.34)
    monkeypatch.setattr(ranking, "score_sample", lambda *_: ranking.SampleScore(score=0.5))

    def reconstruct(image, folder, config, options):
        folder.mkdir(exist_ok=True)
        for name in EXPORTED:
            of = f"{name} {sha256(image)} {options.seed} {options.preset}"
            if name == "mesh.glb":  # the report shows it
                box = trimesh.Scene(trimesh.creation.box(), metadata={"of": of})
                box.export(folder / name)
            else:
                (folder / name).write_text(of)
        (folder / "metrics.json").write_text(json.dumps(METRICS))
        return ReconstructionResult(METRICS, None)

    monkeypatch.setattr("pipeline.image_to_3d.reconstruct", reconstruct)


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
