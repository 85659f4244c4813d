"""Animals, birds, fish, snowmen, robots and people."""

from __future__ import annotations

from demo.toys import materials, patterns
from demo.toys.materials import face
from demo.toys.paint import BLACK, METAL, RGB, WHITE, Paint, mixed
from demo.toys.solids import (
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
    translated,
    tube,
)
from demo.toys.toy_builder import ToyBuilder

FUR: list[RGB] = [(0.55, 0.38, 0.24), (0.8, 0.6, 0.38), (0.9, 0.86, 0.8), (0.3, 0.27, 0.26),
                  (0.85, 0.5, 0.2), (0.6, 0.6, 0.62), (0.93, 0.68, 0.7)]  # fmt: skip
ORANGE: RGB = (0.96, 0.55, 0.12)


def _eyes(toy: ToyBuilder, x: float, y: float, z: float, size: float) -> None:
    """Add two eyes that look forwards."""
    if toy.chance(0.5):
        toy.add(sphere(size, 14), WHITE, (x, y, z), (x, -y, z))
        pupil = x + size * 0.6
        toy.add(sphere(size * 0.6, 12), BLACK, (pupil, y, z), (pupil, -y, z))
    else:
        toy.add(sphere(size * 0.8, 12), BLACK, (x, y, z), (x, -y, z))


def animal(toy: ToyBuilder) -> None:
    """An animal on four legs that faces +x: dog, cat, bear, pig, cow, elephant, giraffe."""
    fur = toy.choice(FUR) if toy.chance(0.7) else toy.palette.main
    dark = mixed(fur, BLACK, 0.5)
    kind = toy.choice(["dog", "cat", "bear", "pig", "cow", "elephant", "giraffe", "sheep"])
    long, thick = toy.uniform(0.5, 0.7), toy.uniform(0.26, 0.36)
    leg = toy.uniform(0.16, 0.28) + (0.15 if kind == "giraffe" else 0.0)
    if kind == "elephant":
        fur = mixed(fur, (0.6, 0.6, 0.65), 0.7)
        thick = 0.42
    blots = patterns.noise(toy.integer(0, 10**6), hard=True)
    spotted = kind in {"cow", "giraffe"} or toy.chance(0.2)
    spots = WHITE if kind == "cow" else dark
    coat = Paint(fur, spots, blots if spotted else None, cell=0.22, roughness=0.9)
    if kind == "sheep":
        coat, dark = Paint(WHITE, (0.8, 0.78, 0.74), patterns.dots, cell=0.1), (0.2, 0.18, 0.18)
    a, z = long / 2, leg + thick * 0.42
    rows = [(-a, z + 0.02, thick * 0.5, thick * 0.5), (-a * 0.6, z, thick * 0.95, thick),
            (a * 0.4, z, thick * 0.9, thick), (a, z + 0.04, thick * 0.4, thick * 0.5)]  # fmt: skip
    toy.add(loft(rows, 0.9), coat)
    width = thick * (0.19 if kind != "elephant" else 0.24)
    limb = rounded([(0, 0), (width, 0), (width * 0.85, leg), (0, leg + thick * 0.3)], 0.05)
    toy.add(lathe(limb, 16), dark if kind == "sheep" else fur,
            *[(x * a * 0.62, s * thick * 0.27, 0) for x in (-1, 1) for s in (-1, 1)])  # fmt: skip
    size = thick * toy.uniform(0.36, 0.48) * (0.75 if kind == "giraffe" else 1.0)
    rise = 0.62 if kind == "giraffe" else toy.uniform(0.12, 0.26)
    x, up = a + (0.14 if kind == "giraffe" else 0.08), z + rise
    neck = [(a * 0.6, 0, z + 0.03), (x, 0, up)]
    collar = coat.first if kind != "giraffe" else fur
    toy.add(tube(neck, [thick * 0.32, size * 0.65], 14, 1), collar)
    head = dark if kind == "sheep" else fur
    toy.add(ellipsoid(size * 2.2, size * 2, size * 2), head, (x, 0, up))
    _muzzle(toy, kind, head, size, x, up)
    _eyes(toy, x + size * 0.8, size * 0.5, up + size * 0.42, size * 0.17)
    tail = [(-a * 0.9, 0, z + 0.05), (-a - 0.12, 0, z + toy.uniform(-0.1, 0.15)),
            (-a - toy.uniform(0.13, 0.25), 0, z + toy.uniform(-0.1, 0.3))]  # fmt: skip
    if kind in {"bear", "sheep"}:
        toy.add(sphere(0.07, 14), coat.first, (-a - 0.02, 0, z + 0.08))
    else:
        toy.add(tube(tail, [0.035, 0.03, 0.025], 10), fur)


