"""How colours and patterns are put on solids as small textures.

Everything has a texture, plain colours too: textures are sRGB wherever they are read, whereas
glTF's colour factors are linear, which not all readers know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from demo.toys.palettes import RGB, WHITE
from demo.toys.patterns import Lattice, Motif

Sticker = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(x, y), each within [-1, 1] on the sticker -> colours (..., 3) and coverage, 0 to 1."""

Wrap = Literal["box", "turn", "ball"]
"""How a picture is put on a solid. "box": on each of six sides, as seen from outside; "turn":
around the z axis and up, as on a can; "ball": around the z axis and by latitude, as on a globe."""


@dataclass(frozen=True)
class Paint:
    """What a solid is painted with.

    Attributes:
        first: colour.
        second: the motif's colour.
        motif: none for a plain colour.
        wrap: how the picture is put on.
        cell: size of a cell of the motif, as a share of the solid's longest side.
        sticker: put on the front (+x), or on all four sides of a box.
        place: of the sticker, in shares of the front: centre to the right, centre upwards, half
            its width, half its height.
        everywhere: the sticker is on all four upright sides of a box.
        roughness: as in glTF, 0 to 1.
    """

    first: RGB
    second: RGB = WHITE
    motif: Motif | None = None
    wrap: Wrap = "box"
    cell: float = 0.2
    sticker: Sticker | None = None
    place: tuple[float, float, float, float] = field(default=(0.5, 0.5, 0.35, 0.35))
    everywhere: bool = False
    roughness: float = 0.7


CELL, MARGIN, TURN = 40, 1.5, (144, 72)
"""Texels of a side of a box, of which this many around it are never reached by interpolation;
texels around and up a column."""
OVERLAP = 0.25
"""Turns that a texture goes on at both of its ends, so that no triangle is cut at the seam."""
SIDES = ((1, 1, 2, 1), (1, -1, 2, 1), (0, -1, 2, 1), (0, 1, 2, 1), (1, 1, 0, -1), (1, 1, 0, 1))
"""Of the sides +x, -x, +y, -y, +z, -z: axis and sign of what is right, and of what is up."""


def texture(paint: Paint, size: np.ndarray) -> np.ndarray:
    """Draw the texture for a solid.

    Args:
        paint: what is drawn.
        size: sides of the solid's bounding box, (3,).

    Returns:
        uint8, (H, W, 3), the first row on top.
    """
    if paint.motif is None and paint.sticker is None:
        return _bytes(np.broadcast_to(np.array(paint.first), (4, 4, 3)))
    if paint.wrap != "box":
        columns, rows = TURN
        u = (np.arange(columns) + 0.5) / columns * (1 + 2 * OVERLAP) - OVERLAP
        u, v = np.meshgrid(u, (np.arange(rows) + 0.5) / rows)
        width = np.pi * max(size[0], size[1])
        height = size[2] if paint.wrap == "turn" else width / 2
        image = _motif(paint, u % 1.0, v, width, height, size.max(), even=True)
        if paint.sticker is not None:
            image = _stuck(paint, image, ((u + 0.5) % 1.0 - 0.5) * np.pi + 0.5, v)
        return _bytes(image[::-1])
    line = (np.arange(CELL) + 0.5 - MARGIN) / (CELL - 2 * MARGIN)
    u, v = np.meshgrid(line, line)
    sides = []
    for side, (right, _, up, _) in enumerate(SIDES):
        image = _motif(paint, u, v, size[right], size[up], size.max(), even=False)
        if paint.sticker is not None and (side == 0 or (paint.everywhere and side < 4)):
            image = _stuck(paint, image, u, v)
        sides.append(image)
    return _bytes(np.concatenate(sides, axis=1)[::-1])


def _motif(paint: Paint, u: np.ndarray, v: np.ndarray, width: float, height: float, longest: float,
           even: bool) -> np.ndarray:  # fmt: skip
    colours = np.array([paint.first, paint.second])
    if paint.motif is None:
        return np.broadcast_to(colours[0], (*u.shape, 3))
    n = max(round(width / longest / paint.cell), 1)
    m = max(round(height / longest / paint.cell), 1)
    if even:
        n = max(2 * round(n / 2), 2)
    share = np.clip(paint.motif(Lattice(u * n, v * m, n, m)), 0, 1)[..., None]
    return colours[0] * (1 - share) + colours[1] * share


def _stuck(paint: Paint, image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    assert paint.sticker is not None
    right, up, half_width, half_height = paint.place
    x, y = (u - right) / half_width, (v - up) / half_height
    colours, cover = paint.sticker(x, y)
    cover = np.where((np.abs(x) <= 1) & (np.abs(y) <= 1), cover, 0.0)[..., None]
    return image * (1 - cover) + colours * cover


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def coordinates(paint: Paint, corners: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Where the corners of triangles are on the texture.

    Args:
        paint: as given to `texture`.
        corners: (F, 3, 3).
        normals: of the triangles, (F, 3).

    Returns:
        (F, 3, 2) in [0, 1], v upwards.
    """
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    share = (corners - low) / np.maximum(high - low, 1e-9)
    if paint.motif is None and paint.sticker is None:
        return np.full((*corners.shape[:2], 2), 0.5)
    if paint.wrap != "box":
        x, y = np.moveaxis(corners[..., :2] - (low + high)[:2] / 2, -1, 0)
        middle = np.arctan2(y.mean(axis=1), x.mean(axis=1)) / (2 * np.pi) % 1.0
        turn = np.arctan2(y, x) / (2 * np.pi)
        turn = middle[:, None] + (turn - middle[:, None] + 0.5) % 1.0 - 0.5
        radius, v = np.hypot(x, y), share[..., 2]
        if paint.wrap == "ball":
            v = np.arctan2(2 * v - 1, radius / radius.max()) / np.pi + 0.5
        on_axis = radius < 1e-3 * (high - low).max()
        u = np.where(on_axis, middle[:, None], turn)
        u = (u + OVERLAP) / (1 + 2 * OVERLAP)
        return np.clip(np.stack([u, v], -1), 0, 1)
    axis = np.abs(normals).argmax(axis=1)
    side = 2 * axis + (normals[np.arange(len(axis)), axis] < 0)
    plan = np.array(SIDES)[side]
    uv = np.stack(
        [_along(share, plan[:, 0], plan[:, 1]), _along(share, plan[:, 2], plan[:, 3])], -1
    )
    uv = (uv * (CELL - 2 * MARGIN) + MARGIN) / CELL
    uv[..., 0] = (uv[..., 0] + side[:, None]) / 6
    return uv


def _along(share: np.ndarray, axis: np.ndarray, sign: np.ndarray) -> np.ndarray:
    value = np.take_along_axis(share, axis[:, None, None], axis=2)[..., 0]
    return np.where(sign[:, None] > 0, value, 1 - value)
