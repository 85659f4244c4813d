"""Small objects in the layout of the evaluation set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

trimesh = pytest.importorskip("trimesh", reason="needs requirements/eval.txt")

from evaluation.depth import depth_maps
from evaluation.meshes import to_render_frame
from multiview.cameras import orbit_cameras
from tests.evaluation.conftest import save_views

SIZE = 32


def write_object(folder: Path, sides: tuple[float, float, float]) -> Path:
    """Write the views of a box, seen by the 16 cameras, and its mesh."""
    box = trimesh.creation.box(sides)
    cameras = orbit_cameras(16, image_size=SIZE)
    depth = depth_maps(to_render_frame(box, 0), cameras, SIZE, torch.device("cpu"))
    alpha = np.isfinite(depth)[..., None]
    colour = np.where(alpha, np.clip(2.2 - depth, 0, 1)[..., None], 0) * [1.0, 0.6, 0.3]
    save_views(folder, np.concatenate([colour, alpha], axis=-1))
    box.export(folder / "model.obj")
    return folder


@pytest.fixture(scope="session")
def set_of_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good objects, and one whose mesh cannot be read."""
    folder = tmp_path_factory.mktemp("objects")
    write_object(folder / "box", (1, 0.8, 0.6))
    write_object(folder / "slab", (1, 0.5, 0.4))
    broken = write_object(folder / "backpack", (0.5, 0.5, 1)) / "model.obj"
    broken.write_bytes(b"\x89PNG no mesh")
    return folder
