"""Houses, castles, towers of blocks, trees, mushrooms, flowers and fruit."""

from __future__ import annotations

import numpy as np

from demo.toys import materials, patterns
from demo.toys.materials import windows
from demo.toys.paint import BLACK, LEAF, WHITE, WOOD, Paint, Wrap, mixed
from demo.toys.patterns import bricks, dots, gradient, scales, vertical_stripes
from demo.toys.profiles import side_plate
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    difference,
    ellipsoid,
    lathe,
    rotated,
    rounded,
    scaled,
    sphere,
    translated,
    tube,
)
from demo.toys.toy_builder import ToyBuilder


def _gable(long: float, wide: float, tall: float) -> Solid:
    """Return a roof with its ridge along y; its gables face +y and -y, or +x if rotated."""
    return side_plate([(-wide / 2, 0), (wide / 2, 0), (0, tall)], long, 0.012)


def house(toy: ToyBuilder) -> None:
    """A house with windows, a door, a roof and a chimney."""
    palette = toy.palette
    w, d, h = toy.uniform(0.55, 0.9), toy.uniform(0.5, 0.75), toy.uniform(0.35, 0.7)
    rows = 1 if h < 0.5 else 2
    pattern = bricks if toy.chance(0.35) else None
    wall = toy.choice([palette.main, palette.light, palette.second])
    pane = windows(toy.integer(2, 3), rows, WHITE if toy.chance(0.6) else palette.dark)
    walls = Paint(wall, mixed(wall, WHITE, 0.5), pattern, cell=0.13, decal=pane,
                  place=(0.5, 0.56, 0.44, 0.36), all_sides=True)  # fmt: skip
    toy.add(box(d, w, h, 0.03), walls, (0, 0, h / 2))
    colour = toy.choice([(0.7, 0.25, 0.18), palette.accent, palette.dark, (0.35, 0.36, 0.4)])
    tiles = Paint(colour, mixed(colour, BLACK, 0.35), scales, cell=0.12, roughness=0.9)
    up, over = toy.uniform(0.22, 0.45), 0.12
    kind = toy.integer(0, 3)
    if kind == 0:
        reach = 0.5 * (w + over) * 2**0.5
        roof = cylinder(reach, up, 0.05 if toy.chance(0.6) else 0.55, 0.0, 4)
        roof = Solid(roof.vertices * [(d + over) / (w + over), 1, 1], roof.faces)
        toy.add(roof, tiles, (0, 0, h + up / 2 - 0.005))
    elif kind == 1:
        toy.add(_gable(d + over, w + over, up), tiles, (0, 0, h - 0.01), turn=[(2, 90)])
    elif kind == 2:
        toy.add(_gable(w + over, d + over, up), tiles, (0, 0, h - 0.01))
    else:
        toy.add(box(d + over, w + over, 0.08, 0.2), tiles, (0, 0, h + 0.03))
        up = 0.05
    if kind < 3 and toy.chance(0.7):
        toy.add(box(0.1, 0.1, up), Paint((0.6, 0.3, 0.25)), (-d * 0.18, w * 0.22, h + up * 0.7))
    door, tall = toy.choice([palette.accent, palette.dark, (0.45, 0.28, 0.15)]), min(0.3, h * 0.6)
    toy.add(box(0.05, 0.16, tall, 0.2), door, (d / 2, 0, tall / 2))
    toy.add(box(0.16, 0.26, 0.04), (0.6, 0.6, 0.6), (d / 2 + 0.05, 0, 0.02))
    if toy.chance(0.4):
        toy.add(box(d + 0.35, w + 0.35, 0.04, 0.5), (0.4, 0.62, 0.3), (0, 0, -0.015))


