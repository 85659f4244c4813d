"""Boolean operations on solids, by manifold3d."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.optional import import_optional
from demo import REQUIREMENTS
from demo.toys.solids import Solid

if TYPE_CHECKING:
    from manifold3d import Manifold


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
