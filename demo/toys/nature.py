"""Trees, mushrooms, flowers and fruit."""

from __future__ import annotations

import numpy as np

from demo.toys import materials, patterns
from demo.toys.paint import Paint
from demo.toys.palettes import LEAF, WHITE, WOOD, mixed
from demo.toys.patterns import dots, gradient, vertical_stripes
from demo.toys.solids import cylinder, ellipsoid, lathe, rounded, scaled, sphere, translated, tube
from demo.toys.toy_builder import ToyBuilder

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
