"""Furniture and lamps."""

from __future__ import annotations

from demo.toys import materials
from demo.toys.booleans import difference
from demo.toys.decals import clock
from demo.toys.paint import Paint
from demo.toys.palettes import METAL, WHITE, mixed
from demo.toys.solids import Solid, box, cylinder, lathe, pair, rounded, sphere, translated, tube
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
