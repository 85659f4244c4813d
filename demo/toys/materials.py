"""Random paints and decals for toys."""

from __future__ import annotations

from demo.toys import decals, palettes, patterns
from demo.toys.paint import Decal, Paint, Wrap
from demo.toys.palettes import RGB
from demo.toys.patterns import Pattern
from demo.toys.toy_builder import ToyBuilder

LATTICE_PATTERNS: tuple[Pattern, ...] = (
    patterns.checks,
    patterns.vertical_stripes,
    patterns.horizontal_stripes,
    patterns.dots,
    patterns.zigzag,
    patterns.diagonal_stripes,
    patterns.diamonds,
    patterns.tiles,
    patterns.bricks,
)


def surface(toy: ToyBuilder, colour: RGB, plain: float = 0.4, wrap: Wrap = "box") -> Paint:
    """Return a paint with this main colour and a random pattern.

    Args:
        toy: its random numbers and colours are used.
        colour: the first colour.
        plain: probability of no pattern.
        wrap: "cylinder" for solids of revolution about z, "sphere" for round ones, else "box".
    """
    roughness = toy.uniform(0.45, 1.0)
    if toy.chance(plain):
        return Paint(colour, roughness=roughness)
    palette = toy.palette
    others = [c for c in (palette.second, palette.accent, palette.light) if c != colour]
    other = toy.choice(others)
    if toy.chance(0.2):
        other = palettes.mixed(colour, palettes.BLACK if toy.chance(0.5) else palettes.WHITE, 0.35)
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
    tone = toy.choice(palettes.WOOD) if colour is None else colour
    grain = patterns.noise(toy.integer(0, 10**6), stretch=6.0)
    dark = palettes.mixed(tone, palettes.BLACK, 0.35)
    return Paint(tone, dark, grain, "box", 0.05, roughness=0.8)


def material(toy: ToyBuilder, plain: float = 0.5) -> Paint:
    """Return wood, metal or a random paint, for furniture."""
    kind = toy.rng.random()
    if kind < 0.4:
        return wood(toy)
    if kind < 0.55:
        return Paint(toy.choice(palettes.METAL), roughness=0.4)
    return surface(toy, toy.choice([toy.palette.main, toy.palette.second]), plain)


def leaves(toy: ToyBuilder) -> Paint:
    """Return leaves, mostly green with blotches."""
    green = toy.choice(palettes.LEAF) if toy.chance(0.8) else toy.palette.main
    if toy.chance(0.3):
        return Paint(green, roughness=0.9)
    blots = patterns.noise(toy.integer(0, 10**6), hard=toy.chance(0.5))
    pale = palettes.mixed(green, palettes.WHITE, 0.3)
    return Paint(green, pale, blots, "sphere", 0.12, roughness=0.9)


def random_decal(toy: ToyBuilder) -> Decal:
    """Return a random label, face or clock."""
    palette, kind = toy.palette, toy.rng.random()
    if kind < 0.3:
        return decals.face(toy.integer(0, 5))
    if kind < 0.4:
        return decals.clock(palette.light, palette.dark, toy.uniform(0, 12))
    ink = toy.choice([palette.accent, palette.dark, palette.main])
    return decals.label(palette.light, ink, toy.integer(0, 5))
