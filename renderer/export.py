"""What a reconstruction ends with: meshes, pictures, the video, and how good they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from common.files import atomic_write
from multiview.cameras import Cameras, orbit_cameras
from renderer.mesh import extract, remove_floaters, with_colours, write_ply
from renderer.methods.base import Method, Picture, Views, all_rays
from renderer.rays import pixel_grid, pixel_rays
from renderer.texture import bake, vertex_colours, write_glb
from renderer.video import render

if TYPE_CHECKING:
    from trimesh import Trimesh

MEASURED_PIXELS = 32768
"""Of all views, on which the field is measured."""
FRAMES = 180
"""Of a full turn in the video."""


@dataclass(frozen=True)
class Meshes:
    """One surface twice: with all its faces, and simplified with a texture."""

    fine: Trimesh
    textured: Trimesh


def export_meshes(method: Method, views: Views, folder: Path) -> Meshes:
    """Write mesh.ply, with colours of its vertices, and mesh.glb, with a texture.

    Raises:
        ValueError: there is no surface.
    """
    grid = method.shape()
    mesh = remove_floaters(extract(grid.sdf, grid.first, grid.spacing))
    seen = views.trusted()
    colours = vertex_colours(mesh, seen.images, seen.masks, seen.cameras)
    write_ply(folder / "mesh.ply", with_colours(mesh, colours))
    textured = bake(mesh, seen.images, seen.masks, seen.cameras)
    write_glb(folder / "mesh.glb", textured)
    return Meshes(mesh, textured)


def render_view(
    method: Method,
    cameras: Cameras,
    index: int,
    size: int,
    pixel_offset: float,
    device: torch.device,
) -> Picture:
    """Render what one of several cameras sees, row by row.

    Args:
        method: on `device`.
        cameras: for size x size images.
        index: which of them.
        size: pixels a side.
        pixel_offset: see `pixel_rays`.
        device: for the rays.
    """
    intrinsics, pose = (
        torch.from_numpy(array[index]) for array in (cameras.intrinsics, cameras.world_to_camera)
    )
    pixels = pixel_grid(size, size).double()
    origins, directions = pixel_rays(pixels, intrinsics, pose, pixel_offset)
    return method.render(origins.to(device, torch.float32), directions.to(device, torch.float32))


def write_picture(path: Path, picture: Picture, size: int) -> None:
    """Write colour, opacity and normals, (n + 1) / 2 on white, side by side as a JPEG."""
    opacity = picture.opacity[:, None]
    normals = 0.5 * (picture.normal + opacity) + 1.0 - opacity
    parts = torch.stack([picture.color, opacity.expand(-1, 3), normals])
    pixels = parts.reshape(3, size, size, 3).permute(1, 0, 2, 3).reshape(size, 3 * size, 3)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(_levels(pixels)).save(temporary, quality=95)


def _levels(colours: torch.Tensor) -> np.ndarray:
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def field_frames(
    method: Method, size: int, pixel_offset: float, device: torch.device
) -> Iterator[np.ndarray]:
    """Frames of a full turn around a field, from azimuth 0 on, uint8 (size, size, 3)."""
    cameras = orbit_cameras(FRAMES, image_size=size)
    for index in range(FRAMES):
        picture = render_view(method, cameras, index, size, pixel_offset, device)
        yield _levels(picture.color.reshape(size, size, 3))


def measure_meshes(meshes: Meshes, views: Views) -> dict[str, Any]:
    """Draw the textured mesh as the cameras saw the object, and compare.

    Returns:
        psnr in dB, the mean over the views; mask_iou, None without masks; numbers of faces, and
        of the fine mesh whether it is closed, and its volume.
    """
    drawn = np.stack(list(render(meshes.textured, views.cameras, views.size)))
    errors = np.square(drawn[..., :3] - views.images).mean(axis=(1, 2, 3))
    iou = None
    if views.masks is not None:
        ours, theirs = drawn[..., 3] >= 0.5, views.masks >= 0.5
        iou = float((ours & theirs).sum() / max((ours | theirs).sum(), 1))
    return {
        "psnr": float(_psnr(errors).mean()),
        "mask_iou": iou,
        "faces": len(meshes.fine.faces),
        "textured_faces": len(meshes.textured.faces),
        "watertight": bool(meshes.fine.is_watertight),
        "volume": float(meshes.fine.volume),
    }


def measure_field(method: Method, views: Views, pixel_offset: float, device: torch.device) -> float:
    """PSNR in dB of a field on random pixels of all views, the same ones every time."""
    rays = all_rays(views, pixel_offset, torch.device("cpu"))
    chosen = torch.randperm(len(rays), generator=torch.Generator().manual_seed(0))
    some = rays.at(chosen[:MEASURED_PIXELS])
    color = method.render(some.origins.to(device), some.directions.to(device)).color.cpu()
    return float(_psnr(np.asarray((color - some.colors).square().mean())))


def _psnr(squared_error: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.maximum(squared_error, 1e-10))
