"""Furniture, lamps, clocks, cakes, hats, tools and gadgets."""

from __future__ import annotations

from demo.toys import materials, patterns
from demo.toys.materials import clock
from demo.toys.paint import GLASS, METAL, WHITE, Paint, mixed
from demo.toys.patterns import dots, vertical_stripes
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    difference,
    ellipsoid,
    lathe,
    pair,
    rotated,
    rounded,
    sphere,
    torus,
    translated,
    tube,
    union,
)
from demo.toys.toy_builder import ToyBuilder


def _leg(toy: ToyBuilder, height: float, width: float) -> Solid:
    """Return a leg that stands on z = 0: square, round or tapered."""
    kind = toy.integer(0, 2)
    if kind == 0:
        return translated(box(width, width, height), (0, 0, height / 2))
    taper = 1.0 if kind == 1 else 1.7
    return translated(cylinder(width / 2, height, taper, 0.1, 14), (0, 0, height / 2))


def _corners(x: float, y: float, z: float = 0.0) -> list[tuple[float, float, float]]:
    return [(x, y, z), (x, -y, z), (-x, y, z), (-x, -y, z)]


def chair(toy: ToyBuilder) -> None:
    """A chair with a back of a board, bars or slats, with or without arms."""
    w, d = toy.uniform(0.45, 0.6), toy.uniform(0.42, 0.58)
    h, up, t = toy.uniform(0.35, 0.55), toy.uniform(0.4, 0.75), toy.uniform(0.05, 0.1)
    frame = materials.material(toy)
    cushion = materials.surface(toy, toy.palette.main, 0.35)
    leg = toy.uniform(0.05, 0.09)
    toy.add(_leg(toy, h + t * 0.4, leg), frame, *_corners(d / 2 - leg / 2, w / 2 - leg / 2))
    toy.add(box(d, w, t, 0.5), cushion if toy.chance(0.6) else frame, (0, 0, h + t / 2))
    back, base = -d / 2 + 0.03, h + t * 0.7
    kind = toy.integer(0, 2)
    if kind == 0:
        toy.add(box(0.06, w, up, 0.6), cushion, (back, 0, base + up / 2), turn=[(1, -4)])
    else:
        toy.add(box(0.06, 0.07, up), frame, *pair(back, w / 2 - 0.035, base + up / 2))
        toy.add(box(0.07, w, up * 0.25, 0.5), cushion, (back, 0, base + up * 0.88))
        if kind == 1:
            places = [(back, (k / 4 - 0.5) * w, base + up * 0.42) for k in (1, 2, 3)]
            toy.add(box(0.035, 0.05, up * 0.86), frame, *places)
        else:
            toy.add(box(0.04, w * 0.95, up * 0.15), frame, *[(back, 0, base + up * k)
                                                             for k in (0.22, 0.52)])  # fmt: skip
    if toy.chance(0.3):
        for side in (-1, 1):
            y = side * (w / 2 - 0.02)
            toy.add(box(d, 0.07, 0.06, 0.5), frame, (0, y, h + 0.25))
            toy.add(box(0.06, 0.06, 0.26), frame, (d / 2 - 0.06, y, h + 0.13))


def table(toy: ToyBuilder) -> None:
    """A round or a square table with four legs, a column, or cheeks."""
    w, d, h = toy.uniform(0.7, 1.1), toy.uniform(0.55, 0.85), toy.uniform(0.4, 0.75)
    t, wide = toy.uniform(0.05, 0.1), toy.uniform(0.07, 0.12)
    frame, top = materials.material(toy), materials.material(toy, 0.3)
    kind = toy.integer(0, 3)
    if kind == 0:
        r = w / 2
        toy.add(cylinder(r, t, bevel=0.4, segments=36), top, (0, 0, h))
        toy.add(cylinder(wide * 0.6, h, 1.0, 0.0), frame, (0, 0, h / 2))
        toy.add(cylinder(r * 0.6, t, 0.8, 0.3), frame, (0, 0, t / 2))
    else:
        toy.add(box(d, w, t, 0.5), top, (0, 0, h))
        if kind == 1:
            toy.add(box(d * 0.85, wide * 0.7, h), frame, *pair(0, w * 0.42, h / 2))
            toy.add(box(0.06, w * 0.84, 0.08), frame, (0, 0, h * 0.35))
        else:
            toy.add(_leg(toy, h, wide), frame, *_corners(d / 2 - wide / 2, w / 2 - wide / 2))
            if kind == 2:
                toy.add(box(d * 0.86, w * 0.88, 0.1), frame, (0, 0, h - t / 2 - 0.04))
    if toy.chance(0.45):  # something stands on it
        r, x, y = toy.uniform(0.08, 0.14), toy.uniform(-0.1, 0.1), toy.uniform(-0.15, 0.15)
        profile = [(0, 0), (r * 0.6, 0), (r, r * 1.2), (r * 0.5, r * 2.4), (0, r * 2.4)]
        look = materials.surface(toy, toy.palette.accent, 0.4, "cylinder")
        toy.add(lathe(rounded(profile, 0.1), 20), look, (x, y, h + t / 2 - 0.005))


