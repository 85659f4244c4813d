"""Decals, as functions of the position on them, and random paints and decals for toys."""

from __future__ import annotations

import numpy as np

from demo.toys import patterns
from demo.toys.paint import BLACK, GLASS, LEAF, METAL, RGB, WHITE, WOOD, Decal, Paint, Wrap, mixed
from demo.toys.patterns import Pattern
from demo.toys.toy_builder import ToyBuilder


def _transparent(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((*shape, 3)), np.zeros(shape)


def _fill(image: tuple[np.ndarray, np.ndarray], where: np.ndarray, colour: RGB) -> None:
    image[0][where] = colour
    image[1][where] = 1.0


def face(kind: int, eye: RGB = BLACK, cheek: RGB = (0.95, 0.55, 0.5)) -> Decal:
    """A face; `kind` modulo 3: 0 smiles, 1 is surprised, 2 is calm; above 2 it has cheeks."""

    def decal(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = _transparent(x.shape)
        for side in (-1, 1):
            _fill(out, np.hypot(x - 0.45 * side, y - 0.35) < 0.26, WHITE)
            _fill(out, np.hypot(x - 0.42 * side, y - 0.33) < 0.17, eye)
            if kind > 2:
                _fill(out, np.hypot(x - 0.7 * side, (y + 0.2) * 1.3) < 0.2, cheek)
        radius = np.hypot(x, y + 0.1)
        if kind % 3 == 0:
            _fill(out, (np.abs(radius - 0.5) < 0.1) & (y < -0.3), BLACK)
        elif kind % 3 == 1:
            _fill(out, np.hypot(x, (y + 0.5)) < 0.2, (0.6, 0.12, 0.12))
        else:
            _fill(out, (np.abs(x) < 0.35) & (np.abs(y + 0.5) < 0.08), BLACK)
        return out

    return decal


def label(paper: RGB, ink: RGB, kind: int) -> Decal:
    """A label; `kind`: 0 a disc, 1 lines of text, 2 a cross, 3 a heart, 4 a sun, else a frame."""

    def decal(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = _transparent(x.shape)
        _fill(out, np.full(x.shape, True), paper)
        if kind == 0:
            _fill(out, np.hypot(x, y) < 0.6, ink)
        elif kind == 1:
            rows = (np.abs(x) < 0.75) & (np.abs((y * 2.2 + 10) % 1 - 0.5) < 0.22)
            _fill(out, rows & (np.abs(y) < 0.8), ink)
        elif kind == 2:
            _fill(out, ((np.abs(x) < 0.2) | (np.abs(y) < 0.2)) & (np.hypot(x, y) < 0.75), ink)
        elif kind == 3:
            p, q = 1.5 * x, 1.5 * y + 0.1
            _fill(out, (p**2 + q**2 - 1) ** 3 - p**2 * q**3 < 0, ink)
        elif kind == 4:
            rays = 0.55 + 0.2 * np.sign(np.cos(8 * np.arctan2(y, x)))
            _fill(out, np.hypot(x, y) < rays, ink)
        else:
            _fill(out, np.maximum(np.abs(x), np.abs(y)) > 0.8, ink)
        return out

    return decal


def windows(columns: int, rows: int, frame: RGB = WHITE, pane: RGB = GLASS) -> Decal:
    """Rows of framed windows, transparent between them."""

    def decal(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = _transparent(x.shape)
        a = np.abs(((x + 1) / 2 * columns) % 1 - 0.5)
        b = np.abs(((y + 1) / 2 * rows) % 1 - 0.5)
        _fill(out, (a < 0.36) & (b < 0.36), frame)
        _fill(out, (a < 0.28) & (b < 0.28), pane)
        return out

    return decal


def clock(dial: RGB, hand: RGB, hour: float) -> Decal:
    """A clock's dial with marks and two hands."""

    def decal(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out, radius = _transparent(x.shape), np.hypot(x, y)
        _fill(out, radius < 0.98, hand)
        _fill(out, radius < 0.85, dial)
        angle = np.arctan2(x, y) / (2 * np.pi) % 1
        marks = np.abs((angle * 12 + 0.5) % 1 - 0.5) < 0.15
        _fill(out, marks & (np.abs(radius - 0.7) < 0.1), hand)
        for turns, reach in ((hour / 12, 0.45), (hour % 1, 0.62)):
            along = x * np.sin(2 * np.pi * turns) + y * np.cos(2 * np.pi * turns)
            across = x * np.cos(2 * np.pi * turns) - y * np.sin(2 * np.pi * turns)
            _fill(out, (np.abs(across) < 0.1) & (along > -0.1) & (along < reach), hand)
        return out

    return decal


LATTICE_PATTERNS: tuple[Pattern, ...] = (
    patterns.checks, patterns.vertical_stripes, patterns.horizontal_stripes, patterns.dots,
    patterns.zigzag, patterns.diagonal_stripes, patterns.diamonds, patterns.tiles, patterns.bricks,
)  # fmt: skip


def surface(toy: ToyBuilder, colour: RGB, plain: float = 0.4, wrap: Wrap = "box") -> Paint:
    """Return a paint with this main colour and, less the probability `plain`, a random pattern."""
    roughness = toy.uniform(0.45, 1.0)
    if toy.chance(plain):
        return Paint(colour, roughness=roughness)
    palette = toy.palette
    other = toy.choice([c for c in (palette.second, palette.accent, palette.light) if c != colour])
    if toy.chance(0.2):
        other = mixed(colour, BLACK if toy.chance(0.5) else WHITE, 0.35)
    kind = toy.rng.random()
    if kind < 0.12:
        pattern: Pattern = patterns.gradient
    elif kind < 0.24:
        pattern = patterns.noise(toy.integer(0, 10**6), hard=toy.chance(0.4))
    elif kind < 0.42 and wrap != "box":
        low = toy.uniform(0.1, 0.45)
        pattern = patterns.bands(low, low + toy.uniform(0.12, 0.4))
    elif kind < 0.48:
        pattern = patterns.bands(toy.uniform(0.35, 0.65))
    else:
        pattern = toy.choice(LATTICE_PATTERNS)
    cell = toy.uniform(0.09, 0.24)
    return Paint(colour, other, pattern, wrap, cell, roughness=roughness)


def wood(toy: ToyBuilder, colour: RGB | None = None) -> Paint:
    """Return wood with a grain."""
    tone = toy.choice(WOOD) if colour is None else colour
    grain = patterns.noise(toy.integer(0, 10**6), stretch=6.0)
    dark = mixed(tone, BLACK, 0.35)
    return Paint(tone, dark, grain, "box", 0.05, roughness=0.8)


def material(toy: ToyBuilder, plain: float = 0.5) -> Paint:
    """Return wood, metal or a random paint, for furniture."""
    kind = toy.rng.random()
    if kind < 0.4:
        return wood(toy)
    if kind < 0.55:
        return Paint(toy.choice(METAL), roughness=0.4)
    return surface(toy, toy.choice([toy.palette.main, toy.palette.second]), plain)


def leaves(toy: ToyBuilder) -> Paint:
    """Return leaves, mostly green with blotches."""
    green = toy.choice(LEAF) if toy.chance(0.8) else toy.palette.main
    if toy.chance(0.3):
        return Paint(green, roughness=0.9)
    blots = patterns.noise(toy.integer(0, 10**6), hard=toy.chance(0.5))
    pale = mixed(green, WHITE, 0.3)
    return Paint(green, pale, blots, "sphere", 0.12, roughness=0.9)


def random_decal(toy: ToyBuilder) -> Decal:
    """Return a random label, face or clock."""
    palette, kind = toy.palette, toy.rng.random()
    if kind < 0.3:
        return face(toy.integer(0, 5))
    if kind < 0.4:
        return clock(palette.light, palette.dark, toy.uniform(0, 12))
    ink = toy.choice([palette.accent, palette.dark, palette.main])
    return label(palette.light, ink, toy.integer(0, 5))
