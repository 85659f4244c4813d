"""Closed triangle meshes of simple shapes, centred on the origin if not stated otherwise.

Toys stand on z = 0 and face +x. Sizes are full lengths. Boolean operations are manifold3d's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.optional import import_optional
from demo import REQUIREMENTS

if TYPE_CHECKING:
    from manifold3d import Manifold

Point = Sequence[float]


class Solid(NamedTuple):
    """A closed surface."""

    vertices: np.ndarray  # (V, 3)
    faces: np.ndarray  # counter-clockwise seen from outside, (F, 3)


def pair(x: float, y: float, z: float) -> list[Point]:
    """Return two places that mirror each other, to the right (-y) and to the left (y)."""
    return [(x, -y, z), (x, y, z)]


def translated(solid: Solid, by: Point) -> Solid:
    """Return the solid, translated."""
    return Solid(solid.vertices + np.asarray(by), solid.faces)


def rotated(solid: Solid, axis: int, degrees: float) -> Solid:
    """Return the solid, rotated about the x, y or z axis (0, 1, 2), counter-clockwise."""
    return Solid(solid.vertices @ rotation_matrix(axis, degrees).T, solid.faces)


def rotation_matrix(axis: int, degrees: float) -> np.ndarray:
    """Return the rotation about the x, y or z axis (0, 1, 2), (3, 3)."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = cos, -sin, sin, cos
    return matrix


def scaled(solid: Solid, factors: Point) -> Solid:
    """Return the solid, scaled along the axes by positive factors."""
    return Solid(solid.vertices * np.asarray(factors), solid.faces)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Return the triangles between neighbouring rows of points; rows are closed to rings."""
    row, column = np.mgrid[0 : rows - 1, 0:columns].reshape(2, -1)
    following = (column + 1) % columns
    a, b = row * columns + column, row * columns + following
    c, d = a + columns, b + columns
    return np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)])


def close_rings(rings: np.ndarray) -> Solid:
    """Connect a stack of rings, (R, C, 3), to a closed solid; the outer ones may be degenerate.

    Rings are counter-clockwise seen from the end of the stack.
    """
    count, columns = rings.shape[:2]
    vertices = np.concatenate([rings.reshape(-1, 3), rings[[0, -1]].mean(axis=1)])
    bottom_centre, top_centre = len(vertices) - 2, len(vertices) - 1
    ring = np.arange(columns)
    following, end = (ring + 1) % columns, (count - 1) * columns
    bottom = np.stack([following, ring, np.full(columns, bottom_centre)], -1)
    top = np.stack([end + ring, end + following, np.full(columns, top_centre)], -1)
    faces = np.concatenate([_grid_faces(count, columns), bottom, top])
    # merge equal vertices and drop the degenerate faces that result
    keys = np.round(vertices, 9) + 0.0
    _, first, same = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    a, b, c = (faces := same.reshape(-1)[faces]).T
    return Solid(vertices[first], faces[(a != b) & (b != c) & (c != a)])


def lathe(profile: Sequence[Point] | np.ndarray, segments: int = 28) -> Solid:
    """Rotate a profile, points (radius, z), about the z axis; the ends are closed.

    It leads upwards on the outside; a cup's continues downwards on its inside. Less than 9 segments
    give a prism or pyramid with a flat side in front.
    """
    points = np.asarray(profile, dtype=np.float64)
    angle = (np.arange(segments) + (0.5 if segments < 9 else 0.0)) / segments * 2 * np.pi
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    rings = np.empty((len(points), segments, 3))
    rings[..., :2] = points[:, None, :1] * circle
    rings[..., 2] = points[:, 1:]
    return close_rings(rings)


def rounded(points: Sequence[Point], radius: float, steps: int = 3) -> list[tuple[float, float]]:
    """Round the inner corners of an open 2D polyline with about this radius."""
    line = np.asarray(points, dtype=np.float64)
    out = [line[0]]
    for before, corner, after in zip(line[:-2], line[1:-1], line[2:], strict=True):
        back, on = before - corner, after - corner
        lengths = np.maximum(np.linalg.norm([back, on], axis=1), 1e-12)
        reach = np.minimum(radius / lengths, 0.45)[:, None]
        start, end = corner + reach * [back, on]
        for t in np.linspace(0, 1, steps):
            out.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    return [(float(p[0]), float(p[1])) for p in [*out, line[-1]]]


def cylinder(
    radius: float, height: float, top: float = 1.0, bevel: float = 0.12, segments: int = 28
) -> Solid:
    """Return a cylinder or cone about z; `top` and `bevel` (of the edges) relative to `radius`."""
    upper = max(radius * top, 1e-3 * radius)
    corners = [(0, -height / 2), (radius, -height / 2), (upper, height / 2), (0, height / 2)]
    size = bevel * min(radius, height / 2)
    return lathe(rounded(corners, size) if bevel > 0 else corners, segments)


def sphere(radius: float, segments: int = 24) -> Solid:
    """Return a sphere."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    return lathe(np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1), segments)