def _muzzle(toy: ToyBuilder, kind: str, fur: RGB, s: float, x: float, z: float) -> None:
    """Add nose, ears and horns to a head of radius s."""
    light, dark = mixed(fur, WHITE, 0.45), mixed(fur, BLACK, 0.5)
    if kind == "elephant":
        trunk = [(x + s * 0.7, 0, z), (x + s * 1.5, 0, z - s * 0.5), (x + s * 1.7, 0, z - s * 1.6),
                 (x + s * 2.1, 0, z - s * 2.0)]  # fmt: skip
        toy.add(tube(trunk, [s * 0.42, s * 0.32, s * 0.24, s * 0.2]), fur)
        for side in (-1, 1):
            ear, place = ellipsoid(s * 0.3, s * 1.5, s * 1.8), (x - s * 0.2, side * s * 1.3)
            toy.add(ear, fur, (*place, z + s * 0.1), turn=[(2, side * 25)])
            root = (x + s * 0.8, side * s * 0.4, z - s * 0.4)
            tip = (x + s * 1.6, side * s * 0.5, z - s * 0.8)
            toy.add(tube([root, tip], [s * 0.14, s * 0.05], 10, 1), WHITE)
        return
    long = {"dog": 1.1, "cow": 1.1, "giraffe": 1.2, "pig": 0.5, "bear": 0.8}.get(kind, 0.55)
    if kind == "pig":
        toy.add(rotated(cylinder(s * 0.42, s * 0.6, bevel=0.2, segments=18), 1, 90), light,
                (x + s * 1.15, 0, z - s * 0.1))  # fmt: skip
    else:
        snout = ellipsoid(s * (0.8 + long), s * 1.1, s * 0.95)
        toy.add(snout, light, (x + s * 0.85, 0, z - s * 0.3))
        end = x + s * (0.85 + (0.8 + long) / 2)
        toy.add(ellipsoid(s * 0.3, s * 0.45, s * 0.3, 14), BLACK, (end - s * 0.08, 0, z - s * 0.15))
    for side in (-1, 1):
        y = side * s * 0.62
        if kind == "cat":
            ear = cylinder(s * 0.36, s * 0.8, 0.05, 0.0, 4)
            toy.add(ear, fur, (x - s * 0.1, y, z + s * 1.05), turn=[(0, -side * 14)])
        elif kind == "dog":
            toy.add(ellipsoid(s * 0.6, s * 0.32, s * 1.4), dark, (x - s * 0.2, side * s * 0.98, z))
        elif kind == "bear":
            toy.add(sphere(s * 0.36, 14), fur, (x - s * 0.2, y * 1.1, z + s * 0.8))
        else:
            ear = ellipsoid(s * 0.25, s * 0.9, s * 0.5)
            toy.add(ear, fur, (x - s * 0.2, side * s * 1.1, z + s * 0.4), turn=[(0, side * 20)])
        if kind in {"cow", "giraffe"}:
            horn = [(x - s * 0.1, y * 0.7, z + s * 0.7), (x - s * 0.1, y * 1.1, z + s * 1.5)]
            toy.add(tube(horn, [s * 0.16, s * 0.1], 10, 1), toy.palette.light)


