"""Colours, palettes, paint, and the texture of a solid with its texture coordinates.

Colours are sRGB in [0, 1]. Plain ones are textures too: every reader takes textures as sRGB, but
not every reader knows that glTF's colour factors are linear.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from demo.toys.patterns import Lattice, Pattern

RGB = tuple[float, float, float]

WOOD: list[RGB] = [(0.72, 0.52, 0.32), (0.55, 0.36, 0.2), (0.83, 0.67, 0.45), (0.42, 0.27, 0.16)]
METAL: list[RGB] = [(0.62, 0.64, 0.67), (0.48, 0.5, 0.53), (0.78, 0.79, 0.8), (0.7, 0.57, 0.3)]
LEAF: list[RGB] = [(0.25, 0.55, 0.22), (0.16, 0.42, 0.2), (0.5, 0.66, 0.25), (0.75, 0.45, 0.15)]
RUBBER: RGB = (0.12, 0.12, 0.13)
GLASS: RGB = (0.55, 0.75, 0.86)
BLACK: RGB = (0.07, 0.07, 0.08)
WHITE: RGB = (0.95, 0.95, 0.93)


@dataclass(frozen=True)
class Palette:
    """The colours of one toy."""

    main: RGB  # of the largest part
    second: RGB  # of other large parts
    accent: RGB  # of small parts
    dark: RGB  # of feet, lines etc.
    light: RGB  # of labels etc.


def hsv(hue: float, saturation: float, value: float) -> RGB:
    """Convert HSV to RGB; the hue is in turns and wraps, the others are clipped to [0, 1]."""
    saturation, value = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def make_palette(rng: np.random.Generator) -> Palette:
    """Return a random palette: analogous, complementary or triadic hues, in one style."""
    hue = rng.random()
    step = (0.07, 0.12, 0.33, 0.5, 0.45, 0.0)[int(rng.integers(6))]
    sign = 1 if rng.random() < 0.5 else -1
    style = rng.random()
    saturation, value = 0.65 + 0.3 * rng.random(), 0.7 + 0.28 * rng.random()
    if style < 0.22:  # pastel
        saturation, value = 0.25 + 0.2 * rng.random(), 0.88 + 0.1 * rng.random()
    elif style < 0.36:  # earth
        saturation, value = 0.35 + 0.25 * rng.random(), 0.45 + 0.3 * rng.random()
    elif style < 0.42:  # grey
        saturation, value = 0.08 * rng.random(), 0.35 + 0.5 * rng.random()
    main = hsv(hue, saturation, value)
    second = hsv(hue + sign * step, saturation * (0.5 + 0.5 * rng.random()), value + 0.1)
    if rng.random() < 0.3:
        second = hsv(hue, 0.1 * rng.random(), 0.88 + 0.08 * rng.random())
    elif rng.random() < 0.12:
        main, second = second, main
    accent = hsv(hue + sign * (step + 0.3 + 0.3 * rng.random()), 0.75 + 0.2 * rng.random(), 0.9)
    dark = hsv(hue + 0.1, 0.3 * rng.random() + 0.2, 0.16 + 0.16 * rng.random())
    light = hsv(hue, 0.04 + 0.1 * rng.random(), 0.94)
    return Palette(main, second, accent, dark, light)


def mixed(a: RGB, b: RGB, share: float) -> RGB:
    """Interpolate two colours; share 0 gives a, 1 gives b."""
    red, green, blue = (p + (q - p) * share for p, q in zip(a, b, strict=True))
    return red, green, blue


Decal = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(x, y) on the decal, within [-1, 1] -> colours (..., 3) and opacity, 0 to 1."""

Wrap = Literal["box", "cylinder", "sphere"]
"""Mapping of the texture. "box": one image for each of six sides, seen from outside; "cylinder":
around the z axis and upwards, as on a can; "sphere": by longitude and latitude, as on a globe."""


@dataclass(frozen=True)
class Paint:
    """Colours, pattern, decal and roughness of a solid.

    `place` is the decal's, in shares of the front: centre to the right, centre upwards, half its
    width, half its height.
    """

    first: RGB  # main colour
    second: RGB = WHITE  # the pattern's other colour
    pattern: Pattern | None = None  # None for a plain colour
    wrap: Wrap = "box"  # mapping of the texture
    cell: float = 0.2  # size of a pattern's cell, relative to the solid's longest side
    decal: Decal | None = None  # on the front (+x)
    place: tuple[float, float, float, float] = (0.5, 0.5, 0.35, 0.35)
    all_sides: bool = False  # the decal is on all four upright sides of a box
    roughness: float = 0.7  # as in glTF, 0 to 1


BOX_TEXELS = 40
"""Texels along an edge of a box's side."""
BOX_MARGIN = 1.5
"""Texels around a box's side that interpolation never reaches."""
CYLINDER_TEXELS = (144, 72)
"""Texels around and along a cylinder or sphere."""
SEAM_OVERLAP = 0.25
"""Turns by which a cylinder's texture continues at both ends: no triangle is cut at the seam."""
BOX_SIDES = ((1, 1, 2, 1), (1, -1, 2, 1), (0, -1, 2, 1), (0, 1, 2, 1), (1, 1, 0, -1), (1, 1, 0, 1))
"""For the sides +x, -x, +y, -y, +z, -z: axis and sign of the right, axis and sign of up."""


