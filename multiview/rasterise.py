"""Rasterisation of triangles in double precision: the face and the depth at each pixel centre.

Triangles are cut into rows of pixels, F faces into L rows, of which only the covered part is
visited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from multiview.cameras import Cameras

if TYPE_CHECKING:
    from trimesh import Trimesh

_TOLERANCE = 1e-9
"""Barycentric weights from minus this count as inside: no pixel falls between two triangles."""
_SMALLEST_AREA = 1e-9
"""Triangles of less, twice the area in pixels, cover no pixel."""


@dataclass(frozen=True)
class Fragments:
    """P pixel centres that triangles cover.

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
        corners = (values[faces[:, k]].T.take(self.faces, axis=1) for k in range(3))
        return sum(map(np.multiply, corners, self.weights.T)).T


def rasterise(corners: np.ndarray, size: int) -> Fragments:
    """Rasterise 2D triangles: all pixels with centres (column + 0.5, row + 0.5) in them.

    Corners are in pixels, x to the right and y downwards, (F, 3, 2); the image has `size` a side.
    The fragments are in the order of the triangles.
    """
    area = _doubled_areas(corners)
    low, high = corners[..., 1].min(axis=1), corners[..., 1].max(axis=1)
    top = np.clip(np.ceil(low - 0.5), 0, size).astype(np.int64)
    bottom = np.clip(np.floor(high - 0.5), -1, size - 1).astype(np.int64)
    empty = np.abs(area) < _SMALLEST_AREA
    face, row = _expand(top, np.where(empty, 0, np.maximum(bottom - top + 1, 0)))
    # Each weight is affine in x - x of corner 0 along a row of a face: slope x + base, here (3, L)
    # for L rows of all faces.
    x, y = np.moveaxis(corners - corners[:, :1], -1, 0)
    along = np.stack([y[:, 1] - y[:, 2], y[:, 2], -y[:, 1]]) / np.where(empty, 1, area)
    down = np.stack([x[:, 2] - x[:, 1], -x[:, 2], x[:, 1]]) / np.where(empty, 1, area)
    base = down.take(face, axis=1) * (row + 0.5 - corners[face, 0, 1])
    base[0] += 1
    slope = along.take(face, axis=1)  # much faster than [:, face]
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = -(base + _TOLERANCE) / slope
    first = np.where(slope > 0, bound, -np.inf).max(axis=0)
    last = np.where(slope < 0, bound, np.inf).min(axis=0)
    last[((slope == 0) & (base < -_TOLERANCE)).any(axis=0)] = -np.inf
    origin = corners[face, 0, 0] - 0.5
    left = np.clip(np.ceil(first + origin), 0, size).astype(np.int64)
    right = np.clip(np.floor(last + origin), -1, size - 1).astype(np.int64)
    line, column = _expand(left, np.maximum(right - left + 1, 0))
    weights = slope.take(line, axis=1) * (column - origin[line]) + base.take(line, axis=1)
    return Fragments(row[line] * size + column, face[line], weights.T, np.zeros(len(line)))


def _doubled_areas(corners: np.ndarray) -> np.ndarray:
    """Twice the signed areas of triangles (F, 3, 2), positive if clockwise with y downwards."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas: np.ndarray = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return areas


def _expand(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and value of all integers in ranges from `starts` with `counts` members, both (R,)."""
    index = np.repeat(np.arange(len(counts)), counts)
    shift = starts - np.cumsum(counts) + counts
    return index, np.arange(len(index)) + shift[index]


def rasterise_mesh(
    mesh: Trimesh, intrinsics: np.ndarray, pose: np.ndarray, size: int, one_sided: bool = False
) -> Fragments:
    """Rasterise a mesh as a camera sees it: the nearest fragment of every covered pixel.

    Faces that reach behind the camera are left out, and with `one_sided`, which is faster and the
    same for closed meshes, those that show their back. The intrinsics, (3, 3), are those of a size
    x size image; the pose is world-to-camera, (3, 4). The fragments are in the order of the faces.
    """
    in_camera = np.asarray(mesh.vertices) @ pose[:, :3].T + pose[:, 3]
    depths = in_camera[:, 2]
    homogeneous = in_camera @ intrinsics.T
    projected = homogeneous[:, :2] / np.where(depths > 0, homogeneous[:, 2], 1)[:, None]
    corners = mesh.faces.view(np.ndarray)
    drawn = (depths > 0)[corners].all(axis=1)
    if one_sided:  # outward faces are counter-clockwise, which a y axis downwards turns around
        drawn &= _doubled_areas(projected[corners]) < 0
    faces = np.flatnonzero(drawn)
    flat = rasterise(projected[corners[faces]], size)
    # In image space 1 / z, not z, is affine on a plane.
    shares = (1 / depths[corners[faces].T]).take(flat.faces, axis=1) * flat.weights.T
    nearness = shares.sum(axis=0)
    nearest = np.zeros(size * size)
    np.maximum.at(nearest, flat.pixels, nearness)
    front = np.flatnonzero(nearness == nearest[flat.pixels])
    winner = np.empty(size * size, dtype=np.int64)
    winner[flat.pixels[front]] = front
    front = front[winner[flat.pixels[front]] == front]
    nearness = nearness[front]
    weights = shares.take(front, axis=1) / nearness
    return Fragments(flat.pixels[front], faces[flat.faces[front]], weights.T, 1 / nearness)


def rasterise_depths(mesh: Trimesh, cameras: Cameras, size: int) -> np.ndarray:
    """Depth maps (N, size, size): camera-z at pixel centres, inf for the background."""
    maps = np.full((len(cameras.intrinsics), size * size), np.inf)
    rig = zip(maps, cameras.intrinsics, cameras.world_to_camera, strict=True)
    for depth, intrinsics, pose in rig:
        seen = rasterise_mesh(mesh, intrinsics, pose, size)
        depth[seen.pixels] = seen.depth
    return maps.reshape(-1, size, size)
