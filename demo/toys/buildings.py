"""Houses, castles, towers of blocks."""

from __future__ import annotations

from demo.toys import materials, patterns
from demo.toys.booleans import difference
from demo.toys.decals import windows
from demo.toys.paint import Paint, Wrap
from demo.toys.palettes import BLACK, WHITE, mixed
from demo.toys.patterns import bricks, scales
from demo.toys.profiles import side_plate
from demo.toys.solids import Solid, box, cylinder, ellipsoid, lathe, rotated, rounded, translated
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