def castle(toy: ToyBuilder) -> None:
    """A castle with corner towers; a lighthouse; or a windmill."""
    palette = toy.palette
    stone = toy.choice([palette.light, (0.66, 0.64, 0.6), palette.second])
    kind = toy.integer(0, 2)
    tip = toy.choice([palette.accent, palette.main])
    if kind == 0:
        wall = Paint(stone, mixed(stone, BLACK, 0.25), bricks, cell=0.15)
        size, h = toy.uniform(0.5, 0.62), toy.uniform(0.3, 0.42)
        block = box(size, size, h, 0.03)
        gate = translated(box(0.3, 0.16, h * 0.7), (size / 2, 0, -h * 0.2))
        toy.add(difference(block, gate), wall, (0, 0, h / 2))
        tower = h * toy.uniform(1.3, 1.8)
        spots = [(x * size / 2, y * size / 2) for x in (-1, 1) for y in (-1, 1)]
        r = toy.uniform(0.1, 0.14)
        look = Paint(wall.first, wall.second, bricks, "cylinder", 0.2)
        toy.add(cylinder(r, tower, 1.0, 0.0, 20), look, *[(x, y, tower / 2) for x, y in spots])
        tops = [(x, y, tower + r * 1.08) for x, y in spots]
        toy.add(cylinder(r * 1.3, r * 2.2, 0.02, 0.0, 20), tip, *tops)
        if toy.chance(0.7):
            toy.add(cylinder(r * 1.4, tower * 1.3, 1.0, 0.0, 24), wall.first, (0, 0, tower * 0.65))
            toy.add(cylinder(r * 1.8, r * 2.6, 0.02, 0.0, 24), tip, (0, 0, tower * 1.3 + r * 1.28))
        else:
            tooth = box(0.08, 0.08, 0.1)
            steps, y = [(k / 2 - 0.5) * size * 0.6 for k in (0, 1, 2)], size / 2 - 0.04
            toy.add(tooth, wall.first, *[(s * y, x, h + 0.04) for x in steps for s in (-1, 1)])
            toy.add(tooth, wall.first, *[(x, s * y, h + 0.04) for x in steps for s in (-1, 1)])
        return
    h, r = toy.uniform(0.75, 0.95), toy.uniform(0.17, 0.24)
    cell, pattern = toy.uniform(0.12, 0.25), patterns.horizontal_stripes
    stripes = Paint(palette.main, palette.light, pattern, "cylinder", cell)
    if kind == 2:
        stripes = materials.surface(toy, stone, 0.5, "cylinder")
    toy.add(cylinder(r * 1.2, h, 0.68, 0.02, 28 if kind == 1 else 8), stripes, (0, 0, h / 2))
    toy.add(box(0.06, 0.14, 0.24, 0.2), palette.dark, (r * 1.14, 0, 0.12))
    if kind == 1:
        toy.add(cylinder(r * 1.15, 0.05, bevel=0.2), palette.dark, (0, 0, h))
        toy.add(cylinder(r * 0.6, 0.2, bevel=0.0), (0.98, 0.9, 0.5), (0, 0, h + 0.1))
        toy.add(cylinder(r * 0.85, 0.16, 0.05, 0.0), tip, (0, 0, h + 0.27))
        toy.add(cylinder(r * 2, 0.08, 0.9, 0.5, 14), (0.5, 0.5, 0.47), (0, 0, 0.03))
        return
    toy.add(ellipsoid(r * 1.9, r * 1.9, r * 1.5), tip, (0, 0, h))
    blades, spin = toy.uniform(0.3, 0.45), toy.uniform(0, 90)
    x, z = r * 1.0, h * 0.98
    toy.add(rotated(cylinder(0.05, 0.2, segments=14), 1, 90), palette.dark, (x * 0.9, 0, z))
    for k in range(4):
        blade = translated(box(0.025, 0.12, blades, 0.2), (0, 0.03, blades / 2 + 0.04))
        look = Paint(palette.light, palette.dark, patterns.tiles, cell=0.12)
        toy.add(blade, look, (x + 0.06, 0, z), turn=[(0, spin + 90 * k)])


