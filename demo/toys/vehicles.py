"""Cars, trucks, trains, boats, aeroplanes, helicopters, rockets, flying saucers."""

from __future__ import annotations

from demo.toys import materials, patterns
from demo.toys.materials import windows
from demo.toys.paint import GLASS, METAL, RUBBER, WHITE, Paint
from demo.toys.profiles import plate, polygon, side_plate
from demo.toys.solids import (
    Solid,
    box,
    cylinder,
    difference,
    ellipsoid,
    lathe,
    loft,
    pair,
    rotated,
    rounded,
    sphere,
    torus,
    translated,
    tube,
)
from demo.toys.toy_builder import ToyBuilder

RED, YELLOW = (0.85, 0.15, 0.12), (0.98, 0.85, 0.4)


def _wheels(toy: ToyBuilder, places: list[float], radius: float, track: float, wide: float) -> None:
    """Add pairs of wheels with hubs at these x."""
    tyre = rotated(cylinder(radius, wide, 1.0, 0.3, 24), 0, 90)
    hub = rotated(cylinder(radius * 0.55, wide * 1.15, 1.0, 0.2, 16), 0, 90)
    spots = [(x, side * track / 2, radius) for x in places for side in (-1, 1)]
    toy.add(tyre, RUBBER if toy.chance(0.75) else toy.palette.dark, *spots)
    axle = rotated(cylinder(radius * 0.2, track, bevel=0.0, segments=10), 0, 90)
    toy.add(axle, toy.palette.dark, *[(x, 0, radius) for x in places])
    toy.add(hub, toy.choice([METAL[2], toy.palette.accent, toy.palette.light]), *spots)


def _lamps(toy: ToyBuilder, x: float, y: float, z: float, radius: float) -> None:
    lamp = ellipsoid(radius * 1.2, radius * 2, radius * 2, 14)
    toy.add(lamp, YELLOW, (x, y, z), (x, -y, z))


def car(toy: ToyBuilder) -> None:
    """A car that faces +x: saloon, hatchback, van, pick-up or racer."""
    long, wide = toy.uniform(0.95, 1.2), toy.uniform(0.42, 0.54)
    r, clear = toy.uniform(0.1, 0.15), toy.uniform(0.05, 0.08)
    kind = toy.integer(0, 4)
    body = materials.surface(toy, toy.palette.main, 0.65)
    waist, top = clear + toy.uniform(0.2, 0.26), toy.uniform(0.2, 0.3)
    a = long / 2
    nose = a * toy.uniform(0.35, 0.6)
    slant = toy.uniform(0.08, 0.18)
    back = {0: -a * 0.62, 1: -a * 0.93, 2: -a * 0.97, 3: -a * 0.05, 4: -a * 0.4}[kind]
    if kind == 2:
        nose, top = a * 0.8, top + 0.12
    if kind == 4:
        rows = [(-a, clear + 0.13, wide * 0.7, 0.2), (-a * 0.3, clear + 0.13, wide * 0.75, 0.24)]
        rows += [(a * 0.4, clear + 0.1, wide * 0.5, 0.16), (a, clear + 0.07, wide * 0.3, 0.08)]
        toy.add(loft(rows, 0.7), body)
        toy.add(ellipsoid(0.36, 0.22, 0.3), GLASS, (-a * 0.1, 0, clear + 0.24))
        toy.add(box(0.14, wide * 1.1, 0.03, 0.5), toy.palette.accent, (-a * 0.9, 0, clear + 0.36))
        toy.add(box(0.08, 0.04, 0.2), toy.palette.dark, *pair(-a * 0.9, 0.1, clear + 0.27))
        toy.add(box(0.14, wide * 1.15, 0.03, 0.5), toy.palette.accent, (a * 0.95, 0, clear + 0.05))
        _wheels(toy, [-a * 0.62, a * 0.58], r * 1.15, wide * 1.1, 0.16)
        return
    lower = [(-a, clear), (a, clear), (a, waist - 0.07), (nose, waist), (-a, waist)]
    toy.add(side_plate(rounded([*lower, lower[0]], 0.05, 4)[:-1], wide, 0.04), body)
    glass = toy.choice([GLASS, (0.2, 0.24, 0.3)])
    cabin = [(back, waist - 0.02), (nose, waist - 0.02), (nose - slant, waist + top),
             (back + slant * toy.uniform(0.2, 0.9), waist + top)]  # fmt: skip
    toy.add(side_plate(cabin, wide * 0.86, 0.03), glass)
    roof = toy.palette.second if toy.chance(0.3) else body.first
    low, high = back + slant * 0.7, nose - slant
    toy.add(box(high - low, wide * 0.88, 0.06, 0.6), roof, ((low + high) / 2, 0, waist + top))
    toy.add(box(0.05, wide * 0.9, top), roof, ((low * 0.4 + high * 0.6), 0, waist + top / 2))
    if kind == 3:
        hollow = translated(box(a * 0.8, wide * 0.85, 0.2), (0, 0, 0.08))
        bed = difference(box(a * 0.9, wide, 0.16, 0.1), hollow)
        toy.add(bed, body.first, (-a * 0.54, 0, waist + 0.06))
    _wheels(toy, [-a * 0.6, a * 0.6], r, wide * 0.93, 0.12)
    _lamps(toy, a - 0.01, wide * 0.32, waist - 0.12, 0.05)
    toy.add(box(0.04, wide * 0.25, 0.06), RED, *pair(-a, wide * 0.34, waist - 0.08))
    toy.add(box(0.05, wide * 1.02, 0.06, 0.5), toy.palette.dark, *[(s * a, 0, clear + 0.04)
                                                                   for s in (-1, 1)])  # fmt: skip
    if toy.chance(0.2):
        toy.add(box(0.08, wide * 0.5, 0.07, 0.6), toy.choice([RED, (0.15, 0.3, 0.9), YELLOW]),
                ((low + high) / 2, 0, waist + top + 0.05))  # fmt: skip


