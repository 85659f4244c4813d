"""A toy locomotive as a signed distance function, and a small renderer for it in NumPy.

The documentation's figures and the bundled example input show it, so nothing has to be downloaded.
It is in the world of `multiview.cameras`: z up, centred, its length (the longest side) is 1; it
faces the x axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from multiview.cameras import CAMERA_DISTANCE, orbit_cameras, orbit_pose

Distance = Callable[[np.ndarray], np.ndarray]
Paint = Callable[[np.ndarray], np.ndarray]
"""Colour of the surface at world points (3, N), linear RGB (3, N)."""
Vector = tuple[float, float, float]

CENTRE_Z = 0.0675  # half the difference of the toy's top and bottom as modelled below
BOUNDS = np.array([0.51, 0.26, 0.40])  # half sides of a box around the toy
STEP = 0.8  # step of sphere tracing in distances: those of bent and tapered parts are too large
EPSILON = 4e-4
RAYS_AT_ONCE = 1 << 14

RED, TEAL, NAVY = (0.66, 0.05, 0.04), (0.03, 0.34, 0.36), (0.03, 0.05, 0.12)
GOLD, CREAM, WOOD = (0.88, 0.47, 0.04), (0.86, 0.76, 0.58), (0.45, 0.23, 0.09)


def _box(centre: Vector, half: Vector, rounding: float, bend: float = 0.0) -> Distance:
    """Return a rounded box; `bend` lowers it by `bend` y^2, like a roof."""

    def distance(p: np.ndarray) -> np.ndarray:
        x, y, z = (np.abs(p[i] - centre[i] + (bend * p[1] ** 2 if i == 2 else 0)) for i in range(3))
        x, y, z = (a - (h - rounding) for a, h in zip((x, y, z), half, strict=True))
        outside = np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 + np.maximum(z, 0) ** 2
        return np.sqrt(outside) + np.minimum(np.maximum(np.maximum(x, y), z), 0) - rounding

    return distance


def _cylinder(
    axis: int, centre: Vector, radius: float, half: float, rounding: float, taper: float = 0.0
) -> Distance:
    """Return a rounded cylinder; its radius grows by `taper` per unit of length along the axis."""
    a, b = (i for i in range(3) if i != axis)

    def distance(p: np.ndarray) -> np.ndarray:
        along = p[axis] - centre[axis]
        around = np.sqrt((p[a] - centre[a]) ** 2 + (p[b] - centre[b]) ** 2)
        u = around - (radius - rounding + taper * along)
        v = np.abs(along) - (half - rounding)
        outside = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
        return outside + np.minimum(np.maximum(u, v), 0) - rounding

    return distance


def _sphere(centre: Vector, radius: float, squash: float = 1.0) -> Distance:
    """Return an ellipsoid, `squash` times as high as wide."""

    def distance(p: np.ndarray) -> np.ndarray:
        z = (p[2] - centre[2]) / squash
        return np.sqrt((p[0] - centre[0]) ** 2 + (p[1] - centre[1]) ** 2 + z**2) - radius

    return distance


def _both_sides(part: Distance) -> Distance:
    return lambda p: part(np.stack([p[0], np.abs(p[1]), p[2]]))


def _cut(part: Distance, *holes: Distance) -> Distance:
    return lambda p: np.maximum(part(p), -np.minimum.reduce([hole(p) for hole in holes]))


def _smile(p: np.ndarray) -> np.ndarray:
    """Distance to the lower arc of a thin ring on the boiler's front."""
    x, y, z = p[0] - 0.406, np.abs(p[1]), p[2] - 0.04
    arc = np.sqrt((np.sqrt(y**2 + z**2) - 0.088) ** 2 + x**2)
    end = np.sqrt((y - 0.0665) ** 2 + (z + 0.0576) ** 2 + x**2)
    return np.where(z < -0.866 * y, arc, end) - 0.011


def _cow_catcher(p: np.ndarray) -> np.ndarray:
    """Distance to a plough: a box whose front slopes up backwards and to both sides."""
    box = _box((0.41, 0.0, -0.245), (0.11, 0.165, 0.065), 0.015)(p)
    slope = 0.74 * (p[0] - 0.5003) + 0.37 * np.abs(p[1]) + 0.56 * (p[2] + 0.31)
    return np.maximum(box, slope)