def stool(toy: ToyBuilder) -> None:
    """A round seat on slanting legs."""
    r, h, count = toy.uniform(0.26, 0.4), toy.uniform(0.45, 0.8), toy.integer(3, 4)
    frame = materials.material(toy)
    thick = toy.uniform(0.07, 0.18)
    seat = materials.surface(toy, toy.palette.main, 0.3, "cylinder")
    toy.add(cylinder(r, thick, bevel=0.8, segments=32), seat, (0, 0, h))
    foot = r * toy.uniform(0.9, 1.3)
    leg = tube([(foot, 0, 0), (r * 0.6, 0, h - thick / 3)], toy.uniform(0.03, 0.05), 12, 1)
    toy.add_around(leg, frame, count, 0.0, 0.0, 180 / count)
    if toy.chance(0.6):
        reach = (foot + r * 0.6) / 2
        disc = cylinder(reach + 0.02, 0.04, bevel=0.0)
        hoop = difference(disc, cylinder(reach - 0.02, 0.08, bevel=0.0))
        toy.add(hoop, frame, (0, 0, h * 0.48))


def shelf(toy: ToyBuilder) -> None:
    """A bookcase with books, or a chest of drawers."""
    w, d, h = toy.uniform(0.5, 0.95), toy.uniform(0.25, 0.42), toy.uniform(0.6, 1.2)
    case, t = materials.material(toy, 0.7), 0.05
    rows = toy.integer(2, 4)
    if toy.chance(0.35):
        toy.add(box(d, w, h, 0.1), case, (0, 0, h / 2 + 0.06))
        toy.add(_leg(toy, 0.1, 0.07), case, *_corners(d / 2 - 0.05, w / 2 - 0.05))
        front = materials.surface(toy, toy.palette.second, 0.6)
        for k in range(rows):
            z = 0.06 + h * (k + 0.5) / rows
            toy.add(box(0.04, w * 0.9, h / rows * 0.82, 0.3), front, (d / 2, 0, z))
            toy.add(sphere(0.032, 12), toy.palette.accent, (d / 2 + 0.03, -w * 0.2, z),
                    (d / 2 + 0.03, w * 0.2, z))  # fmt: skip
        return
    toy.add(box(d, t, h), case, (0, w / 2 - t / 2, h / 2), (0, -w / 2 + t / 2, h / 2))
    toy.add(box(t / 2, w - t, h - t / 2), case, (-d / 2 + t / 4, 0, h / 2))
    for k in range(rows + 1):
        toy.add(box(d - 0.005, w - t, t), case, (0, 0, t / 2 + (h - t) * k / rows))
    colours = [toy.palette.main, toy.palette.second, toy.palette.accent, toy.palette.dark]
    room = (h - t) / rows - t
    for k in range(rows):
        y, z = -w / 2 + t + 0.01, t + (h - t) * k / rows
        end = w / 2 - t - toy.uniform(0, 0.35 * w)
        while True:
            wide = toy.uniform(0.05, 0.12)
            if y + wide > end:
                break
            tall = room * toy.uniform(0.6, 0.95)
            toy.add(box(d * 0.75, wide * 0.94, tall, 0.2, 1), toy.choice(colours),
                    (0.0, y + wide / 2, z + tall / 2 - 0.004))  # fmt: skip
            y += wide


