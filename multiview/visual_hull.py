"""Visual hull of the views' masks, and a closure of the underside that no camera sees.

The hull is the largest shape with the given silhouettes. A ring of cameras above an object leaves
its underside open: the hull continues as a cone along the lowest lines of sight, which can be a
third of the volume. The closure is the smallest surface that spans the rim of the visible part.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import linalg

from multiview.cameras import OBJECT_HALF_SIDE, PIXEL_CENTRE, Cameras

MIN_VISIBLE_COSINE = 0.1
"""A surface is visible if the cosine of its normal and some line of sight is at least this."""
FOOT_HEIGHT = 2.0
"""Cells: where the underside is lower than beside it by more, it is the foot of something with
visible sides, such as a leg. Lines of sight are less steep than that."""
SAG = 0.15
"""Position of the underside between the spanned surface (0) and the hull (1): edges are rounder,
and undersides lower, than a membrane that starts at the last line of sight."""


def cell_centres(resolution: int) -> np.ndarray:
    """Coordinates of the cells' centres along each axis, (V,) for V = `resolution`."""
    return ((np.arange(resolution) + 0.5) / resolution * 2 - 1) * OBJECT_HALF_SIDE


def visual_hull(
    masks: np.ndarray, cameras: Cameras, resolution: int, tolerance: float = 0.0
) -> np.ndarray:
    """Signed distance to the visual hull, from the distances to the silhouettes.

    Exact on the hull's smooth parts near the surface, and too small in magnitude elsewhere. With a
    tolerance, for views that do not quite agree, a single view cuts off no more than that.

    Args:
        masks: True on the object, bool (N, S, S).
        cameras: N, for S x S images.
        resolution: V, cells a side.
        tolerance: world units; beyond it, two views must agree that there is nothing.

    Returns:
        world units, negative inside, at the cells' centres, indexed x, y, z, (V, V, V) float32.

    Raises:
        ValueError: a mask is empty.
    """
    check_not_empty(masks)
    centres = cell_centres(resolution)
    points = np.stack(np.meshgrid(*[centres] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    hull, second = np.full((2, len(points)), -np.inf)
    rig = zip(masks, cameras.intrinsics, cameras.world_to_camera, strict=True)
    for mask, intrinsics, pose in rig:
        in_camera = points @ pose[:, :3].T + pose[:, 3]
        pixels = in_camera @ intrinsics.T
        places = (pixels[:, 1::-1] / pixels[:, 2:] - PIXEL_CENTRE).T  # row, column
        outline = silhouette_distance(mask)
        distance = ndimage.map_coordinates(outline, places, order=1, mode="nearest")
        distance *= in_camera[:, 2] / intrinsics[0, 0]
        np.maximum(second, np.minimum(hull, distance), out=second)
        np.maximum(hull, distance, out=hull)
    if tolerance:
        hull = np.maximum(second, hull - tolerance)
    return hull.reshape((resolution,) * 3).astype(np.float32)


def check_not_empty(masks: np.ndarray) -> None:
    """Raise ValueError with the numbers of the masks, bool (N, S, S), that are empty."""
    empty = [str(k) for k, mask in enumerate(masks) if not mask.any()]
    if empty:
        raise ValueError(f"the masks of the views {', '.join(empty)} are empty")


def silhouette_distance(mask: np.ndarray) -> np.ndarray:
    """Distance in pixels of every pixel's centre to a mask's outline, negative inside, (S, S)."""
    outside, inside = map(ndimage.distance_transform_edt, (~mask, mask))
    return np.where(mask, 0.5 - inside, outside - 0.5)


def close_underside(hull: np.ndarray, cameras: Cameras) -> np.ndarray:
    """Replace the part of a hull's underside that no camera sees by a spanned surface.

    Where no camera sees the underside, a height map over the ground plan, it becomes the solution
    of Laplace's equation, which spans the rest, moved by `SAG` towards the hull. The result is a
    signed distance, nowhere below `hull`, (V, V, V) float32.
    """
    centres = cell_centres(len(hull))
    occupied: np.ndarray = np.any(hull < 0, axis=2)
    if not occupied.any():
        return hull
    bottom = _lowest(hull, centres, occupied)
    free = _unseen(bottom, centres, occupied, cameras)
    spanned = _solve_laplace(np.where(occupied, bottom, 0.0), occupied, free)
    closed = np.maximum(spanned - SAG * (spanned - bottom), bottom)
    below = np.where(occupied[:, :, None], closed[:, :, None] - centres, -np.inf)
    return np.maximum(hull, below).astype(np.float32)


def _lowest(hull: np.ndarray, centres: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """Height (V, V) of the hull's lowest point over the ground plan; empty cells: the nearest's."""
    first = (hull < 0).argmax(axis=2)
    height = centres[first]
    above = first > 0
    i, j = np.nonzero(occupied & above)
    k = first[i, j]
    inside, outside = hull[i, j, k], hull[i, j, k - 1]
    height[i, j] += (centres[1] - centres[0]) * inside / (outside - inside)
    nearest = ndimage.distance_transform_edt(~occupied, return_distances=False, return_indices=True)
    return height[nearest[0], nearest[1]]


def _unseen(
    bottom: np.ndarray, centres: np.ndarray, occupied: np.ndarray, cameras: Cameras
) -> np.ndarray:
    """Where no camera sees the underside, bool (V, V); the plan's outline counts as visible."""
    smooth = ndimage.gaussian_filter(bottom, 1.0)
    slopes = np.gradient(smooth, centres[1] - centres[0])
    normals = np.stack([*slopes, -np.ones_like(bottom)], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    x, y = np.meshgrid(centres, centres, indexing="ij")
    points = np.stack([x, y, smooth], axis=-1)
    best = np.full(bottom.shape, -1.0)
    for pose in cameras.world_to_camera:
        sight = -pose[:, :3].T @ pose[:, 3] - points
        cosine = (normals * sight).sum(axis=-1) / np.linalg.norm(sight, axis=-1)
        np.maximum(best, cosine, out=best)
    highest = ndimage.grey_dilation(bottom, footprint=ndimage.generate_binary_structure(2, 1))
    is_foot = highest - bottom > FOOT_HEIGHT * (centres[1] - centres[0])
    return (best < MIN_VISIBLE_COSINE) & ndimage.binary_erosion(occupied) & ~is_foot


def _solve_laplace(height: np.ndarray, occupied: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation for the free cells, bool (V, V), inside the occupied ones."""
    rows, columns = np.nonzero(free)
    if not len(rows):
        return height
    number = np.full(height.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    matrix = sparse.lil_matrix((len(rows), len(rows)))
    known, neighbours = np.zeros(len(rows)), np.zeros(len(rows))
    for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        there = (rows + step[0], columns + step[1])
        neighbours += occupied[there]
        inner, outer = free[there], occupied[there] & ~free[there]
        matrix[np.nonzero(inner)[0], number[there][inner]] = -1.0
        known[outer] += height[there][outer]
    matrix.setdiag(neighbours)
    spanned = height.copy()
    spanned[rows, columns] = linalg.spsolve(matrix.tocsr(), known)
    return spanned