def _pennant(p: np.ndarray) -> np.ndarray:
    """Distance to a waving triangle that points backwards."""
    wave = _box((-0.40, 0.13, 0.392), (0.08, 0.009, 0.05), 0.008)
    waving = wave(np.stack([p[0], p[1] + 0.016 * np.sin(35 * (p[0] + 0.33)), p[2]]))
    return np.maximum(waving, 0.95 * np.abs(p[2] - 0.392) - 0.3 * (p[0] + 0.487))


# The cab's sides differ: one large window on the left (y > 0), two small ones on the right.
_WINDOWS = (
    _box((-0.28, 0.2, 0.11), (0.085, 0.1, 0.08), 0.06),
    _box((-0.35, -0.2, 0.115), (0.04, 0.1, 0.07), 0.02),
    _box((-0.21, -0.2, 0.115), (0.04, 0.1, 0.07), 0.02),
    _box((-0.48, 0.0, 0.11), (0.1, 0.085, 0.08), 0.03),
)
_CAB = _cut(
    _box((-0.28, 0.0, 0.06), (0.165, 0.185, 0.20), 0.03),
    _box((-0.28, 0.0, 0.08), (0.14, 0.16, 0.155), 0.02),
    *_WINDOWS,
)


def _window_frames(p: np.ndarray) -> np.ndarray:
    walls = np.minimum(np.abs(np.abs(p[1]) - 0.183), np.abs(p[0] + 0.443))
    edges = np.abs(np.minimum.reduce([window(p) for window in _WINDOWS]))
    return np.maximum(walls, edges) - 0.011


PARTS: tuple[tuple[Vector, Distance], ...] = (
    (NAVY, _box((-0.03, 0.0, -0.155), (0.435, 0.165, 0.04), 0.02)),
    (NAVY, _box((-0.02, 0.0, -0.215), (0.40, 0.145, 0.04), 0.02)),
    (CREAM, _both_sides(_cylinder(0, (0.415, 0.11, -0.155), 0.032, 0.02, 0.012))),
    (RED, _cow_catcher),
    (TEAL, _cylinder(0, (0.135, 0.0, 0.04), 0.165, 0.258, 0.035)),
    (GOLD, _cylinder(0, (0.02, 0.0, 0.04), 0.173, 0.017, 0.008)),
    (GOLD, _cylinder(0, (0.30, 0.0, 0.04), 0.173, 0.017, 0.008)),
    (CREAM, _cylinder(0, (0.39, 0.0, 0.04), 0.138, 0.02, 0.012)),
    (GOLD, _sphere((0.425, 0.0, 0.045), 0.036)),
    (NAVY, _both_sides(_sphere((0.41, 0.055, 0.095), 0.019, 1.35))),
    (NAVY, _smile),
    (NAVY, _cylinder(2, (0.26, 0.0, 0.26), 0.058, 0.10, 0.01, 0.22)),
    (RED, _cylinder(2, (0.26, 0.0, 0.365), 0.092, 0.027, 0.02)),
    (GOLD, _sphere((0.08, 0.0, 0.205), 0.068, 0.95)),
    (RED, _sphere((0.08, 0.0, 0.285), 0.022)),
    (RED, _CAB),
    (GOLD, _window_frames),
    (CREAM, _box((-0.28, 0.0, 0.295), (0.215, 0.225, 0.032), 0.028, 1.1)),
    (WOOD, _box((-0.465, 0.0, -0.155), (0.035, 0.05, 0.03), 0.015)),
    (GOLD, _both_sides(_cylinder(1, (0.29, 0.2, -0.235), 0.085, 0.032, 0.016))),
    (GOLD, _both_sides(_cylinder(1, (0.07, 0.2, -0.235), 0.085, 0.032, 0.016))),
    (GOLD, _both_sides(_cylinder(1, (-0.26, 0.2, -0.185), 0.135, 0.032, 0.016))),
    (RED, _both_sides(_cylinder(1, (0.29, 0.22, -0.235), 0.045, 0.024, 0.012))),
    (RED, _both_sides(_cylinder(1, (0.07, 0.22, -0.235), 0.045, 0.024, 0.012))),
    (RED, _both_sides(_cylinder(1, (-0.26, 0.22, -0.185), 0.08, 0.024, 0.012))),
    (CREAM, _both_sides(_box((0.18, 0.245, -0.235), (0.135, 0.012, 0.018), 0.01))),
    (WOOD, _cylinder(2, (-0.325, 0.13, 0.37), 0.013, 0.085, 0.006)),
    (RED, _pennant),
)


