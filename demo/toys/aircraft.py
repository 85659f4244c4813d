"""Aeroplanes, helicopters, rockets, flying saucers."""

from __future__ import annotations

from demo.toys import materials, patterns
from demo.toys.paint import Paint
from demo.toys.palettes import GLASS, RUBBER
from demo.toys.profiles import plate, polygon, side_plate
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    ellipsoid,
    lathe,
    loft,
    pair,
    rotated,
    rounded,
    sphere,
    torus,
    tube,
)
from demo.toys.toy_builder import ToyBuilder

YELLOW = (0.98, 0.85, 0.4)


def aeroplane(toy: ToyBuilder) -> None:
    """An aeroplane with propellers or jets; one or two pairs of wings; or a helicopter."""
    palette = toy.palette
    r, a = toy.uniform(0.1, 0.15), toy.uniform(0.42, 0.52)
    helicopter = toy.chance(0.25)
    paint = materials.surface(toy, palette.main, 0.55)
    if helicopter:
        toy.add(ellipsoid(0.56, 0.4, 0.42), paint, (0.1, 0, 0.33))
        toy.add(ellipsoid(0.36, 0.34, 0.3), GLASS, (0.23, 0, 0.37))
        toy.add(tube([(-0.05, 0, 0.36), (-0.6, 0, 0.42)], [0.1, 0.04], 12, 1), palette.main)
        toy.add(box(0.12, 0.03, 0.22, 0.4), palette.accent, (-0.6, 0, 0.47))
        toy.add(cylinder(0.03, 0.2, bevel=0.0, segments=10), palette.dark, (0.1, 0, 0.58))
        blade = toy.uniform(0, 90)
        toy.add(box(0.08, 1.0, 0.03, 0.4), palette.accent, (0.1, 0, 0.67), turn=[(2, blade)])
        toy.add(box(0.08, 1.0, 0.028, 0.4), palette.accent, (0.1, 0, 0.67), turn=[(2, blade + 90)])
        for side in (-0.17, 0.17):
            skid = tube([(-0.2, side, 0.03), (0.35, side, 0.03), (0.44, side, 0.09)], 0.028, 10)
            toy.add(skid, palette.dark)
            toy.add(box(0.05, 0.04, 0.2), palette.dark, (0.0, side, 0.12), (0.22, side, 0.12))
        return
    z = 0.35
    rows = [(-a, z + 0.06, 0.05, 0.06), (-a * 0.5, z, r * 1.3, r * 1.5), (a * 0.3, z, r * 2, r * 2),
            (a * 0.8, z - 0.01, r * 1.6, r * 1.6), (a, z - 0.02, r * 0.7, r * 0.7)]  # fmt: skip
    toy.add(loft(rows), paint)
    sweep, span = toy.uniform(0.0, 0.28), toy.uniform(0.42, 0.6)
    root, tip = toy.uniform(0.2, 0.3), toy.uniform(0.1, 0.2)
    wing = materials.surface(toy, palette.second, 0.6)
    double = toy.chance(0.3) and sweep < 0.15
    for level in (z - r * 0.5, z + r * 1.6) if double else (z - r * 0.3,):
        toy.add(_wing(root, tip, span, sweep, 0.045), wing, (0.08 * a, 0, level))
    if double:
        toy.add(cylinder(0.015, r * 2.1, bevel=0.0, segments=8), palette.dark,
                *pair(0.05, span * 0.6, z + r * 0.55))  # fmt: skip
    tail = _wing(root * 0.6, tip * 0.6, span * 0.42, sweep * 0.5, 0.03)
    toy.add(tail, wing, (-a * 0.85, 0, z + 0.06))
    fin = [(-a, z + 0.05), (-a + 0.2, z + 0.05), (-a + 0.07, z + 0.3), (-a - 0.03, z + 0.3)]
    toy.add(side_plate(fin, 0.035, 0.008), palette.accent)
    toy.add(ellipsoid(0.24, r * 1.3, r * 1.4), GLASS, (a * 0.42, 0, z + r * 0.75))
    if toy.chance(0.55):
        toy.add(sphere(0.05, 14), palette.dark, (a + 0.01, 0, z - 0.02))
        turn = [(0, toy.uniform(0, 90))]
        toy.add(box(0.03, 0.07, 0.42, 0.5), palette.dark, (a + 0.02, 0, z - 0.02), turn=turn)
    else:
        jet = rotated(cylinder(0.055, 0.24, 0.85, 0.2, 18), 1, 90)
        toy.add(jet, palette.accent, *pair(0.08, span * 0.45, z - r * 0.3 - 0.05))
    if toy.chance(0.6):
        wheel = rotated(cylinder(0.06, 0.05, 1.0, 0.3, 16), 0, 90)
        for x, y in ((0.15, 0.14), (0.15, -0.14), (-a * 0.6, 0.0)):
            toy.add(wheel, RUBBER, (x, y, 0.06))
            toy.add(tube([(x, y, 0.06), (x, y * 0.4, z)], 0.018, 8, 1), palette.dark)