def sofa(toy: ToyBuilder) -> None:
    """A sofa or an armchair with cushions."""
    w, d, h = toy.uniform(0.6, 1.3), toy.uniform(0.5, 0.65), toy.uniform(0.2, 0.3)
    cloth = materials.surface(toy, toy.palette.main, 0.5)
    soft = toy.uniform(0.3, 0.9)
    arm, up = toy.uniform(0.1, 0.2), toy.uniform(0.3, 0.5)
    toy.add(box(d, w, h, 0.3), cloth, (0, 0, h / 2 + 0.07))
    toy.add(box(0.2, w, h + up, soft, 3), cloth, (-d / 2 + 0.05, 0, (h + up) / 2 + 0.07))
    tall = h + up * toy.uniform(0.35, 0.7)
    places = pair(0, (w + arm - 0.04) / 2, tall / 2 + 0.07)
    toy.add(box(d + 0.04, arm, tall, soft, 3), cloth, *places)
    count = 1 if w < 0.75 else toy.integer(2, 3)
    cushion = materials.surface(toy, toy.palette.second, 0.5)
    wide = w / count
    for k in range(count):
        toy.add(box(d - 0.1, wide * 0.98, 0.13, 0.7, 3), cushion,
                (0.07, (k + 0.5) * wide - w / 2, h + 0.11))  # fmt: skip
    if toy.chance(0.5):
        pillow = materials.surface(toy, toy.palette.accent, 0.3)
        y = toy.choice([-1, 1]) * (w / 2 - 0.14)
        toy.add(box(0.1, 0.24, 0.24, 1.0, 3), pillow, (-0.05, y, h + 0.28), turn=[(1, -18)])
    toy.add(cylinder(0.04, 0.1, bevel=0.0, segments=12), toy.palette.dark,
            *_corners(d / 2 - 0.06, w / 2 - 0.03, 0.05))  # fmt: skip


def bed(toy: ToyBuilder) -> None:
    """A bed with its head at the back."""
    w, d, h = toy.uniform(0.5, 0.85), toy.uniform(0.95, 1.15), toy.uniform(0.16, 0.28)
    frame = materials.material(toy)
    toy.add(box(d, w, 0.1, 0.3), frame, (0, 0, h))
    toy.add(_leg(toy, h, 0.09), frame, *_corners(d / 2 - 0.05, w / 2 - 0.05))
    up = toy.uniform(0.3, 0.5)
    toy.add(box(0.07, w + 0.05, h + up, 0.5), frame, (-d / 2 - 0.02, 0, (h + up) / 2))
    if toy.chance(0.5):
        toy.add(box(0.07, w + 0.05, h + 0.22, 0.5), frame, (d / 2 + 0.02, 0, (h + 0.22) / 2))
    toy.add(box(d * 0.97, w * 0.96, 0.14, 0.6, 3), WHITE, (0, 0, h + 0.1))
    cover = materials.surface(toy, toy.palette.main, 0.2)
    long = d * toy.uniform(0.5, 0.7)
    toy.add(box(long, w * 1.02, 0.16, 0.6, 3), cover, ((d - long) / 2 - 0.005, 0, h + 0.115))
    count = 2 if w > 0.65 else 1
    pillow = toy.palette.light if toy.chance(0.5) else toy.palette.second
    for k in range(count):
        place = (-d / 2 + 0.17, (k + 0.5 - count / 2) * w / count, h + 0.2)
        toy.add(box(0.2, w / count * 0.8, 0.1, 0.9, 3), pillow, place)


