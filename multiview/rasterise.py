"""Rasterisation of triangles in double precision: the face and the depth at each pixel centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiview.cameras import Cameras

if TYPE_CHECKING:
    from trimesh import Trimesh


@dataclass(frozen=True)
class Fragments:
    """P pixel centres that triangles cover, in no particular order.

    Attributes:
        pixels: row * size + column, (P,).
        faces: index of the triangle, (P,).
        weights: barycentric, (P, 3).
        depth: camera-z, 0 for triangles given in 2D, (P,).
    """

    pixels: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    depth: np.ndarray

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Interpolate vertex values (V, C) of faces (F, 3) at the fragments, (P, C)."""
        corners = faces[self.faces]
        return sum(values[corners[:, k]] * self.weights[:, k, None] for k in range(3))


def rasterise(corners: np.ndarray, size: int) -> Fragments:
    """Rasterise 2D triangles: all pixels with centres (column + 0.5, row + 0.5) in them.

    Corners are in pixels, x to the right and y downwards, (F, 3, 2); the image has `size` a side.
    """
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) - 0.5), -1, size - 1).astype(np.int64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    extent = np.where(area[:, None] != 0, np.maximum(high - low + 1, 0), 0)
    counts = extent.prod(axis=1)
    # Weights of corners 1 and 2 are affine in x and y: slope_x x + slope_y y + constant.
    slopes = np.stack([second[:, 1], -second[:, 0], -first[:, 1], first[:, 0]], axis=1)
    slopes /= np.where(area == 0, 1, area)[:, None]
    start = low + 0.5 - corners[:, 0]  # from corner 0 to the first pixel centre
    products = slopes.reshape(-1, 2, 2) * start[:, None]
    constants = products[..., 0] + products[..., 1]
    faces = np.repeat(np.arange(len(corners)), counts)
    index = np.arange(len(faces)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows, columns = np.divmod(index, np.repeat(extent[:, 0], counts))
    table = np.concatenate([slopes, constants], axis=1)[faces]
    one = table[:, 0] * columns + table[:, 1] * rows + table[:, 4]
    two = table[:, 2] * columns + table[:, 3] * rows + table[:, 5]
    inside = np.flatnonzero((one >= -1e-9) & (two >= -1e-9) & (one + two <= 1 + 1e-9))
    faces, one, two = faces[inside], one[inside], two[inside]
    pixels = (rows[inside] + low[faces, 1]) * size + columns[inside] + low[faces, 0]
    weights = np.stack([1 - one - two, one, two], axis=1)
    return Fragments(pixels, faces, weights, np.zeros(len(pixels)))


def rasterise_mesh(mesh: Trimesh, intrinsics: np.ndarray, pose: np.ndarray, size: int) -> Fragments:
    """Rasterise a mesh as a camera sees it: the nearest fragment of every covered pixel.

    Faces are two-sided; those that reach behind the camera are left out. The intrinsics, (3, 3),
    are those of a size x size image; the pose is world-to-camera, (3, 4).
    """
    in_camera = np.asarray(mesh.vertices) @ pose[:, :3].T + pose[:, 3]
    ahead = in_camera[:, 2] > 0
    homogeneous = in_camera @ intrinsics.T
    projected = homogeneous[:, :2] / np.where(ahead, homogeneous[:, 2], 1)[:, None]
    corners = mesh.faces.view(np.ndarray)
    triangles = projected[corners]
    triangles[~ahead[corners].all(axis=1)] = 0  # without area, these cover no pixel
    flat = rasterise(triangles, size)
    # In image space 1 / z, not z, is affine on a plane.
    shares = flat.weights / in_camera[:, 2][corners[flat.faces]]
    nearness = shares.sum(axis=1)
    nearest = np.zeros(size * size)
    np.maximum.at(nearest, flat.pixels, nearness)
    winner = np.full(size * size, -1)
    front = np.flatnonzero(nearness == nearest[flat.pixels])
    winner[flat.pixels[front]] = front
    winner = winner[winner >= 0]
    nearness = nearness[winner]
    weights = shares[winner] / nearness[:, None]
    return Fragments(flat.pixels[winner], flat.faces[winner], weights, 1 / nearness)


def rasterise_depths(mesh: Trimesh, cameras: Cameras, size: int) -> np.ndarray:
    """Depth maps (N, size, size): camera-z at pixel centres, inf for the background."""
    maps = np.full((len(cameras.intrinsics), size * size), np.inf)
    rig = zip(maps, cameras.intrinsics, cameras.world_to_camera, strict=True)
    for depth, intrinsics, pose in rig:
        seen = rasterise_mesh(mesh, intrinsics, pose, size)
        depth[seen.pixels] = seen.depth
    return maps.reshape(-1, size, size)