def ellipsoid(x: float, y: float, z: float, segments: int = 24) -> Solid:
    """Return an ellipsoid with these diameters."""
    return scaled(sphere(0.5, segments), (x, y, z))


def torus(radius: float, thickness: float, segments: int = 32, sides: int = 12) -> Solid:
    """Return a torus about z; `thickness` is the tube's radius."""
    around = np.arange(segments) / segments * 2 * np.pi
    tube = np.arange(sides) / sides * 2 * np.pi
    u, v = np.meshgrid(around, tube, indexing="ij")
    reach = radius + thickness * np.cos(v)
    points = np.stack([reach * np.cos(u), reach * np.sin(u), thickness * np.sin(v)], -1)
    faces = _grid_faces(segments + 1, sides) % (segments * sides)
    return Solid(points.reshape(-1, 3), faces[:, ::-1])


def superquadric(x: float, y: float, z: float, north: float, east: float) -> Solid:
    """Return a superellipsoid with these diameters; exponents below 1 are boxy, above 1 pointed."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 25)[:, None]
    longitude = (np.arange(40) / 40 * 2 * np.pi)[None]

    def power(value: np.ndarray, exponent: float) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    width = power(np.cos(latitude), north)
    width[[0, -1]] = 0.0
    height = power(np.sin(latitude), north) + 0 * longitude
    across, along = power(np.cos(longitude), east), power(np.sin(longitude), east)
    points = np.stack([width * across, width * along, height], -1)
    return close_rings(points * np.array([x, y, z]) / 2)


@lru_cache(maxsize=8)
def _rounded_cube(steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit directions (V, 3), signs of their corners (V, 3), and faces (F, 3)."""
    ticks = np.concatenate([np.linspace(-1, 0, steps + 1), np.linspace(0, 1, steps + 1)])
    side = np.concatenate([-np.ones(steps + 1), np.ones(steps + 1)])
    last = len(ticks) - 1
    index: dict[tuple[int, ...], int] = {}
    faces = []
    for axis in range(3):
        for end in (0, last):
            for i in range(last):
                for j in range(last):
                    quad = []
                    for p, q in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)):
                        key = [0, 0, 0]
                        key[axis], key[(axis + 1) % 3], key[(axis + 2) % 3] = end, p, q
                        quad.append(index.setdefault(tuple(key), len(index)))
                    a, b, c, d = quad if end else quad[::-1]
                    faces += [(a, b, c), (a, c, d)]
    keys = np.array(list(index))
    directions = np.tan(ticks[keys] * np.pi / 4)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return directions, side[keys], np.array(faces)


def box(x: float, y: float, z: float, bevel: float = 0.12, steps: int = 2) -> Solid:
    """Return a box; the radius of its edges is `bevel` times half its shortest side."""
    half = np.array([x, y, z]) / 2
    radius = min(max(bevel, 1e-3), 0.97) * half.min()
    directions, signs, faces = _rounded_cube(steps)
    return Solid(signs * (half - radius) + radius * directions, faces)


