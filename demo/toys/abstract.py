"""Assemblies of simple shapes, what Boolean operations leave, superquadrics, letters, plates."""

from __future__ import annotations

import numpy as np

from demo.toys import materials
from demo.toys import profiles as o
from demo.toys.booleans import common, cut, join
from demo.toys.paint import Paint, Wrap
from demo.toys.palettes import RGB
from demo.toys.solids import (
    Solid,
    ball,
    box,
    cylinder,
    ellipsoid,
    moved,
    ring,
    superquadric,
    turned,
)
from demo.toys.toy import Toy


def _colour(toy: Toy) -> RGB:
    palette = toy.palette
    return toy.pick([palette.main, palette.main, palette.second, palette.accent, palette.light])


def _simple(toy: Toy, size: float) -> tuple[Solid, Wrap]:
    """A simple shape of about this size, and how it is wrapped in paint."""
    kind = toy.count(0, 7)
    x, y, z = (size * toy.between(0.6, 1.2) for _ in range(3))
    if kind <= 1:
        return box(x, y, z, bevel=toy.pick([0.08, 0.25, 0.6])), "box"
    if kind == 2:
        return ellipsoid(x, y, z), "ball"
    if kind == 3:
        return cylinder(size * 0.5, z, toy.pick([1.0, 0.6, 0.03]), 0.1), "turn"
    if kind == 4:
        return cylinder(size * 0.55, z, toy.pick([1.0, 0.5, 0.03]), 0.0, toy.count(3, 8)), "turn"
    if kind == 5:
        return ring(size * 0.4, size * toy.between(0.12, 0.2)), "turn"
    if kind == 6:
        return superquadric(x, y, z, toy.pick([0.3, 1.0, 1.8]), toy.pick([0.3, 1.0, 1.8])), "ball"
    return join(box(x, size / 3, size / 3), box(size / 3, y, size / 3),
                box(size / 3, size / 3, z)), "box"  # fmt: skip


def assembly(toy: Toy) -> None:
    """Simple shapes that grow out of one another, alike on the left and on the right or not."""
    core, wrap = _simple(toy, toy.between(0.5, 0.7))
    toy.add(core, materials.surface(toy, toy.palette.main, 0.3, wrap))
    reach = np.ptp(core.vertices, axis=0) / 2
    pairs = toy.chance(0.6)
    for _ in range(toy.count(2, 4)):
        solid, wrap = _simple(toy, toy.between(0.2, 0.42))
        look = materials.surface(toy, _colour(toy), 0.5, wrap)
        axis, sign = toy.count(0, 2), toy.pick([-1, 1])
        place = reach * [toy.between(-0.4, 0.4) for _ in range(3)]
        place[axis] = sign * reach[axis] * 0.95
        spin = [(toy.count(0, 2), toy.pick([0.0, 90.0]))]
        if pairs and axis == 1:
            mirrored = place * [1, -1, 1]
            toy.add(solid, look, tuple(place), tuple(mirrored), turn=spin)
        else:
            if pairs:
                place[1] = 0.0
            toy.add(solid, look, tuple(place), turn=spin)


def carved(toy: Toy) -> None:
    """A block with holes and slots, or what two shapes have in common."""
    s = toy.between(0.7, 0.9)
    kind = toy.count(0, 3)
    wrap: Wrap = "box"
    block = box(s, s, s * toy.between(0.6, 1.0), toy.pick([0.1, 0.3]))
    if kind == 1:
        block, wrap = ball(s * 0.55, 32), "ball"
    elif kind == 2:
        block, wrap = (
            cylinder(s / 2, s * toy.between(0.6, 1.1), 1.0, 0.1, toy.pick([6, 8, 32])),
            "turn",
        )
    tools: list[Solid] = []
    radius = s * toy.between(0.16, 0.3)
    drill = cylinder(radius, 3.0, bevel=0.0, segments=toy.pick([4, 6, 28]))
    axes = [[2], [0, 1], [0, 1, 2], [0], [1, 2]][toy.count(0, 4)]
    tools += [turned(turned(drill, 2, 45), {0: 1, 1: 0, 2: 2}[axis], 90.0) for axis in axes]
    if toy.chance(0.3):
        corner = [toy.pick([-1, 1]) * s * 0.5 for _ in range(2)]
        tools.append(moved(ball(s * 0.45, 28), (abs(corner[0]), corner[1], s * 0.4)))
    solid = common(block, ball(s * 0.62, 36)) if kind == 3 else block
    toy.add(cut(solid, *tools), materials.surface(toy, toy.palette.main, 0.35, wrap))
    if toy.chance(0.55):
        toy.add(
            ball(radius * toy.between(1.02, 1.3)),
            materials.surface(toy, toy.palette.accent, 0.5, "ball"),
        )
    elif 2 in axes and toy.chance(0.6):
        toy.add(cylinder(radius * 1.03, s * 1.5, 1.0, 0.2), toy.palette.second)


