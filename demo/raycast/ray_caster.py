"""Ray caster for textured meshes on a CPU: pixels of many views, much as Blender renders them.

Same cameras, lights and tone curve as the published Blender job; see `shading` for what is simpler.
It takes a fraction of a second an object.
"""

from __future__ import annotations

import numpy as np

from demo.raycast.ray_scene import RayScene
from demo.raycast.shading import SURFACE_OFFSET, shade
from multiview.cameras import Cameras

MAX_LAYERS = 4
"""Surfaces behind each other that a ray passes; the last one counts as opaque."""
RAYS_AT_ONCE = 2**19
_FIRST_STOP = -12.5
_STOPS_APART = 0.5
_CURVE = np.array([
    0.0, 0.0018, 0.0042, 0.0072, 0.0110, 0.0159, 0.0220, 0.0297, 0.0394, 0.0515, 0.0666, 0.0853,
    0.1082, 0.1360, 0.1694, 0.2090, 0.2551, 0.3076, 0.3662, 0.4297, 0.4967, 0.5642, 0.6310, 0.6950,
    0.7542, 0.8072, 0.8534, 0.8923, 0.9241, 0.9494, 0.9688, 0.9832, 0.9932, 0.9997,
], np.float32)  # fmt: skip
"""Display value of a grey of 2**stop, measured in Blender 3.4."""


def sample_distance(cameras: Cameras, supersampling: int) -> float:
    """Return the distance of neighbouring rays near the origin."""
    distance = float(np.linalg.norm(cameras.world_to_camera[0, :, 3]))
    return distance / float(cameras.intrinsics[0, 0, 0]) / supersampling


def filmic(light: np.ndarray) -> np.ndarray:
    """Tone-map light of any shape, each channel by itself, by Blender's "Filmic": values 0 to 1.

    Blender's own also takes colour out of what is brighter than about 2, which no surface in the
    training images' light is.
    """
    stops = np.log2(np.maximum(light, 2.0**_FIRST_STOP))
    known = _FIRST_STOP + _STOPS_APART * np.arange(len(_CURVE))
    return np.interp(stops, known, _CURVE).astype(np.float32)


def to_pixels(light: np.ndarray) -> np.ndarray:
    """Tone-map linear RGBA with premultiplied alpha to sRGB bytes with straight alpha, (..., 4)."""
    alpha = light[..., 3:]
    colour = filmic(light[..., :3] / np.maximum(alpha, 1e-6))
    values = np.concatenate([np.where(alpha > 0, colour, 0.0), alpha], axis=-1)
    return (values * 255 + 0.5).clip(0, 255).astype(np.uint8)


def render_light(scene: RayScene, cameras: Cameras, size: int, supersampling: int) -> np.ndarray:
    """Render linear light of all views: RGB, premultiplied, and alpha, (N, size, size, 4) float32.

    The N cameras are for images of this size; supersampling is rays a pixel in each direction.
    """
    views = len(cameras.intrinsics)
    views_at_once = max(1, RAYS_AT_ONCE // (size * supersampling) ** 2)
    pixels = np.zeros((views * size * size, 4), np.float32)
    points = scene.arrays.corners.reshape(-1, 3).T.copy()
    for start in range(0, views, views_at_once):
        chosen = range(start, min(start + views_at_once, views))
        rays = [_camera_rays(points, cameras, i, size, supersampling) for i in chosen]
        origins, directions, pixel = (np.concatenate(part) for part in zip(*rays, strict=True))
        light = _trace(scene, origins, directions)
        hit = np.flatnonzero(light[:, 3])
        for channel in range(4):
            pixels[:, channel] += np.bincount(pixel[hit], light[hit, channel], len(pixels))
    return pixels.reshape(views, size, size, 4) / supersampling**2


def _camera_rays(
    points: np.ndarray, cameras: Cameras, index: int, size: int, supersampling: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rays of a view through the bounding rectangle of the object's points, (3, P).

    They are origins (R, 3), unit directions (R, 3), and indices of the pixels among those of all
    views, (R,).
    """
    intrinsics, pose = cameras.intrinsics[index], cameras.world_to_camera[index]
    x, y, depth = pose[:, :3].astype(np.float32) @ points + pose[:, 3:].astype(np.float32)
    nearness = 1 / np.maximum(depth, np.float32(1e-3))
    slopes = np.array([[f(axis * nearness) for axis in (x, y)] for f in (np.min, np.max)])
    ends = slopes * np.diag(intrinsics)[:2] + intrinsics[:2, 2]
    lower = np.floor(ends[0]).clip(0, size).astype(int)
    upper = np.ceil(ends[1]).clip(lower, size).astype(int)
    columns, rows = (
        np.arange(lower[axis] * supersampling, upper[axis] * supersampling) for axis in (0, 1)
    )
    x, y = ((fine + 0.5) / supersampling for fine in (columns, rows))
    x = (x - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (y - intrinsics[1, 2]) / intrinsics[1, 1]
    shape = (len(rows), len(columns))
    in_camera = np.stack(
        [np.broadcast_to(x, shape), np.broadcast_to(y[:, None], shape), np.ones(shape)], axis=2
    ).reshape(-1, 3)
    in_camera /= np.linalg.norm(in_camera, axis=1, keepdims=True)
    directions = (in_camera @ pose[:, :3]).astype(np.float32)
    origins = np.broadcast_to((-pose[:, :3].T @ pose[:, 3]).astype(np.float32), directions.shape)
    pixel = (index * size + rows // supersampling)[:, None] * size + columns // supersampling
    return origins, directions, pixel.reshape(-1)


def _trace(scene: RayScene, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Trace rays through translucent surfaces; return premultiplied RGBA, (R, 4)."""
    light = np.zeros((len(origins), 4), np.float32)
    rays, transmittance = np.arange(len(origins)), np.ones(len(origins), np.float32)
    for layer in range(MAX_LAYERS):
        hits = scene.intersect(origins, directions)
        if not len(hits.ray):
            break
        colour = scene.arrays.base_colour(hits.face, hits.weights)
        rays, transmittance = rays[hits.ray], transmittance[hits.ray]
        if layer == MAX_LAYERS - 1:
            colour[:, 3] = 1.0
        weight = transmittance * colour[:, 3]
        light[rays, :3] += shade(scene, hits, colour[:, :3]) * weight[:, None]
        light[rays, 3] += weight
        translucent = np.flatnonzero(colour[:, 3] < 1.0)
        rays, transmittance = rays[translucent], (transmittance - weight)[translucent]
        directions = hits.direction[translucent]
        origins = hits.position[translucent] + SURFACE_OFFSET * directions
    return light