def lamp(toy: ToyBuilder) -> None:
    """A lamp with a shade, for a table or for the floor."""
    h, r = toy.uniform(0.5, 1.2), toy.uniform(0.2, 0.32)
    metal = Paint(toy.choice([*METAL, toy.palette.dark, toy.palette.second]), roughness=0.4)
    shade_height = toy.uniform(0.22, 0.42)
    toy.add(cylinder(r * 0.75, 0.07, 0.7, 0.5), metal, (0, 0, 0.035))
    if h < 0.7:
        b = toy.uniform(0.11, 0.2)
        foot = [(0, 0), (b * 0.7, 0.03), (b, h * 0.35), (b * 0.35, h * 0.75), (0, h * 0.8)]
        look = materials.surface(toy, toy.palette.main, 0.3, "cylinder")
        toy.add(lathe(rounded(foot, 0.2)), look, (0, 0, 0.03))
    rod = h + shade_height * 0.4 - 0.03
    toy.add(cylinder(0.03, rod, 1.0, 0.0, 14), metal, (0, 0, rod / 2))
    top, wall = r * toy.uniform(0.4, 1.0), 0.025
    profile = [(0, shade_height - 0.05), (top - wall, shade_height - 0.05), (r - wall, 0), (r, 0),
               (top, shade_height), (0, shade_height)]  # fmt: skip
    shade = materials.surface(toy, mixed(toy.palette.second, WHITE, 0.3), 0.4, "cylinder")
    toy.add(lathe(profile, 32), shade, (0, 0, h - shade_height * 0.6))


def grandfather_clock(toy: ToyBuilder) -> None:
    """A clock: tall with a pendulum's case, or a small one with bells."""
    palette = toy.palette
    dial = clock(palette.light, palette.dark, toy.uniform(0, 12))
    if toy.chance(0.5):
        case, w = materials.wood(toy), toy.uniform(0.28, 0.38)
        toy.add(box(w * 0.9, w * 1.15, 0.22, 0.2), case, (0, 0, 0.11))
        toy.add(box(w * 0.7, w * 0.85, 0.7, 0.15), case, (0, 0, 0.5))
        head = Paint(case.first, decal=dial, place=(0.5, 0.5, 0.42, 0.42))
        toy.add(box(w * 0.85, w * 1.1, w * 1.1, 0.2), head, (0, 0, 0.8 + w / 2))
        toy.add(cylinder(w * 0.7, w * 0.85, 0.75, 0.1, 4), case, (0, 0, 0.8 + w * 1.35))
        toy.add(box(0.03, w * 0.5, 0.45, 0.5), palette.light, (w * 0.35, 0, 0.5))
        toy.add(sphere(0.06), METAL[3], (w * 0.4, 0, 0.4))
        return
    body = materials.surface(toy, palette.main, 0.6)
    toy.add(cylinder(0.4, 0.26, bevel=0.4, segments=36), body, (0, 0, 0.5), turn=[(1, 90)])
    glass = Paint(palette.light, decal=dial, place=(0.5, 0.5, 0.5, 0.5))
    toy.add(_disc(0.34), glass, (0.13, 0, 0.5))
    for side in (-1, 1):
        toy.add(sphere(0.15), METAL[toy.integer(0, 3)], (0, side * 0.24, 0.92))
        toy.add(tube([(0, side * 0.22, 0.16), (0, side * 0.36, 0)], 0.05, 12, 1), palette.dark)
    toy.add(box(0.06, 0.08, 0.2, 0.5), palette.dark, (0, 0, 0.95))


def _disc(radius: float) -> Solid:
    """Return a thin disc that faces +x."""
    disc = cylinder(radius, 0.04, bevel=0.3, segments=32)
    return Solid(disc.vertices[:, [2, 0, 1]], disc.faces)


GREEN = (0.3, 0.58, 0.25)


