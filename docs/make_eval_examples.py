"""Make the bundled example for the evaluation commands, eval_examples/, without any other data.

    python -m docs.make_eval_examples

The object is a generated toy (`demo.toys`). The prediction is a stand-in, not a model's output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage

from demo.raycast.render_views import render_views
from demo.toys.make_toys import ground_truth_mesh
from docs.make_figures import on_white, toy
from evaluation.depth import write_depth_map
from multiview.cameras import REFERENCE_IMAGE_SIZE, orbit_cameras
from multiview.rasterise import rasterise_depths
from renderer.mesh import extract, remove_floaters, with_vertex_colors, write_ply
from renderer.texture import sample_vertex_colors

OUT = Path("eval_examples")
SIZE = REFERENCE_IMAGE_SIZE
TURN_DEG = 2.0
"""Of the stand-in, about z."""
BLUR, SATURATION = 1.1, 0.85
"""Of the stand-in's views: standard deviation in pixels, and share of the true saturation."""
CELL, SMOOTHING = 1 / 68, 0.75
"""Voxels of the stand-in's surface: side in world units, and standard deviation in voxels."""


def true_surface() -> trimesh.Trimesh:
    """Return the toy's surface as the renderer places it: centred, longest side 1."""
    surface = ground_truth_mesh(toy(azimuth=0.0))
    surface.apply_translation(-surface.bounds.mean(axis=0))
    return surface.apply_scale(1 / surface.extents.max())


def write_truth(folder: Path, mesh: Path) -> None:
    """Write the true views, their depth maps and the true surface."""
    cameras, surface = orbit_cameras(), true_surface()
    mesh.parent.mkdir(parents=True, exist_ok=True)
    surface.export(mesh, include_normals=False, digits=5, header=None)
    folder.mkdir(exist_ok=True)
    views = render_views(toy(azimuth=0.0), cameras, SIZE, supersampling=3)
    depths = rasterise_depths(surface, cameras, SIZE)
    for i, (view, depth) in enumerate(zip(views, depths, strict=True)):
        Image.fromarray(view).save(folder / f"{i:03d}.png", optimize=True)
        write_depth_map(folder / f"{i:03d}-depth.png", depth)


def write_stand_in(folder: Path) -> None:
    """Write blurred and paler views of the turned toy, and its smoothed, thicker surface."""
    cameras, padding = orbit_cameras(), 3
    turn = trimesh.transformations.rotation_matrix(np.deg2rad(TURN_DEG), [0, 0, 1])
    turned = replace(cameras, world_to_camera=cameras.world_to_camera @ turn)
    folder.mkdir(exist_ok=True)
    images = []
    for i, view in enumerate(render_views(toy(azimuth=0.0), turned, SIZE)):
        pale = ImageEnhance.Color(on_white(view)).enhance(SATURATION)
        images.append(pale.filter(ImageFilter.GaussianBlur(BLUR)))
        images[-1].save(folder / f"{i:03d}.png", optimize=True)
    voxels = true_surface().apply_transform(turn).voxelized(CELL).fill()
    solid = ndimage.gaussian_filter(np.pad(voxels.matrix, padding).astype(np.float32), SMOOTHING)
    mesh = remove_floaters(extract(0.5 - solid, -padding, 1.0)).apply_transform(voxels.transform)
    views = np.stack([np.asarray(image) / 255 for image in images])
    colours = sample_vertex_colors(mesh, views, None, cameras)
    write_ply(folder / "mesh.ply", with_vertex_colors(mesh, colours))


if __name__ == "__main__":
    write_truth(OUT / "locomotive-gt", OUT / "locomotive-mesh" / "meshes" / "model.obj")
    write_stand_in(OUT / "locomotive-pr")
