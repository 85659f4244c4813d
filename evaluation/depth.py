"""Depth maps: rendering from a mesh, 16-bit PNG files, and unprojection to surface points.

Compat: depth maps are sampled at the centres of pixels, (column + 0.5, row + 0.5), as in Blender
and rasterisers, and unprojected as if sampled at (column, row), as in the published evaluation.
Both meshes of a comparison are shifted equally.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.files import atomic_write
from multiview.cameras import Cameras
from multiview.depth_png import depth_name, depth_to_levels, levels_to_depth
from multiview.image_file import MAX_INPUT_PIXELS
from multiview.projection import unproject
from multiview.rasterise import rasterise_depths

if TYPE_CHECKING:
    from trimesh import Trimesh

VALID_DEPTH = (0.63, 2.37)
"""Open interval of the depths of a PNG that are not background."""


def depth_maps(mesh: Trimesh, cameras: Cameras, size: int, device: torch.device) -> np.ndarray:
    """Render the nearest surface's camera-z depth at pixel centres, (N, size, size) float64.

    It is infinite in the background; both sides of faces are visible. Rasterises with nvdiffrast
    on a CUDA device if it is installed, else on the CPU.
    """
    if device.type == "cuda" and importlib.util.find_spec("nvdiffrast"):
        return _rasterise_on_gpu(mesh, cameras, size, device)
    return rasterise_depths(mesh, cameras, size)


def _rasterise_on_gpu(
    mesh: Trimesh, cameras: Cameras, size: int, device: torch.device
) -> np.ndarray:
    import nvdiffrast.torch as dr

    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32, device=device)
    faces = torch.tensor(np.asarray(mesh.faces), dtype=torch.int32, device=device)
    context = dr.RasterizeCudaContext(device=device)
    padded = -size % 8 + size  # nvdiffrast requires multiples of 8
    maps = []
    for intrinsics, pose in zip(cameras.intrinsics, cameras.world_to_camera, strict=True):
        camera = torch.tensor(intrinsics @ pose, dtype=torch.float32, device=device)
        homogeneous = vertices @ camera[:, :3].T + camera[:, 3]  # (V, 3): u z, v z, z
        clip = clip_coordinates(homogeneous, padded)[None]
        raster, _ = dr.rasterize(context, clip, faces, (padded, padded))
        depth, _ = dr.interpolate(homogeneous[None, :, 2:].contiguous(), raster, faces)
        depth = depth.masked_fill(raster[..., 3:] == 0, torch.inf)
        maps.append(depth[0, :size, :size, 0])
    return torch.stack(maps).double().cpu().numpy()


def clip_coordinates(homogeneous: Tensor, size: int) -> Tensor:
    """Convert projected points to OpenGL's clip space, with the first row of pixels at y = -1.

    From (u z, v z, z) in pixels and depth, (V, 3), to (x, y, z, w), (V, 4); visible points are in
    [-1, 1] after perspective division.
    """
    near, far = 0.1, 10.0
    w = homogeneous[:, 2]
    x, y = (2 * homogeneous[:, :2] / size - w[:, None]).unbind(dim=1)
    z = w * (far + near) / (far - near) - 2 * far * near / (far - near)
    return torch.stack([x, y, z, w], dim=1).contiguous()


def depth_to_points(depth: np.ndarray, valid: np.ndarray, cameras: Cameras) -> np.ndarray:
    """Unproject the valid pixels of depth maps, both (N, S, S), to points, (P, 3) float64."""
    points = []
    for i, (view, mask) in enumerate(zip(depth, valid, strict=True)):
        rows, columns = np.nonzero(mask)
        lifted = unproject(
            torch.from_numpy(np.stack([columns, rows], axis=-1).astype(np.float64)),
            torch.from_numpy(view[mask].astype(np.float64)),
            torch.from_numpy(cameras.intrinsics[i]),
            torch.from_numpy(cameras.world_to_camera[i]),
        )
        points.append(lifted.numpy())
    return np.concatenate(points)


def depth_names(num_views: int) -> list[str]:
    """File names of the depth maps: 000-depth.png, 001-depth.png, ..."""
    return [depth_name(index) for index in range(num_views)]


def read_depth_maps(folder: Path, num_views: int) -> np.ndarray | None:
    """Read the true depth maps of an object, 000-depth.png, ...; None if the folder has none.

    They are camera-z depth, infinite for the background, (N, S, S) float64.

    Raises:
        FileNotFoundError: the folder or some of the depth maps are missing.
        ValueError: a file is not a square 16-bit grey PNG, or they differ in size.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder (depth maps 000-depth.png, ...)")
    names = depth_names(num_views)
    missing = [name for name in names if not (folder / name).is_file()]
    if len(missing) == num_views:
        return None
    if missing:
        raise FileNotFoundError(f"{folder}: depth maps are missing: {', '.join(missing)}")
    maps = [_read_depth_map(folder / name) for name in names]
    for name, depth in zip(names, maps, strict=True):
        if depth.shape != maps[0].shape:
            sizes = "{0} x {0} pixels, but the first depth map has {1} x {1}"
            raise ValueError(f"{folder / name}: {sizes.format(len(depth), len(maps[0]))}")
    return np.stack(maps)


def _read_depth_map(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_INPUT_PIXELS or image.width != image.height:
                raise ValueError(f"{image.width} x {image.height} pixels, expected a square")
            if not image.mode.startswith("I"):
                raise ValueError(f"image mode {image.mode}, expected 16-bit grey")
            levels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a depth map ({error})") from error
    depth = levels_to_depth(levels)
    near, far = VALID_DEPTH
    return np.where((depth > near) & (depth < far), depth, np.inf)


def write_depth_map(path: Path, depth: np.ndarray) -> None:
    """Write a depth map, (S, S), in the format of the evaluation set: 16-bit PNG, 0.6 to 2.4."""
    with atomic_write(path) as temporary:
        Image.fromarray(depth_to_levels(depth)).save(temporary, optimize=True)
