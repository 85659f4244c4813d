"""Boolean operations on solids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.optional import import_optional
from demo import REQUIREMENTS
from demo.toys.solids import Solid

if TYPE_CHECKING:
    from manifold3d import Manifold


def manifold(solid: Solid) -> Manifold:
    """The solid as manifold3d's."""
    kernel = import_optional("manifold3d", "making toys", REQUIREMENTS)
    return kernel.Manifold(
        kernel.Mesh64(
            np.ascontiguousarray(solid.vertices, dtype=np.float64),
            np.ascontiguousarray(solid.faces, dtype=np.uint64),
        )
    )


def from_manifold(shape: Manifold) -> Solid:
    """What is left of a Boolean operation."""
    mesh = shape.to_mesh64()
    return Solid(
        np.asarray(mesh.vert_properties)[:, :3].copy(), np.asarray(mesh.tri_verts).astype(np.int64)
    )


def cut(solid: Solid, *tools: Solid) -> Solid:
    """Take the tools away from the solid."""
    left = manifold(solid)
    for tool in tools:
        left = left - manifold(tool)
    return from_manifold(left)


def common(a: Solid, b: Solid) -> Solid:
    """What is in both."""
    return from_manifold(manifold(a) ^ manifold(b))


def join(*solids: Solid) -> Solid:
    """All of them as one."""
    kernel = import_optional("manifold3d", "making toys", REQUIREMENTS)
    return from_manifold(
        kernel.Manifold.batch_boolean([manifold(s) for s in solids], kernel.OpType.Add)
    )