def bird(toy: ToyBuilder) -> None:
    """A bird: a duck, a chick, an owl, a penguin or a parrot."""
    palette = toy.palette
    kind = toy.choice(["duck", "chick", "owl", "penguin", "duck"])
    feathers = toy.choice([palette.main, palette.main, (0.97, 0.84, 0.25), (0.93, 0.92, 0.9)])
    wing = toy.choice([palette.second, mixed(feathers, BLACK, 0.25)])
    if kind in {"owl", "penguin"}:
        r, h = toy.uniform(0.26, 0.33), toy.uniform(0.75, 0.9)
        shape = [(0, 0), (r * 0.8, 0), (r * 1.1, h * 0.35), (r * 0.8, h * 0.8), (0, h)]
        back = mixed(feathers, BLACK, 0.75) if kind == "penguin" else feathers
        toy.add(lathe(rounded(shape, 0.3, 7)), back, (0, 0, 0.04))
        belly = WHITE if kind == "penguin" else mixed(feathers, WHITE, 0.5)
        pattern = patterns.scales if kind == "owl" else None
        look = Paint(belly, mixed(belly, BLACK, 0.3), pattern, cell=0.12)
        toy.add(ellipsoid(r, r * 1.5, h * 0.62), look, (r * 0.52, 0, h * 0.37))
        for side in (-1, 1):
            toy.add(ellipsoid(0.2, 0.08, h * 0.5), wing if kind == "owl" else back,
                    (0, side * r * 1.04, h * 0.45), turn=[(0, side * 14)])  # fmt: skip
            if kind == "owl":
                tuft = cylinder(0.06, 0.16, 0.05, 0.0, 12)
                toy.add(tuft, wing, (0.02, side * r * 0.5, h * 0.99), turn=[(0, -side * 16)])
                toy.add(rotated(cylinder(0.11, 0.05, segments=20), 1, 90), WHITE,
                        (r * 0.66, side * 0.11, h * 0.78))  # fmt: skip
        _eyes(toy, r * 0.72, 0.1, h * 0.8, 0.05)
        beak = rotated(cylinder(0.055, 0.15, 0.1, 0.0, 12), 1, 90)
        toy.add(beak, ORANGE, (r * 0.8, 0, h * 0.7))
        toy.add(ellipsoid(0.24, 0.16, 0.09), ORANGE, (0.14, 0.12, 0.045), (0.14, -0.12, 0.045))
        return
    size = toy.uniform(0.15, 0.2)
    a, z = toy.uniform(0.32, 0.42), 0.27
    rows = [(-a, z + 0.14, 0.04, 0.05), (-a * 0.6, z + 0.02, 0.26, 0.25), (0, z - 0.02, 0.4, 0.4),
            (a * 0.6, z, 0.34, 0.36), (a * 0.95, z + 0.04, 0.1, 0.14)]  # fmt: skip
    toy.add(loft(rows), Paint(feathers, roughness=0.9))
    x, up = a * 0.6, z + (0.36 if kind == "duck" else 0.25)
    toy.add(tube([(a * 0.4, 0, z + 0.05), (x, 0, up)], [0.16, size * 0.7], 16, 1), feathers)
    toy.add(sphere(size), toy.choice([feathers, wing]), (x, 0, up))
    _eyes(toy, x + size * 0.75, size * 0.55, up + size * 0.3, size * 0.17)
    if kind == "duck":
        bill = ellipsoid(size * 1.3, size * 1.1, size * 0.4)
        toy.add(bill, ORANGE, (x + size * 1.2, 0, up - size * 0.2))
    else:
        toy.add(rotated(cylinder(size * 0.35, size * 0.8, 0.05, 0.0, 12), 1, 90), ORANGE,
                (x + size * 1.2, 0, up))  # fmt: skip
        for k in (-1, 0, 1):
            part = translated(sphere(size * 0.28, 12), (x + k * size * 0.35, 0, up + size))
            toy.add(part, (0.85, 0.15, 0.12))
    plume = materials.surface(toy, wing, 0.6)
    for side in (-1, 1):
        toy.add(ellipsoid(0.42, 0.1, 0.24), plume, (-0.06, side * 0.2, z + 0.04),
                turn=[(1, 12), (2, side * 6)])  # fmt: skip
        if kind != "duck" or toy.chance(0.5):
            toy.add(cylinder(0.025, 0.2, bevel=0.0, segments=10), ORANGE, (0.02, side * 0.1, 0.05))
            toy.add(ellipsoid(0.2, 0.12, 0.05), ORANGE, (0.06, side * 0.1, -0.03))