def tube(
    points: Sequence[Point], radii: float | Sequence[float], sides: int = 12, smooth: int = 4
) -> Solid:
    """Return a tube with round ends along a polyline; `radii` is one, or one for each point.

    `smooth` is the number of subdivisions of each segment, 1 keeps the corners.
    """
    path = np.asarray(points, dtype=np.float64)
    radius = np.broadcast_to(np.asarray(radii, dtype=np.float64), len(path))
    if smooth > 1:
        path, radius = _spline(np.column_stack([path, radius]), smooth)
    ahead = np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    sideways = np.eye(3)[np.abs(ahead[0]).argmin()]
    rings = []
    turn = np.arange(sides) / sides * 2 * np.pi
    for centre, size, forward in zip(path, radius, ahead, strict=True):
        sideways = sideways - forward * (sideways @ forward)
        sideways /= np.linalg.norm(sideways)
        other = np.cross(forward, sideways)
        rings.append((centre, size, forward, np.outer(np.cos(turn), sideways)
                      + np.outer(np.sin(turn), other)))  # fmt: skip
    stack = [centre + circle * size for centre, size, _, circle in rings]
    centre, size, forward, circle = rings[0]
    for t in (1.05, 0.5, 0.0):
        stack.insert(0, centre - forward * size * np.cos(t) + circle * size * np.sin(t))
    centre, size, forward, circle = rings[-1]
    for t in (1.05, 0.5, 0.0):
        stack.append(centre + forward * size * np.cos(t) + circle * size * np.sin(t))
    return close_rings(np.stack(stack))


def _spline(rows: np.ndarray, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Subdivide rows of (x, y, z, radius) by a Catmull-Rom spline."""
    padded = np.concatenate([2 * rows[:1] - rows[1:2], rows, 2 * rows[-1:] - rows[-2:-1]])
    t = (np.arange(pieces) / pieces)[:, None]
    out = []
    for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        out.append(b + (c - a) / 2 * t + (a - 2.5 * b + 2 * c - d / 2) * t**2
                   + (d - a + 3 * (b - c)) / 2 * t**3)  # fmt: skip
    line = np.concatenate([*out, rows[-1:]])
    return line[:, :3], np.maximum(line[:, 3], 1e-3)


def loft(
    stations: Sequence[Point], exponent: float = 1.0, sides: int = 24, smooth: int = 3
) -> Solid:
    """Return a solid along the x axis from cross sections (x, z, width, height), x growing.

    `exponent` is 1 for elliptic ones, less for boxy ones; `smooth` as in `tube`.
    """
    path, tall = _spline(np.asarray(stations, dtype=np.float64), smooth)
    rows = np.column_stack([path, tall])
    turn = (np.arange(sides) + 0.5) / sides * 2 * np.pi
    across = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** exponent
    upward = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** exponent
    x, z, width, height = np.maximum(rows, [-np.inf, -np.inf, 1e-3, 1e-3]).T[..., None]
    return close_rings(np.stack([x + 0 * across, width / 2 * across, z + height / 2 * upward], -1))


def to_manifold(solid: Solid) -> Manifold:
    """Convert a solid to a manifold3d object."""
    kernel = import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    vertices = np.ascontiguousarray(solid.vertices, dtype=np.float64)
    faces = np.ascontiguousarray(solid.faces, dtype=np.uint64)
    return kernel.Manifold(kernel.Mesh64(vertices, faces))


def from_manifold(shape: Manifold) -> Solid:
    """Convert a manifold3d object to a solid."""
    mesh = shape.to_mesh64()
    vertices = np.asarray(mesh.vert_properties)[:, :3].copy()
    return Solid(vertices, np.asarray(mesh.tri_verts).astype(np.int64))


def difference(solid: Solid, *tools: Solid) -> Solid:
    """Subtract the tools from the solid."""
    left = to_manifold(solid)
    for tool in tools:
        left = left - to_manifold(tool)
    return from_manifold(left)


def intersection(a: Solid, b: Solid) -> Solid:
    """Intersect two solids."""
    return from_manifold(to_manifold(a) ^ to_manifold(b))


def union(*solids: Solid) -> Solid:
    """Unite solids."""
    kernel = import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    parts = [to_manifold(solid) for solid in solids]
    return from_manifold(kernel.Manifold.batch_boolean(parts, kernel.OpType.Add))
