"""Meshes for 3D printers: solid, in millimetres, z up, standing at the origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from common.optional import import_optional
from renderer.formats.options import PACKAGES
from renderer.formats.samples import spread_evenly
from renderer.hygiene import edge_uses, merge_equal_vertices

if TYPE_CHECKING:
    from trimesh import Trimesh

BASE_CUT = 0.02
"""Share of the height that is cut off for a flat base."""
RESTING = 0.05
"""A base is flat already if it covers this share of the bounding box's bottom."""
OVERHANG_DEG = 45.0
"""Surfaces that face down and are less steep than this need support."""
WALL_SAMPLES, WALL_STRIDE = 20_000, 10
"""Points on the surface; the thickness is estimated at every so many of them."""
WALL_ROUNDS, WALL_TOLERANCE = 20, 1e-3
"""Most steps of a ball's shrinking, and the share by which it must shrink to go on."""
WALL_EPSILON = 0.05
"""Error of the nearest neighbour: an exact one takes minutes at the centre of a sphere."""
WALL_PERCENTILE = 1.0
"""Percentile of the thickness that is reported: the smallest one is noise."""
OPPOSITE = -0.5
"""Cosine of the normals of both sides of a wall, at most; at edges and corners it is larger."""


class NotPrintableError(ValueError):
    """The mesh encloses no volume."""


def printable(mesh: Trimesh, size_mm: float, flat_base: bool = False) -> Trimesh:
    """The shape of a mesh with a longest edge of `size_mm`, its lowest point at z = 0.

    The middle of its bounding box is on the z axis. With `flat_base` the lowest `BASE_CUT` is cut
    off, unless it stands on a flat base already.

    Raises:
        NotPrintableError: it is not closed, manifold and oriented outwards.
    """
    solid = merge_equal_vertices(mesh)
    _check_solid(solid)
    low, high = solid.bounds
    if flat_base and resting_area(solid) < RESTING * np.prod((high - low)[:2]):
        solid = _cut(solid, low[2] + BASE_CUT * (high - low)[2])
    low, high = solid.bounds
    stand = [*(low + high)[:2] / 2, low[2]]
    solid.vertices = (solid.vertices - stand) * (size_mm / (high - low).max())
    return solid


def _check_solid(solid: Trimesh) -> None:
    uses = edge_uses(solid)
    for count, what in (
        ((uses == 1).sum(), "not closed: {} edges belong to one face only"),
        ((uses > 2).sum(), "not manifold: {} edges belong to more than two faces"),
    ):
        if count:
            raise NotPrintableError(f"the mesh cannot be printed, it is {what.format(count)}")
    if not solid.is_winding_consistent or not solid.volume > 0:
        found = "some of its faces, or all, are turned inwards"
        raise NotPrintableError(f"the mesh cannot be printed, {found}")


def _cut(solid: Trimesh, height: float) -> Trimesh:
    """What is above a height, closed below."""
    manifold3d = import_optional("manifold3d", "a flat base", PACKAGES)
    trimesh = import_optional("trimesh", "a flat base")
    points = np.asarray(solid.vertices, dtype=np.float32)
    body = manifold3d.Manifold(manifold3d.Mesh(points, np.asarray(solid.faces, dtype=np.uint32)))
    found = body.trim_by_plane((0.0, 0.0, 1.0), float(height)).to_mesh()
    if not len(found.tri_verts):
        raise NotPrintableError("a flat base cannot be cut: its faces are too close together")
    return trimesh.Trimesh(found.vert_properties[:, :3], found.tri_verts, process=False)


def resting_area(solid: Trimesh) -> float:
    """Area of the faces on which it stands, in the square of its unit."""
    lowest, highest = solid.bounds[:, 2]
    low = solid.triangles[:, :, 2].max(axis=1) < lowest + 1e-3 * (highest - lowest)
    return float(solid.area_faces[low & (solid.face_normals[:, 2] < -0.99)].sum())


def measure_print(solid: Trimesh) -> dict[str, Any]:
    """What a printer's owner asks about a mesh of `printable`, as plain JSON.

    Returns:
        closed, manifold; size_mm (x, y, z); volume_cm3; thinnest_wall_mm, an estimate, None where
        no two sides face each other; overhang_share of the surface; base_cm2, on which it stands.
    """
    uses = edge_uses(solid)
    steep = np.asarray(solid.face_normals)[:, 2] < -np.cos(np.deg2rad(OVERHANG_DEG)) - 1e-6
    base, wall = resting_area(solid), thinnest_wall(solid)
    hanging = max(float(solid.area_faces[steep].sum()) - base, 0.0)
    return {
        "closed": bool((uses == 2).all()),
        "manifold": bool((uses <= 2).all()),
        "size_mm": [round(float(side), 2) for side in solid.extents],
        "volume_cm3": round(float(solid.volume) / 1000, 3),
        "thinnest_wall_mm": None if wall is None else round(wall, 2),
        "overhang_share": round(hanging / float(solid.area), 3),
        "base_cm2": round(base / 100, 2),
    }


def thinnest_wall(solid: Trimesh) -> float | None:
    """Estimate the thickness below which `WALL_PERCENTILE` of the surface lies.

    The thickness at a point is the diameter of the largest ball inside that touches the surface
    there, found by shrinking it (Ma, Bae, Choi, 3D medial axis point approximation, 2012); it
    counts if the ball also touches an opposite side.
    """
    from scipy.spatial import cKDTree

    at = spread_evenly(solid, WALL_SAMPLES)
    points = at.interpolate(np.asarray(solid.vertices), solid.faces)
    normals = np.asarray(solid.face_normals)[at.faces]
    tree, radius = cKDTree(points), np.full(len(points), float(solid.extents.max()))
    measured = active = np.arange(0, len(points), WALL_STRIDE)
    touched = np.arange(len(points))
    for _ in range(WALL_ROUNDS):
        centres = points[active] - radius[active, None] * normals[active]
        distance, nearest = tree.query(centres, eps=WALL_EPSILON)
        away = points[active] - points[nearest]
        depth = (away * normals[active]).sum(axis=1)
        inside = (distance < radius[active] * (1 - WALL_TOLERANCE)) & (depth > 1e-9 * solid.scale)
        active, nearest = active[inside], nearest[inside]
        radius[active] = np.square(away[inside]).sum(axis=1) / (2 * depth[inside])
        touched[active] = nearest
    cosine = (normals[measured] * normals[touched[measured]]).sum(axis=1)
    walls = 2 * radius[measured[cosine < OPPOSITE]]
    return float(np.percentile(walls, WALL_PERCENTILE)) if len(walls) else None
