"""Colours and harmonious palettes, sRGB in [0, 1]."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

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
    """The colours of one toy.

    Attributes:
        main: of the largest part.
        second: of other large parts.
        accent: of small parts.
        dark: of feet, lines etc.
        light: of labels etc.
    """

    main: RGB
    second: RGB
    accent: RGB
    dark: RGB
    light: RGB


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
