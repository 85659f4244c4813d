"""Views of a box, COLMAP engines, and programs that stand in for COLMAP."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.colmap.engine import Engine, open_engine
from multiview.cameras import Cameras, orbit_cameras
from multiview.images import view_names

HALF_SIZES = np.array([0.45, 0.35, 0.3])
NAMES = view_names(16)


@pytest.fixture(params=["pycolmap", "program"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines, where they are installed."""
    if request.param == "pycolmap":
        pytest.importorskip("pycolmap")
        return open_engine(None)
    if shutil.which("colmap") is None:
        pytest.skip("there is no colmap program on the PATH")
    return open_engine("colmap")


@dataclass(frozen=True)
class Box:
    """16 views of a box with a random texture, (16, S, S, ...); depth 0 is background."""

    views: np.ndarray
    depths: np.ndarray
    normals: np.ndarray

    @staticmethod
    def distance(points: np.ndarray) -> np.ndarray:
        """Of points (P, 3) from the surface of the box, (P,)."""
        outside = np.abs(points) - HALF_SIZES
        beyond = np.linalg.norm(np.maximum(outside, 0), axis=1)
        return np.abs(beyond + np.minimum(outside.max(axis=1), 0))


def cast_rays(cameras: Cameras, view: int, size: int, texture: np.ndarray) -> list[np.ndarray]:
    """Colour, depth and normal (camera frame) of each pixel; pixel centres are at + 0.5."""
    rotation, shift = cameras.world_to_camera[view, :, :3], cameras.world_to_camera[view, :, 3]
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    pixels = np.stack([columns, rows, np.ones((size, size))], axis=-1)
    in_camera = pixels @ np.linalg.inv(cameras.intrinsics[view]).T  # z = 1, so t is the depth
    directions, origin = in_camera @ rotation, -rotation.T @ shift
    enter = (-np.sign(directions) * HALF_SIZES - origin) / directions
    leave = (np.sign(directions) * HALF_SIZES - origin) / directions
    depth, axis = enter.max(axis=-1), enter.argmax(axis=-1)
    hit = depth < leave.min(axis=-1)
    points = origin + depth[..., None] * directions
    texels = texture.shape[1]
    cells = np.clip(((points + 0.5) * texels).astype(int), 0, texels - 1)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cell = [np.take_along_axis(cells, k[..., None], -1)[..., 0] for k in (first, second)]
    side = np.take_along_axis(points, axis[..., None], -1)[..., 0] > 0
    colour = np.where(hit[..., None], texture[axis + 3 * side, cell[0], cell[1]], 1.0)
    normal = -np.eye(3)[axis] * np.sign(directions)
    return [colour, np.where(hit, depth, 0.0), np.where(hit[..., None], normal @ rotation.T, 0.0)]


@pytest.fixture(scope="session")
def box() -> Box:
    texture = np.random.default_rng(0).random((6, 16, 16, 3))
    cameras = orbit_cameras(16, image_size=512)
    images = [cast_rays(cameras, view, 512, texture) for view in range(16)]
    smooth = np.stack([image[0] for image in images])
    views = smooth.reshape(16, 256, 2, 256, 2, 3).mean(axis=(2, 4))
    maps = [cast_rays(orbit_cameras(16), view, 256, texture) for view in range(16)]
    return Box(views, np.stack([m[1] for m in maps]), np.stack([m[2] for m in maps]))


class FakeEngine:
    name = "fake"

    def __init__(self, has_cuda: bool = False) -> None:
        self.has_cuda = has_cuda

    def __getattr__(self, step: str) -> Any:
        raise AssertionError(f"{step} must not be called")


def script(path: Path, *lines: str) -> str:
    """Make a program of Python lines."""
    path.write_text("\n".join([f"#!{sys.executable}", *lines]) + "\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def recorder(path: Path, version: str, options: str) -> str:
    """A stand-in that knows `options` and writes the arguments of each step to a file."""
    return script(
        path,
        "import sys",
        "if sys.argv[1] == 'help':",
        f"    print('COLMAP {version} (Commit 0 on 2026-01-01 with CUDA)')",
        "elif sys.argv[2] == '--help':",
        f"    print({options!r})",
        "else:",
        f"    open({str(path) + '.calls'!r}, 'a').write('\\t'.join(sys.argv[1:]) + '\\n')",
    )
