"""Random paints: what toys of all kinds are painted with."""

from __future__ import annotations

from demo.toys import decals, palettes, patterns
from demo.toys.paint import Paint, Sticker, Wrap
from demo.toys.palettes import RGB
from demo.toys.patterns import Motif
from demo.toys.toy import Toy

FLAT_MOTIFS: tuple[Motif, ...] = (
    patterns.checks, patterns.uprights, patterns.levels, patterns.dots, patterns.zigzag,
    patterns.diagonal, patterns.diamonds, patterns.lines, patterns.bricks,
)  # fmt: skip


def surface(toy: Toy, colour: RGB, plain: float = 0.4, wrap: Wrap = "box") -> Paint:
    """A paint with this main colour.

    Args:
        toy: for its random numbers and colours.
        colour: the first colour.
        plain: how often it is without a pattern.
        wrap: "turn" for columns about z, "ball" for what is round all over, "box" for all else.
    """
    roughness = toy.between(0.45, 1.0)
    if toy.chance(plain):
        return Paint(colour, roughness=roughness)
    palette = toy.palette
    others = [c for c in (palette.second, palette.accent, palette.light) if c != colour]
    other = toy.pick(others)
    if toy.chance(0.2):
        other = palettes.mixed(colour, palettes.BLACK if toy.chance(0.5) else palettes.WHITE, 0.35)
    kind = toy.rng.random()
    if kind < 0.12:
        motif: Motif = patterns.gradient
    elif kind < 0.24:
        motif = patterns.noise(toy.count(0, 10**6), hard=toy.chance(0.4))
    elif kind < 0.42 and wrap != "box":
        low = toy.between(0.1, 0.45)
        motif = patterns.bands(low, low + toy.between(0.12, 0.4))
    elif kind < 0.48:
        motif = patterns.bands(toy.between(0.35, 0.65))
    else:
        motif = toy.pick(FLAT_MOTIFS)
    cell = toy.between(0.09, 0.24)
    return Paint(colour, other, motif, wrap, cell, roughness=roughness)


def wood(toy: Toy, colour: RGB | None = None) -> Paint:
    """Wood with its grain."""
    tone = toy.pick(palettes.WOOD) if colour is None else colour
    grain = patterns.noise(toy.count(0, 10**6), stretch=6.0)
    return Paint(
        tone, palettes.mixed(tone, palettes.BLACK, 0.35), grain, "box", 0.05, roughness=0.8
    )


def material(toy: Toy, plain: float = 0.5) -> Paint:
    """What furniture is made of: wood, metal, or something painted."""
    kind = toy.rng.random()
    if kind < 0.4:
        return wood(toy)
    if kind < 0.55:
        return Paint(toy.pick(palettes.METAL), roughness=0.4)
    return surface(toy, toy.pick([toy.palette.main, toy.palette.second]), plain)


def leaves(toy: Toy) -> Paint:
    """Leaves of a tree: blotted green, mostly."""
    green = toy.pick(palettes.LEAF) if toy.chance(0.8) else toy.palette.main
    if toy.chance(0.3):
        return Paint(green, roughness=0.9)
    blots = patterns.noise(toy.count(0, 10**6), hard=toy.chance(0.5))
    return Paint(
        green, palettes.mixed(green, palettes.WHITE, 0.3), blots, "ball", 0.12, roughness=0.9
    )


def mark(toy: Toy) -> Sticker:
    """A label, a face or a dial."""
    palette, kind = toy.palette, toy.rng.random()
    if kind < 0.3:
        return decals.face(toy.count(0, 5))
    if kind < 0.4:
        return decals.clock(palette.light, palette.dark, toy.between(0, 12))
    ink = toy.pick([palette.accent, palette.dark, palette.main])
    return decals.label(palette.light, ink, toy.count(0, 5))