def fish(toy: ToyBuilder) -> None:
    """A fish, a whale, a turtle, a snail or a caterpillar."""
    palette, kind = toy.palette, toy.integer(0, 3)
    if kind == 0:
        a, tall = toy.uniform(0.36, 0.46), toy.uniform(0.3, 0.5)
        z = tall * 0.6
        rows = [(-a, z, 0.05, 0.1), (-a * 0.4, z, 0.2, tall * 0.7), (a * 0.2, z, 0.26, tall),
                (a * 0.8, z, 0.18, tall * 0.6), (a, z, 0.05, tall * 0.2)]  # fmt: skip
        pattern = toy.choice([patterns.scales, patterns.vertical_stripes])
        toy.add(loft(rows), Paint(palette.main, palette.second, pattern, cell=0.13))
        for up in (-1, 1):
            toy.add(ellipsoid(0.3, 0.05, 0.14), palette.accent, (-a - 0.06, 0, z + up * 0.09),
                    turn=[(1, up * 38)])  # fmt: skip
            toy.add(ellipsoid(0.2, 0.04, 0.12), palette.accent, (a * 0.15, up * 0.15, z - 0.05),
                    turn=[(2, up * -30)])  # fmt: skip
        toy.add(ellipsoid(0.34, 0.05, 0.22), palette.accent, (-0.02, 0, z + tall * 0.46))
        _eyes(toy, a * 0.72, 0.085, z + tall * 0.14, 0.05)
    elif kind == 1:
        dome = rounded([(0, 0.1), (0.4, 0.1), (0.38, 0.2), (0.2, 0.36), (0, 0.38)], 0.2, 6)
        toy.add(lathe(dome, 30), materials.surface(toy, palette.main, 0.1, "sphere"))
        body = palette.second
        toy.add(cylinder(0.36, 0.08, 1.0, 0.6), body, (0, 0, 0.12))
        toy.add(tube([(0.3, 0, 0.14), (0.5, 0, 0.24)], [0.08, 0.09], 12, 1), body)
        toy.add(sphere(0.12), body, (0.54, 0, 0.27))
        _eyes(toy, 0.62, 0.07, 0.32, 0.03)
        toy.add(ellipsoid(0.18, 0.18, 0.2), body, *[(x * 0.25, s * 0.26, 0.09) for x in (-1, 1)
                                                    for s in (-1, 1)])  # fmt: skip
        toy.add(cylinder(0.05, 0.16, 0.1, 0.0, 10), body, (-0.42, 0, 0.11), turn=[(1, -100)])
    elif kind == 2:
        foot = [(-0.45, 0.05, 0.1, 0.06), (-0.2, 0.07, 0.22, 0.14), (0.25, 0.08, 0.2, 0.16),
                (0.42, 0.14, 0.16, 0.2), (0.5, 0.18, 0.1, 0.12)]  # fmt: skip
        toy.add(loft(foot), palette.second)
        line = rounded([(0, -0.13), (0.2, -0.12), (0.28, 0), (0.2, 0.12), (0, 0.13)], 0.1)
        toy.add(rotated(lathe(line, 32), 0, 90), palette.main, (-0.04, 0, 0.38))
        for k, size in enumerate((0.2, 0.12)):
            hoop = rotated(torus(size, 0.035, 28, 8), 0, 90)
            toy.add(hoop, palette.accent, *pair(-0.04, 0.12 + 0.02 * k, 0.38))
        for side in (-1, 1):
            tip = (0.52, side * 0.09, 0.42)
            toy.add(tube([(0.44, side * 0.04, 0.2), tip], 0.02, 8, 1), palette.second)
            toy.add(sphere(0.04, 12), BLACK, tip)
    else:
        count = toy.integer(5, 7)
        for k in range(count):
            x, side = -0.45 + 0.9 * k / (count - 1), (-1) ** k
            r = 0.15 if k < count - 1 else 0.19
            toy.add(sphere(r, 20), [palette.main, palette.second][k % 2],
                    (x, 0.03 * side, r + 0.02 * (k % 2)))  # fmt: skip
            toy.add(sphere(0.05, 10), palette.dark, *pair(x, 0.1, 0.03))
        _eyes(toy, 0.6, 0.08, 0.25, 0.045)
        for side in (-1, 1):
            tip = (0.5, side * 0.12, 0.5)
            toy.add(tube([(0.45, side * 0.06, 0.3), tip], 0.015, 8, 1), palette.dark)
            toy.add(sphere(0.035, 10), palette.accent, tip)


SKIN: list[RGB] = [(0.96, 0.8, 0.68), (0.85, 0.62, 0.45), (0.55, 0.36, 0.24), (0.98, 0.85, 0.4)]


