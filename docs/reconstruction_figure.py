"""Draw a reconstruction beside the views that it was made of.

    python -m docs.reconstruction_figure output/renderer/chicken docs/reconstruction.png

Rows: four of the 16 views; the textured mesh from other heights; its shape alone, lit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trimesh
from PIL import Image

from multiview.cameras import Cameras, orbit_cameras
from renderer.mesh import with_vertex_colors
from renderer.video import render

if TYPE_CHECKING:
    from trimesh import Trimesh

COLUMNS = 4
ELEVATIONS_DEG = (10.0, 50.0)
LIGHT = np.array([0.25, -0.45, 0.85]) / np.linalg.norm([0.25, -0.45, 0.85])
SIZE = 256


def load(path: Path) -> Trimesh:
    """Read mesh.glb and turn it so that z is up again."""
    mesh = trimesh.load(path, force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.vertices = np.asarray(mesh.vertices)[:, [0, 2, 1]] * [1, -1, 1]
    return mesh


def lit(mesh: Trimesh) -> Trimesh:
    """The shape in grey, brighter where it faces the light."""
    brightness = 0.3 + 0.65 * np.clip(0.5 + 0.5 * (np.asarray(mesh.vertex_normals) @ LIGHT), 0, 1)
    return with_vertex_colors(mesh, np.repeat(brightness[:, None], 3, axis=1))


def row(mesh: Trimesh, cameras: Cameras, size: int = SIZE) -> np.ndarray:
    """What cameras see of a mesh, on white, side by side, uint8."""
    pictures = [picture[..., :3] for picture in render(mesh, cameras, size)]
    return np.round(np.concatenate(pictures, axis=1) * 255).astype(np.uint8)


def figure(folder: Path) -> Image.Image:
    """Draw the reconstruction in a folder of `train_renderer.py`."""
    views = [Image.open(folder / f"input-{4 * k}.png").resize((SIZE, SIZE)) for k in range(COLUMNS)]
    textured = load(folder / "mesh.glb")
    shape = trimesh.load(folder / "mesh.ply", process=False)
    assert isinstance(shape, trimesh.Trimesh)
    low, high = (
        orbit_cameras(COLUMNS, elevation_deg=elevation, image_size=SIZE)
        for elevation in ELEVATIONS_DEG
    )
    rows = [np.concatenate([np.asarray(view.convert("RGB")) for view in views], axis=1)]
    rows += [row(textured, low), row(lit(shape), low), row(textured, high)]
    return Image.fromarray(np.concatenate(rows))


def main(argv: list[str] | None = None) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of one reconstruction")
    parser.add_argument("picture", type=Path, help="to write")
    args = parser.parse_args(argv)
    figure(args.folder).save(args.picture, optimize=True)


if __name__ == "__main__":
    main()