def truck(toy: ToyBuilder) -> None:
    """A lorry with a box, a tank, or a load; or a bus."""
    long, wide, r = toy.uniform(1.0, 1.3), toy.uniform(0.42, 0.5), toy.uniform(0.1, 0.13)
    palette, a = toy.palette, long / 2
    cab = materials.surface(toy, palette.main, 0.7)
    kind = toy.integer(0, 3)
    if kind == 3:
        tall = toy.uniform(0.4, 0.55)
        pane = windows(toy.integer(4, 6), 1, palette.dark)
        side = Paint(palette.main, palette.second, patterns.bands(0.25), decal=pane,
                     place=(0.5, 0.66, 0.46, 0.24), all_sides=True)  # fmt: skip
        toy.add(box(long, wide, tall, 0.25), side, (0, 0, r + tall / 2 - 0.02))
        _lamps(toy, a, wide * 0.33, r + 0.08, 0.05)
        _wheels(toy, [-a * 0.62, a * 0.62], r, wide * 0.95, 0.1)
        return
    toy.add(box(long * 0.98, wide * 0.8, 0.08), palette.dark, (0, 0, r + 0.05))
    front, tall = toy.uniform(0.26, 0.34), toy.uniform(0.36, 0.46)
    toy.add(box(front, wide, tall, 0.2), cab, (a - front / 2, 0, r + 0.06 + tall / 2))
    toy.add(box(0.03, wide * 0.84, tall * 0.4, 0.5), GLASS, (a, 0, r + 0.06 + tall * 0.68))
    toy.add(box(front * 0.5, wide * 1.02, tall * 0.34), GLASS, (a - front / 2, 0, r + tall * 0.78))
    _lamps(toy, a, wide * 0.34, r + 0.14, 0.045)
    load, mid = long - front - 0.05, -(front + 0.03) / 2
    if kind == 0:
        up = toy.uniform(0.4, 0.6)
        paint = materials.surface(toy, palette.second, 0.25)
        toy.add(box(load, wide * 1.05, up, 0.08), paint, (mid, 0, r + 0.09 + up / 2))
    elif kind == 1:
        tank = rotated(cylinder(wide * 0.48, load, 1.0, 0.4, 32), 1, 90)
        toy.add(tank, materials.surface(toy, palette.second, 0.5), (mid, 0, r + 0.07 + wide * 0.48))
    else:
        tray = box(load, wide * 1.04, 0.22, 0.1)
        tray = difference(tray, translated(box(load * 0.9, wide * 0.9, 0.22), (0, 0, 0.06)))
        toy.add(tray, materials.surface(toy, palette.second, 0.6), (mid, 0, r + 0.2))
        for k in range(toy.integer(2, 4)):
            size = toy.uniform(0.12, 0.17)
            solid = sphere(size * 0.6, 16) if toy.chance(0.4) else box(size, size * 1.3, size)
            x = mid + load * (0.28 * (k % 3) - 0.28)
            toy.add(solid, toy.choice([palette.accent, palette.light, palette.main]),
                    (x, toy.uniform(-0.06, 0.06), r + 0.14 + size / 2))  # fmt: skip
    _wheels(toy, [-a * 0.72, -a * 0.38, a * 0.66], r, wide * 0.9, 0.11)


