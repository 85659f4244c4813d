"""A small textured toy, reconstructed from views as all meshes are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from trimesh import Trimesh

from multiview.cameras import orbit_cameras
from renderer.mesh import extract, remove_floaters, with_vertex_colors
from renderer.texture import bake
from renderer.video import render

FIRST, SPACING, CELLS = -0.6, 0.03, 41


def body() -> Trimesh:
    """A ball with an arm on one side and a small ball on top: no two axes look alike."""
    axis = FIRST + SPACING * np.arange(CELLS)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)

    def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
        return np.linalg.norm(grid - centre, axis=-1) - radius

    across = np.linalg.norm(grid[..., 1:] - [0.05, -0.1], axis=-1) - 0.1
    arm = np.maximum(across, np.abs(grid[..., 0] - 0.3) - 0.25)
    parts = (ball((0, 0, -0.1), 0.25), ball((0, -0.1, 0.2), 0.15), arm)
    return remove_floaters(extract(np.minimum.reduce(parts), FIRST, SPACING))


@cache
def textured_toy() -> Trimesh:
    """Its colours are 0.5 + position, as the views show them."""
    mesh, cameras = body(), orbit_cameras(8, image_size=96)
    coloured = with_vertex_colors(mesh, 0.5 + np.asarray(mesh.vertices))
    views = np.stack(list(render(coloured, cameras, 96)))
    return bake(mesh, views[..., :3], views[..., 3], cameras, size=256, faces=3000)


def bounds_in(points: np.ndarray) -> np.ndarray:
    """Lowest and highest coordinates (2, 3)."""
    return np.stack([points.min(axis=0), points.max(axis=0)])


def spread_of_colors(colors: np.ndarray, points: np.ndarray) -> float:
    """Mean distance of colours in [0, 1] from what is painted at these points, where seen."""
    seen = points[:, 2] > -0.2
    return float(np.abs(colors - (0.5 + points))[seen].mean())


def write_toy(folder: Path) -> Path:
    """Write the toy's mesh.glb."""
    from renderer.texture import write_glb

    write_glb(folder / "mesh.glb", textured_toy())
    return folder / "mesh.glb"