def blocks(toy: ToyBuilder) -> None:
    """A tower or a gate of building blocks."""
    palette = toy.palette
    colours = [palette.main, palette.second, palette.accent, palette.light, palette.dark]

    def look(wrap: Wrap = "box") -> Paint:
        return materials.surface(toy, toy.choice(colours), 0.6, wrap)

    z = 0.0
    if toy.chance(0.4):
        gap, tall = toy.uniform(0.3, 0.45), toy.uniform(0.35, 0.55)
        pillar = toy.chance(0.5)
        solid = cylinder(0.12, tall, bevel=0.1) if pillar else box(0.24, 0.24, tall, 0.15)
        paint = look("cylinder" if pillar else "box")
        toy.add(solid, paint, (0, gap, tall / 2), (0, -gap, tall / 2))
        toy.add(box(0.28, 2 * gap + 0.3, 0.16, 0.15), look(), (0, 0, tall + 0.075))
        z = tall + 0.15
    count = toy.integer(2, 4) if z == 0 else toy.integer(1, 2)
    for k in range(count):
        s, t = toy.uniform(0.24, 0.42) * (1.2 - 0.15 * k), toy.uniform(0.16, 0.34)
        x, y = toy.uniform(-0.05, 0.05), toy.uniform(-0.06, 0.06)
        kind, spin = toy.integer(0, 3), [(2, toy.uniform(-30, 30))]
        if kind == 0:
            toy.add(cylinder(s / 2, t, bevel=0.1), look("cylinder"), (x, y, z + t / 2))
        elif kind == 1:
            mark = Paint(toy.choice(colours[:3]), decal=materials.random_decal(toy), all_sides=True,
                         place=(0.5, 0.5, 0.36, 0.36))  # fmt: skip
            t = s
            toy.add(box(s, s, s, 0.2), mark, (x, y, z + s / 2), turn=spin)
        else:
            solid = box(s, s * toy.uniform(0.9, 1.6), t, 0.15)
            toy.add(solid, look(), (x, y, z + t / 2), turn=spin)
        z += t - 0.004
    kind = toy.integer(0, 3)
    if kind == 0:
        cone = cylinder(0.2, 0.32, 0.03, 0.0, toy.choice([4, 28]))
        toy.add(cone, look("cylinder"), (0, 0, z + 0.155))
    elif kind == 1:
        toy.add(_gable(0.3, 0.45, 0.22), look(), (0, 0, z - 0.01), turn=[(2, 90)])
    elif kind == 2:
        hole = translated(rotated(cylinder(0.15, 1, bevel=0.0), 1, 90), (0, 0, -0.125))
        toy.add(difference(box(0.2, 0.5, 0.25, 0.1), hole), look(), (0, 0, z + 0.12))
    else:
        dome = rounded([(0, -0.02), (0.2, -0.02), (0.2, 0.1), (0.12, 0.22), (0, 0.25)], 0.1, 5)
        toy.add(lathe(dome), look("cylinder"), (0, 0, z + 0.015))


GREEN = (0.3, 0.58, 0.25)