def cake(toy: ToyBuilder) -> None:
    """A cake in tiers, a cupcake, an ice cream, or a burger."""
    palette, kind = toy.palette, toy.integer(0, 3)
    cream = toy.choice([palette.light, (0.97, 0.78, 0.8), (0.45, 0.28, 0.18)])
    if kind == 0:
        r, z = toy.uniform(0.4, 0.5), 0.05
        toy.add(cylinder(r * 1.12, 0.06, 1.0, 0.4, 36), palette.light, (0, 0, 0.03))
        for _ in range(toy.integer(1, 3)):
            h = toy.uniform(0.18, 0.28)
            colour = toy.choice([palette.main, palette.second])
            look = materials.surface(toy, colour, 0.2, "cylinder")
            toy.add(cylinder(r, h, 1.0, 0.15, 36), look, (0, 0, z + h / 2))
            if toy.chance(0.6):
                toy.add_around(sphere(0.05, 10), cream, round(r * 30), r * 0.93, z + h)
            z, r = z + h - 0.01, r * toy.uniform(0.6, 0.75)
        count = toy.integer(1, 5)
        candle = Paint(palette.accent, WHITE, patterns.diagonal_stripes, "cylinder", 0.2)
        ring_of = 0.0 if count == 1 else r * 0.8
        stick = cylinder(0.03, 0.2, bevel=0.0, segments=12)
        toy.add_around(stick, candle, count, ring_of, z + 0.09)
        toy.add_around(ellipsoid(0.05, 0.05, 0.09, 10), (0.99, 0.7, 0.15), count, ring_of, z + 0.22)
    elif kind == 1:
        paper = Paint(palette.main, palette.light, vertical_stripes, "cylinder", 0.1)
        toy.add(cylinder(0.24, 0.32, 1.4, 0.05, 32), paper, (0, 0, 0.16))
        z, r = 0.32, 0.3
        for _ in range(toy.integer(2, 4)):
            toy.add(torus(r * 0.6, r * 0.48), cream, (0, 0, z + r * 0.2))
            z, r = z + r * 0.5, r * 0.75
        toy.add(sphere(r * 0.9), cream, (0, 0, z))
        toy.add(sphere(0.08, 14), (0.85, 0.1, 0.15), (0, 0, z + r * 0.9 + 0.02))
    elif kind == 2:
        cone = Paint((0.85, 0.62, 0.35), (0.65, 0.43, 0.2), patterns.diamonds, "cylinder", 0.12)
        toy.add(cylinder(0.05, 0.6, 4.6, 0.0, 28), cone, (0, 0, 0.3))
        z, r = 0.7, 0.26
        for colour in [palette.main, palette.second, palette.accent][: toy.integer(1, 3)]:
            pattern = patterns.noise(toy.integer(0, 999))
            look = Paint(colour, mixed(colour, WHITE, 0.4), pattern, "sphere", 0.15)
            toy.add(sphere(r), look, (0, 0, z))
            z, r = z + r * 1.2, r * 0.92
        toy.add(sphere(0.07, 14), (0.85, 0.1, 0.15), (0, 0, z - r * 0.2))
    else:
        bun = (0.85, 0.58, 0.28)
        toy.add(cylinder(0.42, 0.16, 1.05, 0.8, 32), bun, (0, 0, 0.08))
        layers = [((0.4, 0.24, 0.14), 0.12, 0.43), (GREEN, 0.05, 0.48)]
        layers += [((0.97, 0.78, 0.2), 0.05, 0.46), ((0.85, 0.2, 0.15), 0.07, 0.42)]
        z = 0.15
        for k in toy.rng.permutation(len(layers))[: toy.integer(2, 4)]:
            colour, thick, r = layers[k]
            segments = 7 if r == 0.46 else 32
            toy.add(cylinder(r, thick, 1.0, 0.6, segments), colour, (0, 0, z + thick / 2))
            z += thick - 0.01
        dome = rounded([(0, 0), (0.43, 0), (0.44, 0.1), (0.25, 0.27), (0, 0.28)], 0.15, 6)
        seeds = Paint(bun, (0.97, 0.9, 0.7), dots, "sphere", 0.2) if toy.chance(0.6) else Paint(bun)
        toy.add(lathe(dome, 32), seeds, (0, 0, z))


