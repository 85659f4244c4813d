"""Export of a reconstruction: meshes, preview images, video frames and quality metrics.

`python -m renderer.export --help` converts a mesh to other formats, see `renderer.formats`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from common.cli import run_script
from common.files import atomic_write
from multiview.cameras import Cameras, orbit_cameras
from renderer.config import RendererConfig
from renderer.formats.convert import build_parser, main  # noqa: F401 - of the command
from renderer.hygiene import PROPERTIES, measure_hygiene
from renderer.mesh import extract, remove_floaters, smooth, with_vertex_colors, write_ply
from renderer.methods.base import Method, RenderedRays, Views, all_rays
from renderer.rays import pixel_grid, pixel_rays
from renderer.stage_times import StageTimes
from renderer.texture import bake, sample_vertex_colors, write_glb
from renderer.video import render

if TYPE_CHECKING:
    from trimesh import Trimesh

MEASURED_PIXELS = 32768
"""Random pixels of all views on which the PSNR of the field is measured."""
FRAMES = 180
"""Frames of the video, a full turn."""


@dataclass(frozen=True)
class Meshes:
    """The mesh in full resolution, and simplified with a texture."""

    fine: Trimesh
    textured: Trimesh


def final_mesh(method: Method) -> Trimesh:
    """Closed mesh of a method's shape without floaters and pits; ValueError if there is none."""
    grid = method.shape()
    return smooth(remove_floaters(extract(grid.sdf, grid.first, grid.spacing)), 2 * grid.spacing)


def export_meshes(
    method: Method,
    views: Views,
    folder: Path,
    config: RendererConfig,
    times: StageTimes,
    matrix: np.ndarray | None = None,
) -> Meshes:
    """Write mesh.ply (vertex colours) and mesh.glb (texture), and return them.

    The files' coordinates are those of the result, or are moved by a matrix (4, 4).

    Raises:
        ValueError: there is no surface.
    """
    seen = views.trusted()
    with times.measure("mesh"):
        mesh = final_mesh(method)
        colors = sample_vertex_colors(mesh, seen.images, seen.masks, seen.cameras)
        write_ply(folder / "mesh.ply", _moved(with_vertex_colors(mesh, colors), matrix))
    with times.measure("texture"):
        sizes = (config.texture_size, config.faces)
        textured = bake(mesh, seen.images, seen.masks, seen.cameras, *sizes)
        write_glb(folder / "mesh.glb", _moved(textured, matrix))
    return Meshes(mesh, textured)


def _moved(mesh: Trimesh, matrix: np.ndarray | None) -> Trimesh:
    """A moved copy, with its normals; the mesh itself without a matrix."""
    return mesh if matrix is None else mesh.copy(include_cache=True).apply_transform(matrix)


def render_view(
    method: Method, cameras: Cameras, index: int, size: int, device: torch.device
) -> RenderedRays:
    """Render one of several cameras for size x size images; rays are its pixels, row by row."""
    intrinsics, pose = (
        torch.from_numpy(array[index]) for array in (cameras.intrinsics, cameras.world_to_camera)
    )
    pixels = pixel_grid(size, size).double()
    origins, directions = pixel_rays(pixels, intrinsics, pose, method.pixel_offset)
    return method.render(origins.to(device, torch.float32), directions.to(device, torch.float32))


def write_preview(path: Path, rendered: RenderedRays, size: int) -> None:
    """Write colour, opacity and normals, (n + 1) / 2 on white, side by side as a JPEG."""
    opacity = rendered.opacity[:, None]
    normals = 0.5 * (rendered.normal + opacity) + 1.0 - opacity
    parts = torch.stack([rendered.color, opacity.expand(-1, 3), normals])
    pixels = parts.reshape(3, size, size, 3).permute(1, 0, 2, 3).reshape(size, 3 * size, 3)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(_to_uint8(pixels)).save(temporary, quality=95)


def _to_uint8(colors: torch.Tensor) -> np.ndarray:
    return (colors.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def field_frames(method: Method, size: int, device: torch.device) -> Iterator[np.ndarray]:
    """Yield the frames of a full turn around a field from azimuth 0, uint8 (size, size, 3)."""
    cameras = orbit_cameras(FRAMES, image_size=size)
    for index in range(FRAMES):
        rendered = render_view(method, cameras, index, size, device)
        yield _to_uint8(rendered.color.reshape(size, size, 3))


def measure_meshes(meshes: Meshes, views: Views) -> dict[str, Any]:
    """Render the textured mesh with the cameras of the views, and compare with the views.

    The result: psnr in dB, the mean over the views; mask_iou, None without masks; numbers of faces;
    whether both meshes are watertight, manifold, with consistent normals and clean, see
    `renderer.hygiene`; the volume of the fine one.
    """
    rendered = np.stack(list(render(meshes.textured, views.cameras, views.size)))
    errors = np.square(rendered[..., :3] - views.images).mean(axis=(1, 2, 3))
    iou = None
    if views.masks is not None:
        ours, theirs = rendered[..., 3] >= 0.5, views.masks >= 0.5
        iou = float((ours & theirs).sum() / max((ours | theirs).sum(), 1))
    checked = [measure_hygiene(mesh) for mesh in (meshes.fine, meshes.textured)]
    return {
        "psnr": float(_psnr(errors).mean()),
        "mask_iou": iou,
        "faces": len(meshes.fine.faces),
        "textured_faces": len(meshes.textured.faces),
        **{key: all(each[key] for each in checked) for key in PROPERTIES},
        "volume": float(meshes.fine.volume),
    }


def measure_field(method: Method, views: Views, device: torch.device) -> float:
    """PSNR in dB of a field on random pixels of all views, the same pixels every time."""
    rays = all_rays(views, method.pixel_offset, torch.device("cpu"))
    chosen = torch.randperm(len(rays), generator=torch.Generator().manual_seed(0))
    some = rays.at(chosen[:MEASURED_PIXELS])
    color = method.render(some.origins.to(device), some.directions.to(device)).color.cpu()
    return float(_psnr(np.asarray((color - some.colors).square().mean())))


def _psnr(squared_error: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.maximum(squared_error, 1e-10))


if __name__ == "__main__":
    run_script(main)