def tree(toy: ToyBuilder) -> None:
    """A fir, a round tree, a palm, or a cactus."""
    kind, palette = toy.integer(0, 3), toy.palette
    bark = materials.wood(toy, WOOD[toy.choice([1, 3])])
    h = toy.uniform(0.3, 0.55)
    if kind == 0:
        look, count = materials.leaves(toy), toy.integer(2, 4)
        toy.add(cylinder(0.08, h, 0.9, 0.0, 14), bark, (0, 0, h / 2))
        r, z = toy.uniform(0.32, 0.42), h * 0.8
        sides = toy.choice([24, 24, 8])
        for _ in range(count):
            tall = r * 1.15
            toy.add(cylinder(r, tall, 0.04, 0.03, sides), look, (0, 0, z + tall / 2))
            z, r = z + tall * 0.55, r * 0.76
        if toy.chance(0.3):
            toy.add(sphere(0.07, 12), (0.98, 0.85, 0.3), (0, 0, z + r * 0.75))
            toy.add_around(sphere(0.045, 10), palette.accent, 7, 0.3, h * 0.95)
    elif kind == 1:
        look = materials.leaves(toy)
        toy.add(tube([(0, 0, 0), (0.02, 0.02, h * 0.6), (0, 0, h)], [0.1, 0.07, 0.06], 12), bark)
        for k in range(toy.integer(1, 6)):
            r = toy.uniform(0.2, 0.32) * (1.25 if k == 0 else 0.8)
            angle, reach = 2.4 * k, 0.0 if k == 0 else toy.uniform(0.14, 0.26)
            place = (reach * np.cos(angle), reach * np.sin(angle), h + 0.2 + toy.uniform(-0.1, 0.2))
            toy.add(sphere(r, 20), look, place)
            if toy.chance(0.3):
                toy.add(sphere(0.05, 10), palette.accent, (place[0] + r, place[1], place[2]))
    elif kind == 2:
        h, lean = toy.uniform(0.65, 0.85), toy.uniform(-0.2, 0.2)
        toy.add(tube([(0, 0, 0), (0, lean * 0.3, h * 0.5), (0, lean, h)], [0.09, 0.06, 0.05]), bark)
        count, drop, reach = toy.integer(5, 8), toy.uniform(0.05, 0.25), toy.uniform(0.34, 0.46)
        start = toy.uniform(0, 60)
        for k in range(count):
            line = [(0.02, 0, 0), (reach * 0.5, 0, 0.1), (reach, 0, -drop)]
            leaf = tube(line, [0.03, 0.09, 0.02], 10)
            flat, turn = scaled(leaf, (1, 1, 0.6)), [(2, start + 360 * k / count)]
            toy.add(flat, LEAF[k % 2], (0, lean, h + 0.02), turn=turn)
        places = [(0.06, lean, h - 0.03), (-0.05, lean + 0.05, h - 0.03)]
        toy.add(sphere(0.06, 12), (0.4, 0.26, 0.14), *places)
    else:
        skin = Paint(GREEN, mixed(GREEN, WHITE, 0.35), vertical_stripes, "cylinder", 0.09)
        r, h = toy.uniform(0.12, 0.16), toy.uniform(0.65, 0.85)
        column = [(0, 0), (r, 0), (r, h * 0.9), (r * 0.6, h), (0, h)]
        toy.add(lathe(rounded(column, 0.1, 5)), skin, (0, 0, 0.16))
        for side in (-1, 1):
            z, out = 0.16 + h * toy.uniform(0.3, 0.55), side * toy.uniform(0.25, 0.3)
            arm = [(0.0, 0.0, z), (0.0, out * 0.8, z + 0.01), (0, out, z + 0.1), (0, out, z + 0.3)]
            toy.add(tube(arm, 0.075), GREEN)
        pot = [(0, 0), (0.16, 0), (0.22, 0.18), (0.25, 0.18), (0.25, 0.25), (0, 0.25)]
        toy.add(lathe(rounded(pot, 0.02)), materials.surface(toy, palette.main, 0.4, "cylinder"))
        toy.add(sphere(0.07, 12), palette.accent, (0, 0, 0.17 + h))


def mushroom(toy: ToyBuilder) -> None:
    """One to three mushrooms, or a potted flower."""
    palette = toy.palette
    if toy.chance(0.4):
        pot = [(0, 0), (0.18, 0), (0.25, 0.24), (0.29, 0.24), (0.29, 0.32), (0, 0.32)]
        toy.add(lathe(rounded(pot, 0.03)), materials.surface(toy, palette.second, 0.3, "cylinder"))
        h = toy.uniform(0.7, 0.9)
        toy.add(tube([(0, 0, 0.2), (0.02, 0, 0.5), (0, 0, h)], 0.03, 10), GREEN)
        petal, count = toy.choice([palette.main, palette.accent]), toy.integer(5, 9)
        size = toy.uniform(0.16, 0.24)
        facing = ellipsoid(0.07, size * 0.75, size)
        for k in range(count):
            upright = translated(facing, (0, 0, size * 0.75))
            toy.add(upright, petal, (0.03, 0, h), turn=[(0, 360 * k / count)])
        toy.add(ellipsoid(0.12, 0.2, 0.2), (0.95, 0.75, 0.2), (0.06, 0, h))
        for side in (-1, 1):
            leaf = ellipsoid(0.14, 0.3, 0.05)
            toy.add(leaf, GREEN, (0, side * 0.14, 0.46), turn=[(0, side * 30)])
        return
    cap = palette.main if toy.chance(0.6) else (0.82, 0.16, 0.12)
    pattern = dots if toy.chance(0.7) else gradient
    spots = Paint(cap, WHITE, pattern, "sphere", toy.uniform(0.2, 0.32))
    count = toy.choice([1, 1, 2, 3])
    if count > 1 or toy.chance(0.3):
        toy.add(ellipsoid(0.75, 1.0 if count > 1 else 0.7, 0.12), GREEN)
    for k in range(count):
        s = 1.0 if k == 0 else toy.uniform(0.35, 0.6)
        y, x = (0.0, 0.0) if k == 0 else ((-1) ** k * 0.34, toy.uniform(0, 0.15))
        h, r = s * toy.uniform(0.4, 0.6), s * toy.uniform(0.3, 0.44)
        stem = rounded([(0, 0), (0.15 * s, 0), (0.09 * s, h * 0.5), (0.1 * s, h), (0, h)], 0.1, 5)
        toy.add(lathe(stem, 22), (0.93, 0.88, 0.78), (x, y, 0))
        dome = [(0, -0.02), (r * 0.9, -0.02), (r, 0.0), (r * 0.85, r * 0.55), (0, r * 0.9)]
        toy.add(lathe(rounded(dome, 0.2 * s, 6), 30), spots, (x, y, h - 0.03))