def _wing(root: float, tip: float, span: float, sweep: float, thick: float) -> Solid:
    """Return a pair of wings, a polygon seen from above, centred on the origin."""
    right = [(-root / 2, 0.0), (root / 2, 0.0), (tip / 2 - sweep, span), (-tip / 2 - sweep, span)]
    left = [(x, -y) for x, y in (right[3], right[2])]
    solid = plate(polygon([*left, right[1], right[2], right[3], right[0]]), thick, 0.008)
    return Solid(solid.vertices[:, [1, 2, 0]], solid.faces)


def rocket(toy: ToyBuilder) -> None:
    """A rocket on its fins, or a flying saucer."""
    palette = toy.palette
    if toy.chance(0.25):
        r = 0.5
        disc = [(0, 0.08), (0.16, 0.08), (r, 0.24), (r, 0.28), (0.22, 0.4), (0, 0.4)]
        look = materials.surface(toy, palette.main, 0.4, "cylinder")
        toy.add(lathe(rounded(disc, 0.04), 40), look)
        toy.add(ellipsoid(0.46, 0.46, 0.42), GLASS, (0, 0, 0.4))
        toy.add_around(sphere(0.045, 12), YELLOW, toy.integer(6, 10), r * 0.78, 0.315)
        toy.add_around(tube([(0.14, 0, 0.12), (0.32, 0, 0.0)], 0.03, 10, 1), palette.dark, 3, 0, 0)
        return
    r, h = toy.uniform(0.15, 0.22), toy.uniform(0.75, 0.95)
    z = 0.16
    profile = [(0, 0), (r * 0.7, 0), (r, h * 0.35), (r * 0.85, h * 0.65), (0, h)]
    edges = (toy.uniform(0.1, 0.3), toy.uniform(0.62, 0.78))
    body = Paint(palette.main, palette.accent, patterns.bands(*edges), "cylinder")
    if toy.chance(0.4):
        body = materials.surface(toy, palette.main, 0.2, "cylinder")
    toy.add(lathe(rounded(profile, 0.25, 8), 32), body, (0, 0, z))
    fin = [(r * 0.5, h * 0.12), (r + 0.22, -z), (r + 0.24, h * 0.08), (r * 0.8, h * 0.42)]
    toy.add_around(side_plate(fin, 0.05, 0.012), palette.second, toy.integer(3, 4), 0, z, 45)
    toy.add(cylinder(r * 0.55, 0.12, 0.7, 0.1), palette.dark, (0, 0, z - 0.03))
    pane = rotated(torus(0.07, 0.022, 24, 8), 1, 90)
    x = r * 0.93
    toy.add(pane, palette.light, (x, 0, z + h * 0.5))
    toy.add(ellipsoid(0.05, 0.14, 0.14, 18), GLASS, (x, 0, z + h * 0.5))
    if toy.chance(0.4):
        toy.add(cylinder(0.01, 0.12, bevel=0.0, segments=8), palette.dark, (0, 0, z + h))
    if toy.chance(0.3):
        flame = lathe([(0, -0.15), (r * 0.45, 0.0), (0, 0.02)], 18)
        fire = Paint((0.98, 0.5, 0.1), YELLOW, patterns.gradient, "cylinder")
        toy.add(flame, fire, (0, 0, z - 0.08))
