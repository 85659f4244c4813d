"""Points that are spread evenly over a mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from multiview.rasterise import Fragments

if TYPE_CHECKING:
    from trimesh import Trimesh

PLASTIC = 1.32471795724474602596
"""The real root of x^3 = x + 1."""


def spread_evenly(mesh: Trimesh, count: int) -> Fragments:
    """`count` points: each face has its share of the area, to one point, in the faces' order.

    Inside faces the points follow the R2 sequence (Roberts, The unreasonable effectiveness of
    quasirandom sequences, 2018), folded into the triangle.
    """
    numbers, area = np.arange(count), np.cumsum(mesh.area_faces)
    faces = np.searchsorted(area, (numbers + 0.5) / count * area[-1])
    square = (0.5 + numbers[:, None] * [1 / PLASTIC, 1 / PLASTIC**2]) % 1
    square = np.where(square.sum(axis=1, keepdims=True) > 1, 1 - square, square)
    weights = np.column_stack([1 - square.sum(axis=1), square])
    return Fragments(numbers, faces, weights, np.zeros(count))