def train(toy: ToyBuilder) -> None:
    """A steam locomotive, sometimes with a wagon."""
    palette, r = toy.palette, toy.uniform(0.1, 0.14)
    long, b = toy.uniform(0.85, 1.05), toy.uniform(0.15, 0.19)
    a, base = long / 2, r * 1.4
    body = materials.surface(toy, palette.main, 0.7)
    toy.add(box(long, 0.38, 0.09, 0.3), palette.dark, (0, 0, base))
    boiler = rotated(cylinder(b, long * 0.6, 1.0, 0.2, 30), 1, 90)
    toy.add(boiler, body, (a - long * 0.32, 0, base + 0.03 + b))
    rib = rotated(torus(b, 0.018, 28, 8), 1, 90)
    toy.add(rib, palette.accent, *[(a - long * k, 0, base + 0.03 + b) for k in (0.15, 0.3, 0.45)])
    tall = toy.uniform(0.42, 0.52)
    pane = windows(1, 1, palette.light)
    cab = Paint(palette.second, decal=pane, place=(0.5, 0.65, 0.3, 0.22), all_sides=True)
    toy.add(box(long * 0.34, 0.38, tall, 0.1), cab, (-a + long * 0.18, 0, base + tall / 2))
    toy.add(box(long * 0.42, 0.46, 0.05, 0.6), palette.main, (-a + long * 0.18, 0, base + tall))
    z = base + 2 * b
    stack = [(0, 0), (0.05, 0), (0.05, 0.1), (toy.uniform(0.06, 0.11), 0.2), (0, 0.2)]
    toy.add(lathe(stack, 20), palette.dark, (a - 0.13, 0, z))
    toy.add(sphere(0.08, 18), palette.accent, (a - long * 0.38, 0, z + 0.02))
    lamp = rotated(cylinder(0.05, 0.07, segments=16), 1, 90)
    toy.add(lamp, YELLOW, (a - 0.01, 0, base + 0.1 + b))
    wedge = [(a - 0.05, 0.02), (a + 0.12, 0.02), (a - 0.02, base), (a - 0.05, base)]
    toy.add(side_plate(wedge, 0.34, 0.01), RED if toy.chance(0.5) else palette.accent)
    _wheels(toy, [-a * 0.7, -a * 0.1, a * 0.5], r, 0.4, 0.07)
    if toy.chance(0.3):
        x = -a - 0.36
        toy.add(box(0.55, 0.4, 0.28, 0.1), materials.surface(toy, palette.accent, 0.4),
                (x, 0, base + 0.14))  # fmt: skip
        toy.add(box(0.2, 0.06, 0.05), palette.dark, (-a - 0.05, 0, base))
        _wheels(toy, [x - 0.15, x + 0.15], r * 0.8, 0.4, 0.07)


def boat(toy: ToyBuilder) -> None:
    """A sailing boat, a steamer or a tug."""
    long, wide, deep = toy.uniform(0.9, 1.1), toy.uniform(0.34, 0.46), toy.uniform(0.18, 0.26)
    palette, a = toy.palette, long / 2
    rows = [(-a, deep, wide * 0.7, deep * 1.5), (-a * 0.5, deep, wide, deep * 2),
            (a * 0.3, deep, wide * 0.95, deep * 2), (a * 0.75, deep * 1.1, wide * 0.5, deep * 1.7),
            (a, deep * 1.2, 0.02, deep * 0.8)]  # fmt: skip
    hull = loft(rows, 0.8, 28)
    hull = difference(hull, translated(box(2 * long, 2, 1), (0, 0, deep + 0.5)))
    stripe = patterns.bands(toy.uniform(0.3, 0.8))
    toy.add(hull, Paint(palette.main, palette.second, stripe))
    deck = materials.wood(toy)
    inner = [(x * 0.93, deep, w * 0.86, 0.06) for x, _, w, _ in rows]
    toy.add(loft(inner, 0.8, 28), deck)
    if toy.chance(0.5):
        mast = toy.uniform(0.8, 1.05)
        pole = cylinder(0.022, mast, bevel=0.0, segments=12)
        toy.add(pole, deck, (0.05, 0, deep + mast / 2 - 0.05))
        sail = materials.surface(toy, palette.light, 0.4)
        low, high = deep + 0.1, deep + mast - 0.08
        toy.add(side_plate([(-a * 0.85, low), (0.01, low), (0.01, high)], 0.03, 0.008), sail)
        if toy.chance(0.7):
            jib = side_plate([(0.06, low), (a * 0.85, low), (0.06, high * 0.85)], 0.03, 0.008)
            toy.add(jib, materials.surface(toy, palette.accent, 0.5))
        toy.add(box(0.14, 0.02, 0.08, 0.2), RED, (0.0, 0, deep + mast - 0.07))
        return
    pane = windows(toy.integer(2, 4), 1, palette.dark)
    house = Paint(WHITE if toy.chance(0.6) else palette.light, decal=pane,
                  place=(0.5, 0.55, 0.45, 0.3), all_sides=True)  # fmt: skip
    z, length, width = deep, long * 0.5, wide * 0.62
    for _ in range(toy.integer(1, 3)):
        toy.add(box(length, width, 0.16, 0.15), house, (-a * 0.12, 0, z + 0.07))
        z, length, width = z + 0.15, length * 0.72, width * 0.85
    funnel = Paint(palette.accent, palette.dark, patterns.bands(0.7), "cylinder")
    spots = [(-a * 0.12, 0, z + 0.1)] if toy.chance(0.5) else [(-a * 0.3, 0, z + 0.1),
                                                               (0.0, 0, z + 0.1)]  # fmt: skip
    toy.add(cylinder(0.07, 0.26, 0.95, 0.1, 20), funnel, *spots)


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