def _hat(toy: ToyBuilder, z: float, radius: float) -> None:
    """Add a hat to a head with its top at this height."""
    palette, kind = toy.palette, toy.integer(0, 3)
    if kind == 0:
        toy.add(cylinder(radius * 1.25, radius * 0.14, bevel=0.4), palette.dark, (0, 0, z))
        band = Paint(palette.dark, palette.accent, patterns.bands(0.08, 0.35), "cylinder")
        toy.add(cylinder(radius * 0.75, radius, 1.05, 0.1), band, (0, 0, z + radius * 0.5))
    elif kind == 1:
        look = materials.surface(toy, palette.accent, 0.3, "cylinder")
        toy.add(cylinder(radius * 0.8, radius * 1.7, 0.04, 0.05), look, (0, 0, z + radius * 0.6))
        toy.add(sphere(radius * 0.24, 14), palette.light, (0, 0, z + radius * 1.45))
    elif kind == 2:
        look = materials.surface(toy, palette.accent, 0.3, "sphere")
        dome = ellipsoid(radius * 1.9, radius * 1.9, radius * 1.5)
        toy.add(dome, look, (0, 0, z - radius * 0.25))
        toy.add(torus(radius * 0.88, radius * 0.16), palette.light, (0, 0, z - radius * 0.3))
        toy.add(sphere(radius * 0.3, 14), palette.light, (0, 0, z + radius * 0.55))


def snowman(toy: ToyBuilder) -> None:
    """Two or three balls of snow with a carrot, buttons, arms, and a hat."""
    palette = toy.palette
    snow = (0.95, 0.96, 0.98) if toy.chance(0.8) else palette.light
    r, z = toy.uniform(0.27, 0.34), 0.0
    sizes = [r, r * 0.76, r * 0.56] if toy.chance(0.6) else [r, r * 0.7]
    centres = []
    for size in sizes:
        centres.append(z + size * 0.93)
        toy.add(sphere(size), Paint(snow, roughness=0.9), (0, 0, centres[-1]))
        z = centres[-1] + size * 0.72
    head, top = sizes[-1], centres[-1]
    toy.add(rotated(cylinder(head * 0.2, head * 0.9, 0.1, 0.1, 14), 1, 90), ORANGE,
            (head * 1.25, 0, top))  # fmt: skip
    toy.add(sphere(head * 0.12, 10), BLACK, *pair(head * 0.88, head * 0.34, top + head * 0.32))
    chest, height = sizes[-2], centres[-2]
    for x, t in ((0.93, 0.35), (0.99, 0.05), (0.95, -0.25)):
        toy.add(sphere(chest * 0.1, 10), palette.accent, (chest * x, 0, height + chest * t))
    for side in (-1, 1):
        shoulder = (0, side * chest * 0.8, height + chest * 0.2)
        hand = (0.05, side * chest * 1.9, height + chest * toy.uniform(0.2, 1.0))
        toy.add(tube([shoulder, hand], [0.03, 0.022], 8, 1), (0.4, 0.26, 0.15))
    if toy.chance(0.7):
        scarf = materials.surface(toy, palette.main, 0.4, "cylinder")
        toy.add(torus(head * 0.75, head * 0.22), scarf, (0, 0, top - head * 0.75))
        toy.add(box(0.05, head * 0.4, head * 0.9, 0.6), scarf.first,
                (head * 0.95, head * 0.3, top - head * 1.2))  # fmt: skip
    _hat(toy, top + head * 0.78, head)