def hat(toy: ToyBuilder) -> None:
    """A top hat, a cap, a wizard's or a straw hat, a crown, an umbrella, a present, a drum."""
    palette, kind = toy.palette, toy.integer(0, 5)
    cloth = materials.surface(toy, palette.main, 0.4, "cylinder")
    if kind == 0:
        r, h = toy.uniform(0.26, 0.34), toy.uniform(0.2, 0.5)
        top = r * toy.uniform(0.8, 1.1)
        brim = [(0, 0), (r * 1.7, 0.02), (r * 1.75, 0.05), (r, 0.06), (top, h), (0, h)]
        toy.add(lathe(rounded(brim, 0.05), 36), cloth)
        toy.add(cylinder(r * 1.03, 0.1, 0.99, 0.1, 32), palette.accent, (0, 0, 0.1))
    elif kind == 1:
        h = toy.uniform(0.6, 0.85)
        shape = [(0, 0), (0.5, 0), (0.52, 0.04), (0.28, 0.08), (0.14, h * 0.6), (0, h)]
        toy.add(lathe(rounded(shape, 0.06), 32), cloth)
        toy.add(torus(0.27, 0.035), palette.accent, (0, 0, 0.1))
        toy.add(sphere(0.06, 12), palette.accent, (0, 0, h))
    elif kind == 2:
        r = 0.36
        dome = rounded([(0, 0), (r, 0), (r, 0.14), (r * 0.7, 0.32), (0, 0.36)], 0.2, 6)
        toy.add(lathe(dome, 32), cloth)
        toy.add(ellipsoid(0.62, 0.62, 0.06), palette.second, (0.26, 0, 0.03))
        toy.add(sphere(0.05, 12), palette.second, (0, 0, 0.36))
    elif kind == 3:
        gold, count = toy.choice([(0.9, 0.7, 0.2), palette.main]), toy.integer(5, 8)
        wall = [(0.3, 0), (0.36, 0), (0.4, 0.26), (0.35, 0.26), (0.3, 0.01)]
        toy.add(lathe([(0, 0), *wall[1:4], (0.31, 0.05), (0, 0.05)], 32), gold)
        toy.add_around(cylinder(0.09, 0.24, 0.05, 0.0, 4), gold, count, 0.37, 0.34)
        toy.add_around(sphere(0.05, 12), palette.accent, count, 0.38, 0.48)
        toy.add_around(sphere(0.045, 12), palette.second, count, 0.37, 0.12, 180 / count)
        toy.add(sphere(0.27), palette.second, (0, 0, 0.18))
    elif kind == 4:
        s, h = toy.uniform(0.5, 0.7), toy.uniform(0.35, 0.65)
        wrapping, ribbon = materials.surface(toy, palette.main, 0.2), palette.accent
        toy.add(box(s, s, h, 0.05), wrapping, (0, 0, h / 2))
        toy.add(box(s * 1.07, s * 1.07, 0.12, 0.1), wrapping.first, (0, 0, h))
        toy.add(box(s * 1.02, 0.1, h * 1.01), ribbon, (0, 0, h / 2))
        toy.add(box(0.1, s * 1.02, h * 1.01), ribbon, (0, 0, h / 2))
        toy.add(box(s * 1.09, 0.1, 0.13), ribbon, (0, 0, h))
        toy.add(box(0.1, s * 1.09, 0.13), ribbon, (0, 0, h))
        for side in (-1, 1):
            bow, spin = torus(0.1, 0.035, 24, 8), [(1, 90), (0, side * 20)]
            toy.add(bow, ribbon, (0, side * 0.11, h + 0.13), turn=spin)
        toy.add(sphere(0.06, 12), ribbon, (0, 0, h + 0.09))
    else:
        r, h = toy.uniform(0.34, 0.46), toy.uniform(0.3, 0.5)
        cell = toy.uniform(0.14, 0.3)
        skin = Paint(palette.main, palette.light, patterns.zigzag, "cylinder", cell)
        toy.add(cylinder(r, h, 1.0, 0.0, 36), skin, (0, 0, h / 2 + 0.02))
        toy.add(cylinder(r * 1.06, 0.07, 1.0, 0.3, 36), palette.second, (0, 0, 0.035), (0, 0, h))
        toy.add(cylinder(r * 0.92, 0.04, bevel=0.0), palette.light, (0, 0, h + 0.03))
        for turn in (20.0, -30.0):
            stick = tube([(0, -0.34, 0), (0, 0.3, 0.0)], 0.022, 10, 1)
            toy.add(stick, materials.wood(toy), (0, 0, h + 0.07), turn=[(2, turn)])
            knob = translated(sphere(0.05, 12), (0, 0.32, 0))
            toy.add(knob, palette.accent, (0, 0, h + 0.08), turn=[(2, turn)])