def surface_distance(p: np.ndarray) -> np.ndarray:
    """Return the signed distance to the toy at world points (3, N)."""
    p = p + np.array([[0.0], [0.0], [CENTRE_Z]], dtype=p.dtype)
    nearest = PARTS[0][1](p)
    for _, part in PARTS[1:]:
        np.minimum(nearest, part(p), out=nearest)
    return nearest


def part_colour(p: np.ndarray) -> np.ndarray:
    """Return the colour of the nearest part at world points (3, N), linear RGB (3, N)."""
    p = p + np.array([[0.0], [0.0], [CENTRE_Z]], dtype=p.dtype)
    nearest = np.argmin([part(p) for _, part in PARTS], axis=0)
    return np.array([colour for colour, _ in PARTS], dtype=p.dtype).T[:, nearest]


def _march(origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Trace unit rays (3, N) from `origin` (3, 1); return depths, infinite for misses."""
    with np.errstate(divide="ignore"):
        ends = (np.array([[-1.0], [1.0]])[..., None] * BOUNDS[:, None] - origin) / rays
    start, stop = ends.min(0).max(0), ends.max(0).min(0)
    depth = np.full(rays.shape[1], np.inf, dtype=np.float32)
    active = np.flatnonzero(stop > np.maximum(start, 0))
    travelled = start[active].astype(np.float32)
    for _ in range(160):
        if not active.size:
            break
        step = surface_distance(origin + rays[:, active] * travelled)
        hit = step < EPSILON
        depth[active[hit]] = travelled[hit]
        travelled = travelled + STEP * step
        keep = ~hit & (travelled < stop[active])
        active, travelled = active[keep], travelled[keep]
    return depth


def _normals(p: np.ndarray) -> np.ndarray:
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=np.float32)
    gradient = sum(c[:, None] * surface_distance(p + 1e-3 * c[:, None]) for c in corners)
    return gradient / np.linalg.norm(gradient, axis=0)


def _visibility(p: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return soft shadows in [0, 1] at points (3, N) towards the unit vector `light` (3, 1)."""
    visible = np.ones(p.shape[1], dtype=np.float32)
    travelled = np.full(p.shape[1], 0.015, dtype=np.float32)
    for _ in range(18):
        gap = surface_distance(p + light * travelled)
        visible = np.minimum(visible, np.clip(9 * gap / travelled, 0, 1))
        travelled = travelled + np.clip(gap, 0.012, 0.12)
    return visible


def _shade(p: np.ndarray, rays: np.ndarray, paint: Paint) -> np.ndarray:
    """Return linear RGB (3, N): key light with soft shadows, fill light, ambient light, gloss."""
    normals = _normals(p)
    p = p + 2e-3 * normals
    key, fill = (
        np.array(v, dtype=np.float32)[:, None] / np.linalg.norm(v)
        for v in ((0.55, 0.15, 0.95), (-0.7, -0.35, 0.35))
    )
    lit = np.clip((normals * key).sum(0), 0, 1) * _visibility(p, key)
    filled = np.clip(0.35 + 0.65 * (normals * fill).sum(0), 0, 1)
    reach = (0.02, 0.05, 0.10, 0.17)
    hidden = sum((h - surface_distance(p + h * normals)) * 0.5**i / h for i, h in enumerate(reach))
    ambient = np.clip(1 - 0.5 * hidden, 0, 1) * (0.72 + 0.28 * normals[2])
    halfway = key - rays
    halfway /= np.linalg.norm(halfway, axis=0)
    gloss = np.clip((normals * halfway).sum(0), 0, 1) ** 48 * lit
    albedo = paint(p)
    return albedo * (0.85 * lit + 0.25 * filled * ambient + 0.4 * ambient) + 0.2 * gloss


def _pixel_rays(
    pose: np.ndarray, size: int, samples: int, pixel_centre: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rays of an image in row order, `samples` along each side of a pixel.

    Returns:
        The camera's position (3, 1) and unit directions (3, N), float32.
    """
    rotation, translation = pose[:, :3], pose[:, 3]
    intrinsics = orbit_cameras(num_views=1, image_size=size).intrinsics[0]
    steps = (np.arange(size * samples) + 0.5) / samples - 0.5 + pixel_centre
    pixels = np.stack([*np.meshgrid(steps, steps), np.ones((len(steps),) * 2)]).reshape(3, -1)
    rays = rotation.T @ np.linalg.inv(intrinsics) @ pixels
    rays = (rays / np.linalg.norm(rays, axis=0)).astype(np.float32)
    return (-rotation.T @ translation).astype(np.float32)[:, None], rays


def render(elevation_deg: float, azimuth_deg: float, size: int, samples: int = 3) -> Image.Image:
    """Render the toy from a camera on the orbit; pixel centres are whole numbers.

    Args:
        elevation_deg: degrees above the horizon.
        azimuth_deg: degrees; 0 sees the toy's front, 90 its left side.
        size: pixels a side.
        samples: rays per pixel along each side of it.

    Returns:
        RGBA image; alpha is the antialiased mask.
    """
    pose = orbit_pose(np.deg2rad(elevation_deg), np.deg2rad(azimuth_deg), CAMERA_DISTANCE)
    return render_pose(pose, size, samples)


def render_pose(
    pose: np.ndarray,
    size: int,
    samples: int = 3,
    pixel_centre: float = 0.0,
    paint: Paint = part_colour,
) -> Image.Image:
    """Render the toy with the project's intrinsics from any pose.

    Args:
        pose: world-to-camera `[R | t]`, (3, 4).
        size: pixels a side.
        samples: rays per pixel along each side of it.
        pixel_centre: the centre of the pixel in column j and row i is (j + pixel_centre,
            i + pixel_centre): 0 for whole numbers, 0.5 as in Blender and rasterisers.
        paint: colour of the surface.

    Returns:
        RGBA image; alpha is the antialiased mask.
    """
    origin, rays = _pixel_rays(pose, size, samples, pixel_centre)
    linear = np.zeros((4, rays.shape[1]), dtype=np.float32)  # premultiplied
    for first in range(0, rays.shape[1], RAYS_AT_ONCE):
        chunk = rays[:, first : first + RAYS_AT_ONCE]
        depth = _march(origin, chunk)
        hit = np.flatnonzero(np.isfinite(depth))
        if hit.size:
            points = origin + chunk[:, hit] * depth[hit]
            linear[:3, first + hit] = np.clip(_shade(points, chunk[:, hit], paint), 0, 1)
            linear[3, first + hit] = 1
    linear = linear.reshape(4, size, samples, size, samples).mean(axis=(2, 4))
    alpha = linear[3:]
    colour = np.divide(linear[:3], alpha, out=np.zeros_like(linear[:3]), where=alpha > 0)
    image = np.concatenate([colour ** (1 / 2.2), alpha])
    return Image.fromarray((image * 255).round().astype(np.uint8).transpose(1, 2, 0))


def render_depth(pose: np.ndarray, size: int, pixel_centre: float = 0.0) -> np.ndarray:
    """Render depth along the camera's z axis, one ray a pixel; arguments as `render_pose`.

    Returns:
        World units, infinite in the background, (size, size) float32.
    """
    origin, rays = _pixel_rays(pose, size, 1, pixel_centre)
    chunks = np.split(rays, range(RAYS_AT_ONCE, rays.shape[1], RAYS_AT_ONCE), axis=1)
    along = np.concatenate([_march(origin, chunk) for chunk in chunks])
    z_per_unit = pose[2, :3].astype(np.float32) @ rays
    return (along * z_per_unit).reshape(size, size)