def fruit(toy: ToyBuilder) -> None:
    """An apple, a pear, a pumpkin, a strawberry, a carrot or a pineapple."""
    palette, kind = toy.palette, toy.integer(0, 4)
    colour = toy.choice([(0.82, 0.14, 0.14), (0.55, 0.72, 0.2), (0.95, 0.75, 0.2), palette.main])
    if kind in (0, 1):
        waist = 0.62 if kind == 1 else 1.0
        tall = waist**0.5
        shape = [(0, 0.06), (0.2, 0), (0.4, 0.25), (0.4 * waist, 0.55)]
        shape += [(0.2 * waist, 0.72 / tall), (0, 0.62 / tall)]
        blush = mixed(colour, toy.choice([(0.9, 0.3, 0.15), (0.95, 0.85, 0.3)]), 0.7)
        skin = Paint(colour, blush, gradient, "cylinder", roughness=0.4)
        toy.add(lathe(rounded(shape, 0.18, 7), 32), skin)
        z = shape[-1][1]
    elif kind == 2:
        colour = toy.choice([(0.93, 0.5, 0.1), colour])
        squash, count = toy.uniform(0.6, 0.9), toy.integer(7, 10)
        rib = ellipsoid(0.42, 0.34, 0.8 * squash, 18)
        toy.add_around(rib, colour, count, 0.25, 0.4 * squash)
        toy.add(ellipsoid(0.4, 0.4, 0.7 * squash), colour, (0, 0, 0.4 * squash))
        z = 0.72 * squash
    elif kind == 3:
        shape = [(0, 0), (0.08, 0.02), (0.33, 0.45), (0.3, 0.6), (0.1, 0.66), (0, 0.66)]
        seeds = Paint(colour, (0.97, 0.88, 0.5), dots, "sphere", 0.2)
        toy.add(lathe(rounded(shape, 0.15, 6)), seeds)
        z = 0.64
    else:
        skin = Paint((0.85, 0.62, 0.2), (0.55, 0.35, 0.12), patterns.diamonds, "sphere", 0.1)
        toy.add(ellipsoid(0.52, 0.52, 0.75), skin, (0, 0, 0.37))
        z = 0.68
    if kind >= 3:
        for k in range(9):
            line = [(0, 0, 0), (0.08, 0, 0.12), (0.2, 0, 0.16 + 0.04 * (k % 3))]
            toy.add(tube(line, [0.05, 0.045, 0.01], 8), LEAF[k % 2], (0, 0, z), turn=[(2, 40 * k)])
        return
    stalk = [(0, 0, z - 0.05), (0.02, 0.02, z + 0.1), (0.02, 0.07, z + 0.2)]
    toy.add(tube(stalk, [0.035, 0.03, 0.04], 10), (0.4, 0.3, 0.15))
    if toy.chance(0.6):
        toy.add(ellipsoid(0.14, 0.3, 0.04), GREEN, (0.03, -0.13, z + 0.13), turn=[(0, -25)])