def tool(toy: ToyBuilder) -> None:
    """A hammer, a paint brush, a key or an umbrella, standing."""
    palette, kind = toy.palette, toy.integer(0, 3)
    if toy.chance(0.5):
        grip = materials.wood(toy)
    else:
        grip = materials.surface(toy, palette.main, 0.5, "cylinder")
    metal = Paint(toy.choice(METAL), roughness=0.35)
    if kind == 0:
        h = toy.uniform(0.7, 0.9)
        handle = rounded([(0, 0), (0.07, 0), (0.055, h * 0.5), (0.045, h), (0, h)], 0.04)
        toy.add(lathe(handle, 20), grip)
        head = rotated(cylinder(toy.uniform(0.1, 0.14), 0.42, toy.uniform(0.6, 1.0), 0.2), 1, 90)
        toy.add(head, metal if toy.chance(0.5) else palette.accent, (0.03, 0, h))
        toy.add(cylinder(0.2, 0.06, 1.0, 0.4, 30), palette.second, (0, 0, 0.03))
    elif kind == 1:
        h = toy.uniform(0.5, 0.7)
        handle = [(0, 0), (0.04, 0), (0.09, h * 0.35), (0.05, h * 0.8), (0.08, h), (0, h)]
        toy.add(lathe(rounded(handle, 0.1, 5), 24), grip)
        toy.add(cylinder(0.1, 0.14, 1.15, 0.1), metal, (0, 0, h + 0.04))
        tip = [(0, 0), (0.1, 0), (0.13, 0.1), (0.06, 0.28), (0, 0.34)]
        paint = Paint((0.85, 0.75, 0.55), palette.accent, patterns.bands(0.5), "cylinder")
        toy.add(lathe(rounded(tip, 0.1, 5)), paint, (0, 0, h + 0.09))
    elif kind == 2:
        look = Paint(toy.choice([*METAL, palette.main]), roughness=0.35)
        thick = toy.uniform(0.06, 0.09)
        toy.add(torus(0.2, thick), look, (0, 0, 0.95), turn=[(1, 90)])
        toy.add(cylinder(thick * 0.9, 0.75, 1.0, 0.1, 20), look, (0, 0, 0.4))
        for k in range(toy.integer(2, 3)):
            long = toy.uniform(0.14, 0.24)
            toy.add(box(0.08, long, 0.09, 0.3), look, (0, long / 2, 0.09 + 0.15 * k))
        toy.add(cylinder(thick * 1.6, 0.06, 1.0, 0.5, 20), palette.accent, (0, 0, 0.7))
    else:
        r, h = toy.uniform(0.42, 0.5), toy.uniform(0.7, 0.85)
        dome = [(0, 0.05), (r * 0.95, -0.02), (r, 0), (r * 0.72, 0.2), (0, 0.32)]
        cloth = Paint(palette.main, palette.second, patterns.vertical_stripes, "cylinder", 0.35)
        toy.add(lathe(rounded(dome, 0.12, 6), 32), cloth, (0, 0, h))
        stick = [(0, 0, h + 0.36), (0, 0, 0.1), (0, 0.05, 0.02), (0, 0.13, 0.03), (0, 0.16, 0.12)]
        toy.add(tube(stick, 0.03, 10), palette.dark)


