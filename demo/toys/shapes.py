"""Assemblies, Boolean combinations, letters, plates, and solids of revolution."""

from __future__ import annotations

import numpy as np

from demo.toys import materials, profiles
from demo.toys.paint import METAL, RGB, Paint, Wrap
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    difference,
    ellipsoid,
    intersection,
    lathe,
    rotated,
    rounded,
    sphere,
    superquadric,
    torus,
    translated,
    tube,
    union,
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
        face = materials.face(toy.integer(0, 5))
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


def _glaze(toy: ToyBuilder) -> Paint:
    """Return a paint with a pattern, sometimes with a label in front."""
    paint = materials.surface(toy, toy.palette.main, 0.25, "cylinder")
    if toy.chance(0.3):
        place = (0.5, toy.uniform(0.35, 0.6), toy.uniform(0.4, 0.6), toy.uniform(0.16, 0.25))
        return Paint(paint.first, decal=materials.random_decal(toy), wrap="cylinder", place=place)
    return paint


def vase(toy: ToyBuilder) -> None:
    """A vase with a random smooth profile, open on top, sometimes with two handles."""
    h = toy.uniform(0.7, 1.2)
    count = toy.integer(4, 6)
    z = np.linspace(0, h, count)
    r = np.array([toy.uniform(0.1, 0.38) for _ in range(count)])
    r[0], wall = max(r[0], 0.14), 0.03
    fine = np.linspace(0, h, 26)
    smooth = np.clip(_cosine_interpolation(z, r, fine), 0.06, 0.42)
    outside = list(zip(smooth, fine, strict=True))
    inside = [(max(a - wall, 0.02), b) for a, b in outside[::-1] if b > 0.25 * h]
    profile = [(0, 0), *outside, *inside, (0, inside[-1][1])]
    toy.add(lathe(profile, toy.choice([32, 32, 32, 6, 8])), _glaze(toy))
    if toy.chance(0.25):
        low, high = 9, 20
        for side in (-1, 1):
            a, b = smooth[low] - 0.015, smooth[high] - 0.015
            out = max(smooth[low : high + 1]) + 0.13
            line = [(0, side * a, fine[low]), (0, side * out, fine[low] + 0.08),
                    (0, side * out, fine[high] - 0.05), (0, side * b, fine[high])]  # fmt: skip
            toy.add(tube(line, 0.028), toy.palette.second)
    if toy.chance(0.3):  # flowers
        for k in range(toy.integer(2, 4)):
            angle, lean = 2.4 * k, toy.uniform(0.08, 0.25)
            tip = (lean * np.cos(angle), lean * np.sin(angle), h + toy.uniform(0.15, 0.4))
            stem = [(0, 0, 0.15 * h), (0.2 * tip[0], 0.2 * tip[1], h), tip]
            toy.add(tube(stem, 0.015, 8), (0.25, 0.5, 0.2))
            toy.add(sphere(toy.uniform(0.07, 0.12), 16), toy.palette.accent, tip)