def make_texture(paint: Paint, size: np.ndarray) -> np.ndarray:
    """Make the texture of a solid whose bounding box has this size, uint8, (H, W, 3)."""
    if paint.pattern is None and paint.decal is None:
        return _bytes(np.broadcast_to(np.array(paint.first), (4, 4, 3)))
    if paint.wrap != "box":
        columns, rows = CYLINDER_TEXELS
        u = (np.arange(columns) + 0.5) / columns * (1 + 2 * SEAM_OVERLAP) - SEAM_OVERLAP
        u, v = np.meshgrid(u, (np.arange(rows) + 0.5) / rows)
        width = np.pi * max(size[0], size[1])
        height = size[2] if paint.wrap == "cylinder" else width / 2
        image = _pattern_colours(paint, u % 1.0, v, (width, height, size.max()), even=True)
        if paint.decal is not None:
            image = _apply_decal(paint, image, ((u + 0.5) % 1.0 - 0.5) * np.pi + 0.5, v)
        return _bytes(image[::-1])
    line = (np.arange(BOX_TEXELS) + 0.5 - BOX_MARGIN) / (BOX_TEXELS - 2 * BOX_MARGIN)
    u, v = np.meshgrid(line, line)
    sides = []
    for side, (right, _, up, _) in enumerate(BOX_SIDES):
        image = _pattern_colours(paint, u, v, (size[right], size[up], size.max()), even=False)
        if paint.decal is not None and (side == 0 or (paint.all_sides and side < 4)):
            image = _apply_decal(paint, image, u, v)
        sides.append(image)
    return _bytes(np.concatenate(sides, axis=1)[::-1])


def _pattern_colours(
    paint: Paint, u: np.ndarray, v: np.ndarray, sizes: tuple[float, float, float], even: bool
) -> np.ndarray:
    """Colour points of a side whose width and height, and the solid's longest side, are given."""
    width, height, longest = sizes
    colours = np.array([paint.first, paint.second])
    if paint.pattern is None:
        return np.broadcast_to(colours[0], (*u.shape, 3))
    n = max(round(width / longest / paint.cell), 1)
    m = max(round(height / longest / paint.cell), 1)
    if even:
        n = max(2 * round(n / 2), 2)
    share = np.clip(paint.pattern(Lattice(u * n, v * m, n, m)), 0, 1)[..., None]
    return colours[0] * (1 - share) + colours[1] * share


def _apply_decal(paint: Paint, image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    assert paint.decal is not None
    right, up, half_width, half_height = paint.place
    x, y = (u - right) / half_width, (v - up) / half_height
    colours, cover = paint.decal(x, y)
    cover = np.where((np.abs(x) <= 1) & (np.abs(y) <= 1), cover, 0.0)[..., None]
    return image * (1 - cover) + colours * cover


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def texture_coordinates(paint: Paint, corners: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return corners' texture coordinates, (F, 3, 2) in [0, 1], v upwards.

    Triangles have corners (F, 3, 3) and normals (F, 3).
    """
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    share = (corners - low) / np.maximum(high - low, 1e-9)
    if paint.pattern is None and paint.decal is None:
        return np.full((*corners.shape[:2], 2), 0.5)
    if paint.wrap != "box":
        x, y = np.moveaxis(corners[..., :2] - (low + high)[:2] / 2, -1, 0)
        middle = np.arctan2(y.mean(axis=1), x.mean(axis=1)) / (2 * np.pi) % 1.0
        turn = np.arctan2(y, x) / (2 * np.pi)
        turn = middle[:, None] + (turn - middle[:, None] + 0.5) % 1.0 - 0.5
        radius, v = np.hypot(x, y), share[..., 2]
        if paint.wrap == "sphere":
            v = np.arctan2(2 * v - 1, radius / radius.max()) / np.pi + 0.5
        on_axis = radius < 1e-3 * (high - low).max()
        u = np.where(on_axis, middle[:, None], turn)
        u = (u + SEAM_OVERLAP) / (1 + 2 * SEAM_OVERLAP)
        return np.clip(np.stack([u, v], -1), 0, 1)
    axis = np.abs(normals).argmax(axis=1)
    side = 2 * axis + (normals[np.arange(len(axis)), axis] < 0)
    plan = np.array(BOX_SIDES)[side]
    uv = np.stack([_along(share, *plan.T[:2]), _along(share, *plan.T[2:])], -1)
    uv = (uv * (BOX_TEXELS - 2 * BOX_MARGIN) + BOX_MARGIN) / BOX_TEXELS
    uv[..., 0] = (uv[..., 0] + side[:, None]) / 6
    return uv


def _along(share: np.ndarray, axis: np.ndarray, sign: np.ndarray) -> np.ndarray:
    value = np.take_along_axis(share, axis[:, None, None], axis=2)[..., 0]
    return np.where(sign[:, None] > 0, value, 1 - value)
