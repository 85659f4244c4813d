from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.cli import limit_numpy_threads
from common.config import load_config
from demo.model import choose_model_class
from ldm.checkpoint.load import empty_model, storage_dtype
from ldm.config import GenerateConfig, SyncDreamerConfig, model_buffers
from ldm.model import SyncDreamer
from ldm.networks.unet import UNetConfig
from tests.offline import sitecustomize  # noqa: F401 - refuses other machines from here on
from tests.reference.seeded_weights import seeded_state

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
OFFLINE = ROOT / "tests" / "offline"
COMPACT_GOLDENS = ROOT / "tests" / "data" / "goldens.npz"
COMPACT_VALUES = 2048

needs_shared = pytest.mark.skipif(
    not (SHARED / "goldens").is_dir(), reason="the reference data are not beside the project"
)


def run(*arguments: object, cwd: Path = ROOT, **given: Any) -> subprocess.CompletedProcess[str]:
    """Start Python; with `env`: these variables beside the environment's."""
    command = [sys.executable, *map(str, arguments)]
    given["env"] = os.environ | given.get("env", {})
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **given)


def thin_out(array: np.ndarray) -> np.ndarray:
    """Every k-th value, so that at most COMPACT_VALUES are left."""
    return array.reshape(-1)[:: math.ceil(array.size / COMPACT_VALUES)]


def relative_error(out: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    out = out.detach().double().numpy() if isinstance(out, torch.Tensor) else out
    assert out.shape == expected.shape, f"shape {out.shape}, expected {expected.shape}"
    expected = expected.astype(np.float64)
    return float(np.linalg.norm(out - expected) / np.linalg.norm(expected))


class Goldens:
    """Outputs of the published implementation: every k-th value is in the repository."""

    def __init__(self) -> None:
        self.compact = np.load(COMPACT_GOLDENS)

    def whole(self, file: str, name: str) -> np.ndarray | None:
        path = SHARED / "goldens" / f"{file}.npz"
        return np.load(path)[name] if path.exists() else None

    def check(self, file: str, name: str, out: torch.Tensor, tolerance: float = 1e-4) -> None:
        out = out.detach().double().numpy() if isinstance(out, torch.Tensor) else out
        thin = self.compact[f"{file}/{name}"]
        assert relative_error(thin_out(out), thin) < tolerance, f"{file}/{name} (compact)"
        whole = self.whole(file, name)
        if whole is not None:
            assert relative_error(out, whole) < tolerance, f"{file}/{name} (whole)"


def pytest_configure() -> None:
    """Set up the environment of the commands that tests start.

    They use no network, and share the cores with the other processes of `pytest -n`.
    """
    limit_numpy_threads()
    found = filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join(found)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Encode logs that name files with undecodable names, so that xdist can transmit them."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def same_start_for_every_test() -> None:
    """The random numbers and the level of the log, whatever the tests before have set."""
    torch.manual_seed(0)
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session", autouse=True)
def every_mesh_that_is_exported_is_checked() -> Iterator[None]:
    """In this process: closed, manifold, oriented, clean, textured, of at most so many faces."""
    from renderer import reconstruction
    from renderer.formats.read import read_textured
    from renderer.hygiene import PROPERTIES, measure_hygiene

    export = reconstruction.export_meshes

    def checked(method: Any, views: Any, folder: Path, config: Any, *given: Any) -> Any:
        meshes = export(method, views, folder, config, *given)
        for name in ("mesh.glb", "mesh.ply"):
            if (folder / name).read_bytes() == b"glb":  # a stand-in
                continue
            mesh = read_textured(folder / name)
            found = measure_hygiene(mesh)
            assert all(found[key] for key in PROPERTIES), (name, found)
            assert name == "mesh.ply" or len(mesh.faces) <= config.faces
            assert mesh.visual.kind == ("vertex" if name == "mesh.ply" else "texture")
        return meshes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "export_meshes", checked)
        yield


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return Goldens()


def seeded_model(config: SyncDreamerConfig) -> SyncDreamer:
    model = empty_model(config, choose_model_class(config))
    state = {**seeded_state(model), **model_buffers(config)}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def cast(model: SyncDreamer, dtype: torch.dtype) -> SyncDreamer:
    """The same model with its weights in another type."""
    other = empty_model(model.config, type(model))
    state = {
        name: tensor.to(storage_dtype(name, dtype)) for name, tensor in model.state_dict().items()
    }
    other.load_state_dict(state, assign=True)
    return other.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def model64() -> SyncDreamer:
    """The published sizes but for a UNet of 64 channels, with weights seeded by their names."""
    return seeded_model(SyncDreamerConfig(unet=UNetConfig(channels=64)))


@pytest.fixture(scope="session")
def tiny_config() -> SyncDreamerConfig:
    return load_config(GenerateConfig, ROOT / "configs" / "tiny.yaml").model


@pytest.fixture(scope="session")
def small_config() -> SyncDreamerConfig:
    """The tiny model for views of 64 pixels: for tests that train."""
    sizes = ["model.cameras.image_size=64", "model.volume.voxels=8", "model.volume.depth_planes=8"]
    return load_config(GenerateConfig, ROOT / "configs" / "tiny.yaml", sizes).model


@pytest.fixture(scope="session")
def small_model(small_config: SyncDreamerConfig) -> SyncDreamer:
    return seeded_model(small_config)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: SyncDreamerConfig) -> SyncDreamer:
    return seeded_model(tiny_config)


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: SyncDreamer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ckpt") / "tiny.ckpt"
    torch.save({"state_dict": tiny_model.state_dict(), "epoch": 0}, path)
    return path
