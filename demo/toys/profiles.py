"""2D profiles, such as letters, stars and hearts, and their extrusion to plates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from common.optional import import_optional
from demo import REQUIREMENTS
from demo.toys.solids import Solid

Profile = list[np.ndarray]
"""Closed polygons (P, 2), counter-clockwise; holes are clockwise."""

STROKES = {
    "A": "002640 1333", "B": "00063645443303 334241301000", "C": "4536160501103041",
    "D": "00062644422000", "E": "46060040 0333", "F": "460600 0333", "G": "45361605011030414323",
    "H": "0006 4046 0343", "J": "4641301001", "K": "0006 460340", "L": "060040",
    "M": "0006234640", "N": "00064046", "P": "00063645443303", "R": "00063645443303 2340",
    "S": "453616050413334241301001", "T": "0646 2620", "U": "060110304146", "V": "062046",
    "W": "0610233046", "X": "0046 0640", "Y": "062346 2320", "Z": "06460040", "1": "052620 1030",
    "2": "05163645440040", "3": "05163645443313 334241301001", "4": "30360242",
    "5": "460603334241301001", "6": "36160501103041423303", "7": "064610",
    "8": "13040516364544331302011030414233", "9": "1030414536160504133343",
}  # fmt: skip
"""Strokes of letters and digits: pairs of digits are x, 0 to 4, and y, 0 to 6."""


def letter(name: str, width: float) -> Profile:
    """Return a letter or digit of `STROKES`, height 1, centred, written with a round pen."""
    kernel = import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    scale = (1 - width) / 6
    pen = kernel.CrossSection.circle(width / 2, 12)
    segments = []
    for stroke in STROKES[name].split():
        points = (np.array([int(digit) for digit in stroke]).reshape(-1, 2) - [2, 3]) * scale
        for a, b in pairwise(points):
            ends = [pen.translate(tuple(a)), pen.translate(tuple(b))]
            segments.append(kernel.CrossSection.batch_hull(ends))
    whole = kernel.CrossSection.batch_boolean(segments, kernel.OpType.Add)
    return [np.asarray(line) for line in whole.simplify(0.004).to_polygons()]


def star(points: int, inner: float) -> Profile:
    """Return a star of radius 1/2 with an inner radius of `inner` times that."""
    angle = np.pi / 2 + np.arange(2 * points) / points * np.pi
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0) / 2
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)]


def heart() -> Profile:
    """Return a heart of about size 1."""
    t = -np.linspace(0, 2 * np.pi, 801)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    length = np.append(0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
    # equal steps, as points that are close cannot be bevelled; one on the notch, one on the tip
    at = np.arange(44) / 44 * length[-1]
    return [np.stack([np.interp(at, length, x), np.interp(at, length, y) + 2], -1) / 32]


def arrow(shaft: float, head: float) -> Profile:
    """Return an arrow upwards, of height 1."""
    w = shaft / 2
    points = [(-w, -0.5), (w, -0.5), (w, 0.5 - head), (0.45, 0.5 - head), (0, 0.5)]
    points += [(-0.45, 0.5 - head), (-w, 0.5 - head)]
    return [np.array(points)]


def cross(width: float) -> Profile:
    """Return a plus sign of size 1."""
    w, h = width / 2, 0.5
    points, out = np.array([(h, -w), (h, w), (w, w)]), []
    for _ in range(4):
        out.append(points)
        points = points @ np.array([[0, 1], [-1, 0]])
    return [np.concatenate(out)]


def gear(teeth: int, depth: float, hole: float) -> Profile:
    """Return a gear of radius 1/2 with a round hole."""
    angle = np.arange(4 * teeth) / (4 * teeth) * 2 * np.pi
    radius = np.where(np.arange(4 * teeth) % 4 < 2, 0.5, 0.5 - depth)
    turn = -np.arange(24) / 24 * 2 * np.pi
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    return [outline, hole * np.stack([np.cos(turn), np.sin(turn)], -1)]


def crescent(offset: float) -> Profile:
    """Return a crescent of radius 1/2, open to the right."""
    kernel = import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    disc = kernel.CrossSection.circle(0.5, 40)
    left = disc - kernel.CrossSection.circle(0.42, 40).translate((offset, 0.06))
    blunt = left.offset(-0.05, kernel.JoinType.Round).offset(0.05, kernel.JoinType.Round, 2.0, 24)
    return [np.asarray(line) for line in blunt.simplify(0.006).to_polygons()]


def polygon(points: Sequence[Sequence[float]]) -> Profile:
    """Return a polygon, counter-clockwise, as a profile."""
    return [np.asarray(points, dtype=np.float64)]


def plate(profile: Profile, thickness: float, bevel: float = 0.02) -> Solid:
    """Cut a plate that faces +x along a profile, whose (x, y) become (y, z); x = 0 is its middle.

    Its edges are broken by `bevel`, a length that is small beside everything in the profile.
    """
    kernel = import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    inset = [_inset(line, bevel) for line in profile]
    caps = np.asarray(kernel.triangulate(list(map(np.ascontiguousarray, inset)))).astype(int)
    half, count = thickness / 2, sum(map(len, profile))
    flat, small = np.concatenate(profile), np.concatenate(inset)
    depths = [(-half, small), (bevel - half, flat), (half - bevel, flat), (half, small)]
    vertices = np.concatenate([np.column_stack([np.full(count, x), yz]) for x, yz in depths])
    faces = [caps[:, ::-1], caps + 3 * count]
    start = 0
    for line in profile:
        a = start + np.arange(len(line))
        b = start + (np.arange(len(line)) + 1) % len(line)
        for level in range(3):
            low, high = level * count, (level + 1) * count
            faces.append(np.stack([a + low, b + low, b + high], -1))
            faces.append(np.stack([a + low, b + high, a + high], -1))
        start += len(line)
    return Solid(vertices, np.concatenate(faces))


def side_plate(points: list[tuple[float, float]], width: float, bevel: float = 0.03) -> Solid:
    """Extrude a polygon (x, z), counter-clockwise seen from the right (-y), to this width."""
    solid = plate(polygon(points), width, bevel)
    return Solid(solid.vertices[:, [1, 0, 2]] * [1, -1, 1], solid.faces)


def _inset(line: np.ndarray, width: float) -> np.ndarray:
    """Offset a polygon to its left, corners along their mitre by at most twice the width."""
    ahead = np.roll(line, -1, axis=0) - line
    ahead = ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-12)
    left = np.stack([-ahead[:, 1], ahead[:, 0]], -1)
    mitre = left + np.roll(left, 1, axis=0)
    mitre /= np.maximum((mitre**2).sum(axis=1, keepdims=True) / 2, 0.5)
    return line + width * mitre