def gadget(toy: ToyBuilder) -> None:
    """A camera, a television, a radio, a guitar, a book or a telephone."""
    palette, kind = toy.palette, toy.integer(0, 4)
    shell = materials.surface(toy, palette.main, 0.6)
    if kind == 0:
        w, h, d = toy.uniform(0.7, 0.9), toy.uniform(0.45, 0.6), toy.uniform(0.25, 0.35)
        band = Paint(palette.main, palette.dark, patterns.bands(0.28, 0.75))
        toy.add(box(d, w, h, 0.3), band, (0, 0, h / 2))
        r = h * toy.uniform(0.3, 0.38)
        lens = rotated(cylinder(r, 0.26, 0.9, 0.2, 32), 1, 90)
        toy.add(lens, palette.dark, (d / 2 + 0.05, 0, h * 0.48))
        toy.add(ellipsoid(0.12, r * 1.3, r * 1.3), GLASS, (d / 2 + 0.17, 0, h * 0.48))
        toy.add(box(d * 0.7, w * 0.3, 0.12, 0.4), palette.second, (0, 0, h + 0.04))
        toy.add(cylinder(0.06, 0.08, 1.0, 0.3, 18), palette.accent, (0, w * 0.35, h + 0.02))
    elif kind == 1:
        w, h, d = toy.uniform(0.7, 0.95), toy.uniform(0.5, 0.7), toy.uniform(0.3, 0.5)
        toy.add(box(d, w, h, 0.25), shell, (0, 0, h / 2 + 0.08))
        decal = materials.random_decal(toy)
        screen = Paint((0.2, 0.24, 0.28), decal=decal, place=(0.5, 0.5, 0.34, 0.42))
        toy.add(box(0.06, w * 0.62, h * 0.72, 0.5), screen, (d / 2, -w * 0.11, h * 0.5 + 0.08))
        knobs = [(d / 2 + 0.02, w * 0.35, h * k + 0.08) for k in (0.3, 0.5, 0.7)]
        toy.add(sphere(0.05, 14), palette.accent, *knobs)
        for side in (-1, 1):
            toy.add(cylinder(0.035, 0.12, bevel=0.0, segments=12), palette.dark,
                    (0, side * w * 0.36, 0.05))  # fmt: skip
            wire = [(0, 0, h), (0, side * 0.2, h + 0.32)]
            toy.add(tube(wire, 0.016, 8, 1), palette.dark)
    elif kind == 2:
        w, thick = toy.uniform(0.2, 0.26), toy.uniform(0.14, 0.2)
        look = materials.wood(toy) if toy.chance(0.5) else shell
        lower, upper = cylinder(w * 1.35, thick, segments=36), cylinder(w, thick, segments=36)
        body = union(rotated(lower, 1, 90), translated(rotated(upper, 1, 90), (0, 0, w * 1.75)))
        toy.add(body, look, (0, 0, w * 1.35))
        toy.add(rotated(cylinder(w * 0.45, 0.03, segments=28), 1, 90), palette.dark,
                (thick / 2, 0, w * 2.2))  # fmt: skip
        top = w * 4.1 + 0.4
        toy.add(box(0.05, 0.09, 0.7, 0.3), palette.dark, (thick / 2 - 0.01, 0, top - 0.32))
        toy.add(box(0.06, 0.15, 0.2, 0.3), palette.second, (thick / 2 - 0.01, 0, top + 0.08))
        toy.add(box(0.05, w * 0.9, 0.05, 0.3), palette.dark, (thick / 2, 0, w * 0.9))
        toy.add(cylinder(w * 1.2, 0.07, 0.9, 0.4), palette.accent, (0, 0, 0.0))
    elif kind == 3:
        z = 0.0
        for _ in range(toy.integer(2, 5)):
            w, d, t = toy.uniform(0.7, 0.95), toy.uniform(0.5, 0.65), toy.uniform(0.1, 0.2)
            colour = toy.choice([palette.main, palette.second, palette.accent])
            cover = materials.surface(toy, colour, 0.5)
            spin = [(2, toy.uniform(-18, 18))]
            toy.add(box(d, w, t * 0.18, 0.2), cover, (0, 0, z + t * 0.09), (0, 0, z + t * 0.91),
                    turn=spin)  # fmt: skip
            pages = translated(box(d * 0.94, w * 0.94, t * 0.9, 0.05), (-0.01, 0, 0))
            toy.add(pages, WHITE, (0, 0, z + t / 2), turn=spin)
            spine = translated(box(0.05, w, t, 0.4), (d / 2 - 0.02, 0, 0))
            toy.add(spine, cover.first, (0, 0, z + t / 2), turn=spin)
            z += t - 0.002
    else:
        foot = cylinder(0.42, 0.24, 0.72, 0.15, toy.choice([4, 32]))
        toy.add(foot, shell, (0, 0, 0.12))
        toy.add(cylinder(0.22, 0.06, 0.95, 0.4, 28), palette.light, (0.08, 0, 0.25), turn=[(1, 10)])
        toy.add_around(sphere(0.035, 10), palette.dark, 9, 0.15, 0.285)
        toy.add(box(0.1, 0.16, 0.2, 0.3), shell.first, (-0.12, 0, 0.3))
        arch = [(-0.12, -0.38, 0.36), (-0.12, -0.3, 0.44), (-0.12, 0.3, 0.44), (-0.12, 0.38, 0.36)]
        toy.add(tube(arch, 0.06, 14), palette.accent)
        toy.add(cylinder(0.11, 0.12, 0.8, 0.3, 24), palette.accent, (-0.12, 0.37, 0.33),
                (-0.12, -0.37, 0.33))  # fmt: skip