def robot(toy: ToyBuilder) -> None:
    """A robot of boxes and cylinders."""
    palette = toy.palette
    colour = toy.choice([*METAL[:3], palette.main, palette.main, palette.second])
    shell = Paint(colour, roughness=0.45)
    w, h, d = toy.uniform(0.34, 0.5), toy.uniform(0.34, 0.48), toy.uniform(0.24, 0.32)
    legs = toy.uniform(0.18, 0.32)
    panel = Paint(shell.first, decal=materials.random_decal(toy), place=(0.5, 0.55, 0.34, 0.3))
    body = box(d, w, h, 0.3) if toy.chance(0.7) else cylinder(w / 2, h, 0.85, 0.2)
    toy.add(body, panel, (0, 0, legs + h / 2))
    if toy.chance(0.3):
        toy.add(rotated(cylinder(legs / 2, 0.14, 1.0, 0.2), 0, 90), palette.dark,
                *[(x, s * w * 0.42, legs / 2) for x in (-0.12, 0.12) for s in (-1, 1)])  # fmt: skip
        toy.add(box(d * 0.8, w * 0.7, legs * 0.8), palette.dark, (0, 0, legs * 0.7))
    else:
        leg = cylinder(0.06, legs + 0.08, 1.0, 0.0, 16)
        toy.add(leg, palette.dark, *pair(0, w * 0.27, legs / 2 + 0.04))
        toy.add(box(0.24, 0.15, 0.1, 0.5), palette.accent, *pair(0.03, w * 0.27, 0.05))  # fmt: skip
    z, size = legs + h, toy.uniform(0.26, 0.36)
    toy.add(cylinder(0.06, 0.12, bevel=0.0, segments=16), palette.dark, (0, 0, z + 0.03))
    tall = size * toy.uniform(0.7, 1.0)
    colour = toy.choice([shell.first, palette.second])
    mien = face(toy.integer(0, 5), palette.accent)
    look = Paint(colour, decal=mien, place=(0.5, 0.5, 0.4, 0.42))
    toy.add(box(size * 0.8, size, tall, 0.35), look, (0, 0, z + 0.07 + tall / 2))
    top = z + 0.07 + tall
    for side in (-1, 1):
        if toy.chance(0.5):
            side_knob = rotated(cylinder(0.06, 0.06, segments=14), 0, 90)
            toy.add(side_knob, palette.accent, (0, side * size / 2, z + 0.07 + tall / 2))
    if toy.chance(0.7):
        toy.add(cylinder(0.015, 0.16, bevel=0.0, segments=8), palette.dark, (0, 0, top + 0.07))
        toy.add(sphere(0.045, 14), palette.accent, (0, 0, top + 0.16))
    up, y = toy.choice([-1.0, -1.0, 0.7]), w / 2
    for side in (-1, 1):
        shoulder = legs + h * 0.8
        hand = (0.12, side * (y + 0.14), shoulder + up * 0.26)
        joint, elbow = (0, side * (y + 0.03), shoulder), (0.02, side * (y + 0.14))
        toy.add(sphere(0.075, 14), palette.accent, joint)
        toy.add(tube([joint, (*elbow, shoulder + up * 0.1), hand], 0.042, 10), palette.dark)
        toy.add(sphere(0.07, 14), shell.first, hand)


def person(toy: ToyBuilder) -> None:
    """A doll with a round body, head, arms and hair or a hat; or a tumbler."""
    palette, skin = toy.palette, toy.choice(SKIN)
    r, h = toy.uniform(0.2, 0.28), toy.uniform(0.42, 0.6)
    dress = materials.surface(toy, palette.main, 0.25, "cylinder")
    kind = toy.integer(0, 2)
    shapes = {
        0: [(0, 0), (r * 1.2, 0), (r * 1.2, 0.05), (r * 0.45, h), (0, h)],
        1: [(0, 0), (r * 0.8, 0), (r * 1.15, h * 0.45), (r * 0.4, h), (0, h)],
        2: [(0, 0), (r * 0.8, 0), (r * 0.85, h * 0.9), (r * 0.4, h), (0, h)],
    }
    toy.add(lathe(rounded(shapes[kind], 0.15, 5)), dress)
    head = toy.uniform(0.17, 0.23)
    z = h + head * 0.75
    look = Paint(skin, decal=face(toy.integer(0, 5)), wrap="sphere", place=(0.5, 0.47, 0.46, 0.28))
    toy.add(sphere(head), look, (0, 0, z))
    if kind != 1:
        for side in (-1, 1):
            shoulder = (0, side * r * 0.35, h * 0.9)
            hand = (0.1, side * r * 1.35, h * toy.choice([0.5, 0.55, 1.05]))
            arm = [shoulder, (0.02, side * r * 0.95, h * 0.75), hand]
            toy.add(tube(arm, 0.05, 10), dress.first)
            toy.add(sphere(0.06, 12), skin, hand)
    if toy.chance(0.5):
        _hat(toy, z + head * 0.75, head)
        return
    hair = toy.choice([(0.2, 0.14, 0.1), (0.5, 0.3, 0.15), (0.9, 0.75, 0.35), palette.accent])
    locks = ellipsoid(head * 2.05, head * 2.15, head * 1.9)
    toy.add(locks, hair, (-head * 0.22, 0, z + head * 0.28))
    if toy.chance(0.5):
        toy.add(sphere(head * 0.4, 14), hair, *pair(-head * 0.2, head * 1.05, z + head * 0.5))