def superquadrics(toy: Toy) -> None:
    """One superquadric, a stack of them, or a cross of them."""
    count = toy.pick([1, 2, 3, 3])
    z, size = 0.0, toy.between(0.55, 0.75)
    for _ in range(count):
        tall = size * toy.between(0.6, 1.2) if count > 1 else size * toy.between(0.9, 1.6)
        solid = superquadric(size, size * toy.between(0.75, 1.2), tall, toy.between(0.2, 1.9),
                             toy.between(0.2, 1.9))  # fmt: skip
        toy.add(
            solid,
            materials.surface(toy, _colour(toy), 0.25, toy.pick(["turn", "ball"])),
            (0, 0, z + tall / 2),
        )
        z, size = z + tall * 0.86, size * toy.between(0.6, 0.9)
    if toy.chance(0.3):
        wing = superquadric(0.3, 0.36, 0.3, toy.between(0.3, 1.5), toy.between(0.3, 1.5))
        y = 0.5 * (0.5 if count == 1 else 0.7)
        toy.add(
            wing,
            materials.surface(toy, toy.palette.accent, 0.5, "turn"),
            (0, y, z * 0.35),
            (0, -y, z * 0.35),
        )


def lettering(toy: Toy) -> None:
    """One letter or digit, two of them, or one on a block."""
    names = sorted(o.STROKES)
    count, pen = toy.pick([1, 1, 2]), toy.between(0.18, 0.25)
    thick = toy.between(0.25, 0.4)
    for k in range(count):
        solid = o.plate(o.letter(toy.pick(names), pen), thick, 0.025)
        look = materials.surface(toy, toy.palette.main if k == 0 else toy.palette.accent, 0.4)
        toy.add(solid, look, (0, 0.72 * (k - (count - 1) / 2), 0.5))
    if count == 2 or toy.chance(0.45):
        base = materials.surface(toy, toy.palette.second, 0.4)
        toy.add(box(thick * 1.5, 0.85 * count, 0.14, 0.4), base, (0, 0, -0.06))


def plates(toy: Toy) -> None:
    """A star, heart, arrow, cross, gear or moon, thick, on a foot, on a stick, or stacked."""
    kind = toy.count(0, 6)
    outline = [
        lambda: o.star(toy.count(4, 8), toy.between(0.4, 0.65)), o.heart,
        lambda: o.arrow(toy.between(0.25, 0.45), toy.between(0.35, 0.5)),
        lambda: o.cross(toy.between(0.25, 0.45)),
        lambda: o.gear(toy.count(6, 10), toy.between(0.08, 0.13), toy.between(0.1, 0.2)),
        lambda: o.crescent(toy.between(0.16, 0.26)), o.heart,
    ][kind]()  # fmt: skip
    solid = o.plate(outline, toy.between(0.22, 0.42), 0.025)
    look = materials.surface(toy, toy.palette.main, 0.4)
    if toy.chance(0.2) and kind != 4:
        look = Paint(
            look.first,
            sticker=materials.decals.face(toy.count(0, 5)),
            place=(0.5, 0.5, 0.26, 0.22),
        )
    foot = toy.count(0, 2)
    low = float(solid.vertices[:, 2].min())
    toy.add(solid, look)
    if foot == 1:
        toy.add(cylinder(0.34, 0.12, 0.85, 0.3), toy.palette.second, (0, 0, low - 0.02))
    elif foot == 2:
        toy.add(cylinder(0.05, 0.45, bevel=0.0, segments=16), toy.palette.light, (0, 0, low - 0.12))
        base = materials.surface(toy, toy.palette.second, 0.4, "turn")
        toy.add(cylinder(0.26, 0.1, 0.9, 0.3), base, (0, 0, low - 0.34))
