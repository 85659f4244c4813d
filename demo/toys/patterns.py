"""Two-colour patterns on a lattice."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Lattice(NamedTuple):
    """Points on a lattice of n x m cells."""

    a: np.ndarray  # 0 to n, to the right
    b: np.ndarray  # 0 to m, upwards
    n: int  # cells in a row; the period of patterns around a cylinder
    m: int


Pattern = Callable[[Lattice], np.ndarray]
"""Lattice -> share of the second colour at each point, 0 to 1."""


def checks(at: Lattice) -> np.ndarray:
    """Chessboard."""
    return (np.floor(at.a) + np.floor(at.b)) % 2


def vertical_stripes(at: Lattice) -> np.ndarray:
    """Vertical stripes."""
    return np.floor(at.a) % 2


def horizontal_stripes(at: Lattice) -> np.ndarray:
    """Horizontal stripes."""
    return np.floor(at.b) % 2


def dots(at: Lattice) -> np.ndarray:
    """Dots in staggered rows."""
    shift = at.a + 0.5 * (np.floor(at.b) % 2)
    return (np.hypot(shift % 1 - 0.5, at.b % 1 - 0.5) < 0.33).astype(float)


def zigzag(at: Lattice) -> np.ndarray:
    """Horizontal zigzag stripes."""
    return np.floor(at.b + np.abs(at.a % 2 - 1)) % 2


def diagonal_stripes(at: Lattice) -> np.ndarray:
    """Diagonal stripes; a spiral around a cylinder."""
    return np.floor(at.a + at.b) % 2


def diamonds(at: Lattice) -> np.ndarray:
    """Lozenges."""
    return (np.floor((at.a + at.b) / 2 + 0.5) + np.floor((at.a - at.b) / 2 + 0.5)) % 2


def tiles(at: Lattice) -> np.ndarray:
    """Thin lines between square tiles."""
    return ((at.a % 1 < 0.14) | (at.b % 1 < 0.14)).astype(float)


def bricks(at: Lattice) -> np.ndarray:
    """Joints of a brick wall."""
    row = np.floor(2 * at.b)
    return (((at.a + 0.5 * (row % 2)) % 1 < 0.1) | ((2 * at.b) % 1 < 0.2)).astype(float)


def scales(at: Lattice) -> np.ndarray:
    """Overlapping rows of arcs, like roof tiles or fish scales."""
    x, y = at.a + 0.5 * (np.floor(at.b) % 2), at.b % 1
    return (np.hypot(x % 1 - 0.5, (y - 1) * 0.9) > 0.62).astype(float) + 0.35 * y


def noise(seed: int, stretch: float = 1.0, hard: bool = False) -> Pattern:
    """Return value noise of two octaves; thresholded if hard, stretched horizontally."""
    table = np.random.Generator(np.random.PCG64([seed, 77])).random((64, 64))

    def pattern(at: Lattice) -> np.ndarray:
        out, period = np.zeros_like(at.a), max(at.n, 1)
        for octave, weight in ((1, 0.65), (2, 0.35)):
            x, y = at.a * octave / stretch, at.b * octave
            wrap = max(round(period * octave / stretch), 1)
            i, j = np.floor(x).astype(int), np.floor(y).astype(int)
            s, t = x - i, y - j
            s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
            i, following = i % wrap % 64, (i + 1) % wrap % 64
            low = table[i, j % 64] * (1 - s) + table[following, j % 64] * s
            high = table[i, (j + 1) % 64] * (1 - s) + table[following, (j + 1) % 64] * s
            out = out + weight * (low * (1 - t) + high * t)
        return (out > 0.52).astype(float) if hard else np.clip(1.6 * out - 0.3, 0, 1)

    return pattern


def gradient(at: Lattice) -> np.ndarray:
    """Vertical gradient from the first colour to the second."""
    return at.b / at.m


def bands(*edges: float) -> Pattern:
    """Return horizontal bands that change colour at these shares of the height."""

    def pattern(at: Lattice) -> np.ndarray:
        return np.searchsorted(np.array(edges), at.b / at.m).astype(float) % 2

    return pattern
