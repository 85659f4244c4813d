"""Assemblies of simple shapes, Boolean combinations, superquadrics, letters, plates."""

from __future__ import annotations

import numpy as np

from demo.toys import materials, profiles
from demo.toys.booleans import difference, intersection, union
from demo.toys.paint import Paint, Wrap
from demo.toys.palettes import RGB
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    ellipsoid,
    rotated,
    sphere,
    superquadric,
    torus,
    translated,
)
from demo.toys.toy_builder import ToyBuilder


def _colour(toy: ToyBuilder) -> RGB:
    palette = toy.palette
    return toy.choice([palette.main, palette.main, palette.second, palette.accent, palette.light])


def _simple(toy: ToyBuilder, size: float) -> tuple[Solid, Wrap]:
    """Return a simple shape of about this size and the mapping of its texture."""
    kind = toy.integer(0, 7)
    x, y, z = (size * toy.uniform(0.6, 1.2) for _ in range(3))
    if kind <= 1:
        return box(x, y, z, bevel=toy.choice([0.08, 0.25, 0.6])), "box"
    if kind == 2:
        return ellipsoid(x, y, z), "sphere"
    if kind == 3:
        return cylinder(size * 0.5, z, toy.choice([1.0, 0.6, 0.03]), 0.1), "cylinder"
    if kind == 4:
        top = toy.choice([1.0, 0.5, 0.03])
        return cylinder(size * 0.55, z, top, 0.0, toy.integer(3, 8)), "cylinder"
    if kind == 5:
        return torus(size * 0.4, size * toy.uniform(0.12, 0.2)), "cylinder"
    if kind == 6:
        north, east = toy.choice([0.3, 1.0, 1.8]), toy.choice([0.3, 1.0, 1.8])
        return superquadric(x, y, z, north, east), "sphere"
    s = size / 3
    return union(box(x, s, s), box(s, y, s), box(s, s, z)), "box"


def assembly(toy: ToyBuilder) -> None:
    """Intersecting simple shapes, symmetric or not."""
    core, wrap = _simple(toy, toy.uniform(0.5, 0.7))
    toy.add(core, materials.surface(toy, toy.palette.main, 0.3, wrap))
    reach = np.ptp(core.vertices, axis=0) / 2
    pairs = toy.chance(0.6)
    for _ in range(toy.integer(2, 4)):
        solid, wrap = _simple(toy, toy.uniform(0.2, 0.42))
        look = materials.surface(toy, _colour(toy), 0.5, wrap)
        axis, sign = toy.integer(0, 2), toy.choice([-1, 1])
        place = reach * [toy.uniform(-0.4, 0.4) for _ in range(3)]
        place[axis] = sign * reach[axis] * 0.95
        spin = [(toy.integer(0, 2), toy.choice([0.0, 90.0]))]
        if pairs and axis == 1:
            mirrored = place * [1, -1, 1]
            toy.add(solid, look, tuple(place), tuple(mirrored), turn=spin)
        else:
            if pairs:
                place[1] = 0.0
            toy.add(solid, look, tuple(place), turn=spin)


def carved(toy: ToyBuilder) -> None:
    """A block with holes and slots, or the intersection of two shapes."""
    s = toy.uniform(0.7, 0.9)
    kind = toy.integer(0, 3)
    wrap: Wrap = "box"
    block = box(s, s, s * toy.uniform(0.6, 1.0), toy.choice([0.1, 0.3]))
    if kind == 1:
        block, wrap = sphere(s * 0.55, 32), "sphere"
    elif kind == 2:
        tall = s * toy.uniform(0.6, 1.1)
        block, wrap = cylinder(s / 2, tall, 1.0, 0.1, toy.choice([6, 8, 32])), "cylinder"
    radius = s * toy.uniform(0.16, 0.3)
    drill = cylinder(radius, 3.0, bevel=0.0, segments=toy.choice([4, 6, 28]))
    axes = [[2], [0, 1], [0, 1, 2], [0], [1, 2]][toy.integer(0, 4)]
    tools = [rotated(rotated(drill, 2, 45), {0: 1, 1: 0, 2: 2}[axis], 90.0) for axis in axes]
    if toy.chance(0.3):
        corner = [toy.choice([-1, 1]) * s * 0.5 for _ in range(2)]
        tools.append(translated(sphere(s * 0.45, 28), (abs(corner[0]), corner[1], s * 0.4)))
    solid = intersection(block, sphere(s * 0.62, 36)) if kind == 3 else block
    toy.add(difference(solid, *tools), materials.surface(toy, toy.palette.main, 0.35, wrap))
    if toy.chance(0.55):
        ball = sphere(radius * toy.uniform(1.02, 1.3))
        toy.add(ball, materials.surface(toy, toy.palette.accent, 0.5, "sphere"))
    elif 2 in axes and toy.chance(0.6):
        toy.add(cylinder(radius * 1.03, s * 1.5, 1.0, 0.2), toy.palette.second)


