"""Draw a reconstruction below its input views.

    python -m docs.reconstruction_figure output/renderer/chicken docs/reconstruction.png

Rows: four of the 16 views; the textured mesh, and its shape in grey, at elevations of 10 degrees;
the textured mesh at 50 degrees.
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
    """Read mesh.glb and rotate it so that z is up."""
    mesh = trimesh.load(path, force="mesh", process=False)
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.vertices = np.asarray(mesh.vertices)[:, [0, 2, 1]] * [1, -1, 1]
    return mesh


def lit(mesh: Trimesh) -> Trimesh:
    """Return the shape in grey, brighter where it faces the light."""
    brightness = 0.3 + 0.65 * np.clip(0.5 + 0.5 * (np.asarray(mesh.vertex_normals) @ LIGHT), 0, 1)
    return with_vertex_colors(mesh, np.repeat(brightness[:, None], 3, axis=1))


def row(mesh: Trimesh, cameras: Cameras, size: int = SIZE) -> np.ndarray:
    """Render a mesh from several cameras on white, side by side, (H, N W, 3) uint8."""
    images = [image[..., :3] for image in render(mesh, cameras, size)]
    return np.round(np.concatenate(images, axis=1) * 255).astype(np.uint8)


def figure(folder: Path) -> Image.Image:
    """Draw the reconstruction in an output folder of `train_renderer.py`."""
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
    """Draw the figure and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="output folder of a reconstruction")
    parser.add_argument("image", type=Path, help="PNG file to write")
    args = parser.parse_args(argv)
    figure(args.folder).save(args.image, optimize=True)


if __name__ == "__main__":
    main()
