"""Snowmen, robots and people."""

from __future__ import annotations

from demo.toys import materials, patterns
from demo.toys.decals import face
from demo.toys.paint import Paint
from demo.toys.palettes import BLACK, METAL, RGB
from demo.toys.solids import (
    box,
    cylinder,
    ellipsoid,
    lathe,
    pair,
    rotated,
    rounded,
    sphere,
    torus,
    tube,
)
from demo.toys.toy_builder import ToyBuilder

SKIN: list[RGB] = [(0.96, 0.8, 0.68), (0.85, 0.62, 0.45), (0.55, 0.36, 0.24), (0.98, 0.85, 0.4)]
ORANGE: RGB = (0.96, 0.55, 0.12)


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
    colour, decal = (
        toy.choice([shell.first, palette.second]),
        face(toy.integer(0, 5), palette.accent),
    )
    look = Paint(colour, decal=decal, place=(0.5, 0.5, 0.4, 0.42))
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