def superquadrics(toy: ToyBuilder) -> None:
    """One superquadric, a stack of them, or a cross of them."""
    count = toy.choice([1, 2, 3, 3])
    z, size = 0.0, toy.uniform(0.55, 0.75)
    for _ in range(count):
        tall = size * toy.uniform(0.6, 1.2) if count > 1 else size * toy.uniform(0.9, 1.6)
        across = size * toy.uniform(0.75, 1.2)
        solid = superquadric(size, across, tall, toy.uniform(0.2, 1.9), toy.uniform(0.2, 1.9))
        colour = _colour(toy)
        look = materials.surface(toy, colour, 0.25, toy.choice(["cylinder", "sphere"]))
        toy.add(solid, look, (0, 0, z + tall / 2))
        z, size = z + tall * 0.86, size * toy.uniform(0.6, 0.9)
    if toy.chance(0.3):
        wing = superquadric(0.3, 0.36, 0.3, toy.uniform(0.3, 1.5), toy.uniform(0.3, 1.5))
        y = 0.5 * (0.5 if count == 1 else 0.7)
        look = materials.surface(toy, toy.palette.accent, 0.5, "cylinder")
        toy.add(wing, look, (0, y, z * 0.35), (0, -y, z * 0.35))


def lettering(toy: ToyBuilder) -> None:
    """One letter or digit, two of them, or one on a block."""
    names = sorted(profiles.STROKES)
    count, pen = toy.choice([1, 1, 2]), toy.uniform(0.18, 0.25)
    thick = toy.uniform(0.25, 0.4)
    for k in range(count):
        solid = profiles.plate(profiles.letter(toy.choice(names), pen), thick, 0.025)
        look = materials.surface(toy, toy.palette.main if k == 0 else toy.palette.accent, 0.4)
        toy.add(solid, look, (0, 0.72 * (k - (count - 1) / 2), 0.5))
    if count == 2 or toy.chance(0.45):
        base = materials.surface(toy, toy.palette.second, 0.4)
        toy.add(box(thick * 1.5, 0.85 * count, 0.14, 0.4), base, (0, 0, -0.06))


def plates(toy: ToyBuilder) -> None:
    """A thick star, heart, arrow, cross, gear or moon, maybe on a foot or a stick."""
    kind = toy.integer(0, 6)
    profile = [
        lambda: profiles.star(toy.integer(4, 8), toy.uniform(0.4, 0.65)),
        profiles.heart,
        lambda: profiles.arrow(toy.uniform(0.25, 0.45), toy.uniform(0.35, 0.5)),
        lambda: profiles.cross(toy.uniform(0.25, 0.45)),
        lambda: profiles.gear(toy.integer(6, 10), toy.uniform(0.08, 0.13), toy.uniform(0.1, 0.2)),
        lambda: profiles.crescent(toy.uniform(0.16, 0.26)),
        profiles.heart,
    ][kind]()
    solid = profiles.plate(profile, toy.uniform(0.22, 0.42), 0.025)
    look = materials.surface(toy, toy.palette.main, 0.4)
    if toy.chance(0.2) and kind != 4:
        face = materials.decals.face(toy.integer(0, 5))
        look = Paint(look.first, decal=face, place=(0.5, 0.5, 0.26, 0.22))
    foot = toy.integer(0, 2)
    low = float(solid.vertices[:, 2].min())
    toy.add(solid, look)
    if foot == 1:
        toy.add(cylinder(0.34, 0.12, 0.85, 0.3), toy.palette.second, (0, 0, low - 0.02))
    elif foot == 2:
        toy.add(cylinder(0.05, 0.45, bevel=0.0, segments=16), toy.palette.light, (0, 0, low - 0.12))
        base = materials.surface(toy, toy.palette.second, 0.4, "cylinder")
        toy.add(cylinder(0.26, 0.1, 0.9, 0.3), base, (0, 0, low - 0.34))