def _cosine_interpolation(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate points by cosines."""
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    t = (at - x[k]) / (x[k + 1] - x[k])
    return y[k] + (y[k + 1] - y[k]) * (1 - np.cos(np.pi * t)) / 2


def bottle(toy: ToyBuilder) -> None:
    """A bottle or a jar with a cap."""
    r, body, neck = toy.uniform(0.16, 0.3), toy.uniform(0.4, 0.7), toy.uniform(0.05, 0.3)
    thin = r * toy.uniform(0.3, 0.85)
    slope = toy.uniform(0.05, 0.3)
    corners = [(0, 0), (r, 0), (r, body), (thin, body + slope), (thin, body + slope + neck),
               (0, body + slope + neck)]  # fmt: skip
    top = body + slope + neck
    glaze = _glaze(toy)
    toy.add(lathe(rounded(corners, toy.uniform(0.03, 0.12), 5), toy.choice([32, 32, 4, 6])), glaze)
    cap = materials.surface(toy, toy.palette.accent, 0.7, "cylinder")
    tall = toy.uniform(0.08, 0.16)
    if toy.chance(0.8):
        toy.add(cylinder(thin * 1.12, tall, 1.0, 0.25), cap, (0, 0, top - 0.02 + tall / 2))
    else:
        toy.add(sphere(thin * 1.3), cap, (0, 0, top + thin * 0.6))
    if glaze.decal is None and toy.chance(0.5):
        low = body * 0.2
        toy.add(cylinder(r * 1.02, body * 0.5, 1.0, 0.0, 32),
                Paint(toy.palette.light, decal=materials.random_decal(toy), wrap="cylinder",
                      place=(0.5, 0.5, 0.5, 0.42)), (0, 0, low + body * 0.25))  # fmt: skip


def cup(toy: ToyBuilder) -> None:
    """A mug, a teapot, or a jug: a hollow body with a handle at its side."""
    r, h, wall = toy.uniform(0.26, 0.36), toy.uniform(0.45, 0.75), 0.04
    foot = r * toy.uniform(0.65, 1.0)
    kind = toy.integer(0, 2)
    glaze = _glaze(toy)
    z = h / 2
    if kind == 2:  # a teapot
        h = r * 1.5
        z = h / 2
        profile = [(0, 0), (r * 0.6, 0), (r * 1.05, h * 0.4), (r * 0.6, h), (0, h)]
        toy.add(lathe(rounded(profile, 0.3, 7), 32), glaze)
        toy.add(cylinder(r * 0.5, 0.07, 0.7, 0.5), toy.palette.second, (0, 0, h))
        toy.add(sphere(0.065, 16), toy.palette.accent, (0, 0, h + 0.08))
        spout = [(0, r * 0.75, h * 0.35), (0, r * 1.3, h * 0.55), (0, r * 1.65, h * 1.0)]
        toy.add(tube(spout, [0.1, 0.07, 0.05]), glaze.first)
        reach = -r * 0.82
    else:
        inside = [(r - wall, h), (foot - wall, wall * 1.5)]
        profile = [(0, 0), (foot, 0), (r, h), *inside, (0, wall * 1.5)]
        toy.add(lathe([*rounded(profile[:3], 0.05)[:-1], *profile[2:]], 36), glaze)
        reach = -(foot + r) / 2 + wall / 2
    out = reach - toy.uniform(0.16, 0.26)
    line = [(0, reach, z - h * 0.26), (0, out, z - h * 0.2), (0, out, z + h * 0.2),
            (0, reach, z + h * 0.26)]  # fmt: skip
    toy.add(tube(line, toy.uniform(0.03, 0.05)), toy.choice([glaze.first, toy.palette.second]))
    if kind != 2 and toy.chance(0.35):
        toy.add(cylinder(r * 1.7, 0.05, 1.15, 0.3, 36), toy.palette.second, (0, 0, -0.015))


def bell(toy: ToyBuilder) -> None:
    """A hand bell."""
    r, h = toy.uniform(0.3, 0.42), toy.uniform(0.45, 0.65)
    profile = [(0, h * 0.85), (r * 0.35, h * 0.85), (r * 0.6, h * 0.3), (r * 0.93, 0), (r, 0),
               (r * 0.95, h * 0.1), (r * 0.68, h * 0.4), (r * 0.45, h * 0.95), (0, h)]  # fmt: skip
    shell = Paint(toy.choice([*METAL, toy.palette.main]), toy.palette.second, roughness=0.35)
    if toy.chance(0.5):
        shell = materials.surface(toy, shell.first, 0.2, "cylinder")
    toy.add(lathe(profile, 36), shell)
    toy.add(cylinder(0.02, h * 0.9, bevel=0.0, segments=10), toy.palette.dark, (0, 0, h * 0.45))
    toy.add(sphere(0.09, 16), toy.palette.dark, (0, 0, 0.06))
    grip = toy.uniform(0.25, 0.5)
    profile = rounded([(0, 0), (0.05, 0), (0.08, grip * 0.6), (0.05, grip), (0, grip)], 0.08)
    toy.add(lathe(profile, 20), materials.wood(toy), (0, 0, h - 0.02))


def chess_piece(toy: ToyBuilder) -> None:
    """A pawn, a rook, a bishop, a queen or a king."""
    main = toy.choice([toy.palette.main, toy.palette.dark, toy.palette.light, toy.choice(METAL)])
    look = materials.wood(toy) if toy.chance(0.3) else Paint(main, roughness=0.5)
    b, h, w = toy.uniform(0.24, 0.32), toy.uniform(0.45, 0.85), toy.uniform(0.08, 0.14)
    foot = [(0, 0), (b, 0), (b, 0.08), (b * 0.8, 0.12), (b * 0.8, 0.18), (w * 1.1, 0.26), (w, h),
            (w * 1.8, h + 0.03), (w * 1.8, h + 0.07), (w, h + 0.1), (0, h + 0.1)]  # fmt: skip
    toy.add(lathe(rounded(foot, 0.03), 32), look)
    top, kind = h + 0.08, toy.integer(0, 4)
    accent = look if toy.chance(0.5) else Paint(toy.palette.accent)
    if kind == 0:
        toy.add(sphere(w * 1.7), accent, (0, 0, top + w * 1.3))
    elif kind == 1:
        tower = cylinder(w * 1.8, 0.28, 1.15, 0.1)
        slots = [rotated(box(1.0, w * 0.8, 0.2), 2, k * 60 + 30) for k in range(3)]
        hollow = cylinder(w * 1.3, 0.3, bevel=0.0)
        tools = [translated(slot, (0, 0, 0.14)) for slot in slots]
        tools.append(translated(hollow, (0, 0, 0.2)))
        toy.add(difference(tower, *tools), accent, (0, 0, top + 0.13))
    elif kind == 2:
        drop = [(0, 0), (w * 0.9, 0), (w * 1.6, w * 1.4), (w * 0.5, w * 3), (0, w * 3.6)]
        toy.add(lathe(rounded(drop, 0.2, 6)), accent, (0, 0, top))
        toy.add(sphere(w * 0.45, 14), accent, (0, 0, top + w * 3.6))
    else:
        crown = [(0, 0), (w, 0), (w * 1.9, w * 3), (w * 1.4, w * 3.1), (0, w * 2.6)]
        toy.add(lathe(rounded(crown, 0.03)), accent, (0, 0, top))
        if kind == 3:
            toy.add_around(sphere(w * 0.5, 12), accent, 8, w * 1.6, top + w * 3.1)
            toy.add(sphere(w * 0.7, 14), accent, (0, 0, top + w * 3.1))
        else:
            toy.add(box(w * 0.7, w * 0.7, w * 2.8), accent, (0, 0, top + w * 4))
            toy.add(box(w * 0.7, w * 2.2, w * 0.7), accent, (0, 0, top + w * 4.3))


def spinning_top(toy: ToyBuilder) -> None:
    """A spinning top, or a stack of rings on a cone."""
    palette = toy.palette
    if toy.chance(0.5):
        r = toy.uniform(0.36, 0.48)
        lower = toy.uniform(0.25, 0.45)
        profile = [(0, 0), (0.03, 0), (r, lower), (r, lower + 0.1), (r * 0.3, lower + 0.28),
                   (0, lower + 0.3)]  # fmt: skip
        look = materials.surface(toy, palette.main, 0.1, "cylinder")
        toy.add(lathe(rounded(profile, 0.08), 36), look)
        toy.add(cylinder(0.045, 0.3, 0.8), palette.second, (0, 0, lower + 0.4))
        toy.add(sphere(0.075, 16), palette.accent, (0, 0, lower + 0.56))
        return
    toy.add(cylinder(0.42, 0.08, 1.0, 0.5, 32), materials.wood(toy), (0, 0, 0.04))
    count, z = toy.integer(4, 6), 0.06
    colours = [palette.main, palette.second, palette.accent, palette.light, palette.dark]
    first = toy.integer(0, 4)
    thick = toy.uniform(0.075, 0.1)
    for k in range(count):
        radius = 0.3 - 0.17 * k / count
        toy.add(torus(radius, thick), colours[(first + k) % len(colours)], (0, 0, z + thick))
        z += thick * 1.7
    toy.add(cylinder(0.12, z, 0.5, 0.1), palette.light, (0, 0, z / 2))
    toy.add(sphere(0.12), palette.accent, (0, 0, z + 0.1))
