"""Views of textured meshes by casting rays on a CPU, much as Blender's job renders them.

The same cameras, the same light (a grey world and Blender's default lamp) and the same tone curve,
but the light that comes from all around is gathered once for all views, at few points. It takes
a fraction of a second an object; noise there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from common.optional import import_optional
from demo.raycast.filmic import filmic
from demo.raycast.surfaces import Surfaces, between, flatten
from multiview.cameras import Cameras

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

REQUIREMENTS = "requirements/demo.txt"
LIGHT_POSITION = np.array([4.076245, 1.005454, 5.903862], np.float32)
"""As in Blender's job."""
LIGHT = 1000.0 / (4 * math.pi**2)
"""A lamp of 1000 W: what a white surface that faces it reflects, at distance 1."""
WORLD = 0.5
"""Radiance that comes from everywhere."""
INDIRECT = 0.6
"""Share of the world's light that a surface gets that is seen by another one."""
DIELECTRIC = 0.04
"""Share that a surface that is no metal reflects like a mirror, seen from the front."""
SHARPEST = 0.15
"""Least roughness: highlights that are smaller would be missed by some samples."""
DIRECTIONS = 16
"""In which light from all around is gathered."""
CELL = 1 / 48
"""Side of the cells in which the light from all around is taken as constant."""
_ROUGHNESS = (0.1, 0.3, 0.5, 0.75, 1.0)
_MIRRORED = (1.0, 0.99, 0.91, 0.63, 0.32)
"""Share of the world's light that Blender's Principled BSDF reflects, measured on balls: its
microfacets hide each other."""
_GRAZING = (1.0, 0.6, 0.28, 0.16, 0.17)
"""How much of Schlick's increase towards the edge is left."""
MOST_LAYERS = 4
"""Surfaces behind each other that a ray sees through."""
STEP = 1e-4
"""How far a ray starts from a surface."""
RAYS_AT_ONCE = 2**19


@dataclass(frozen=True)
class Hits:
    """Where R rays meet surfaces.

    Attributes:
        ray: index of each, (R,).
        face: (R,).
        weights: of the face's corners, (R, 3).
        place: (R, 3).
        normal: of the interpolated surface, on the ray's side, (R, 3).
        side: of the face itself, on the ray's side, (R, 3).
        direction: of the ray, of unit length, (R, 3).
    """

    ray: np.ndarray
    face: np.ndarray
    weights: np.ndarray
    place: np.ndarray
    normal: np.ndarray
    side: np.ndarray
    direction: np.ndarray


class RayScene:
    """Surfaces that rays can be cast at."""

    def __init__(self, surfaces: Surfaces) -> None:
        """Build Embree's tree.

        Raises:
            ModuleNotFoundError: embreex is not installed.
        """
        import_optional("embreex", "casting rays", REQUIREMENTS)
        self.surfaces = surfaces
        middle = np.full((len(surfaces.corners), 3), 1 / 3, np.float32)
        self.albedo = surfaces.looks(np.arange(len(middle)), middle)
        self._all: Any = _embree(surfaces.corners)
        solid = np.flatnonzero(self.albedo[:, 3] >= 0.5)
        self._faces, self._solid = solid, self._all
        if len(solid) < len(middle):  # glass does not keep light off
            self._solid = _embree(surfaces.corners[solid]) if len(solid) else None

    def meet(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Find the nearest surface of each ray.

        Args:
            origins: (R, 3) float32.
            directions: of unit length, (R, 3) float32.
        """
        found = _run(self._all, origins, directions, output=1)
        ray = np.flatnonzero(found["primID"] >= 0)
        face, along = found["primID"][ray], directions[ray]
        u, v = found["u"][ray], found["v"][ray]
        weights = np.stack([1 - u - v, u, v], axis=1)
        side = self.surfaces.normals[face]
        side = np.where((side * along).sum(axis=1, keepdims=True) > 0, -side, side)
        normal = side
        if self.surfaces.smooth is not None:
            normal = between(self.surfaces.smooth, face, weights)
            normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
            normal *= np.where((normal * side).sum(axis=1, keepdims=True) < 0, -1, 1)
        place = origins[ray] + found["tfar"][ray, None] * along
        return Hits(ray, face, weights, place, normal, side, along)

    def first_face(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """The nearest face that is not transparent, -1 where there is none, (R,)."""
        if self._solid is None:
            return np.full(len(origins), -1)
        found = _run(self._solid, origins, directions)
        return np.where(found >= 0, self._faces[found], -1)

    def is_free(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether nothing that is not transparent is in a ray's way, (R,)."""
        if self._solid is None:
            return np.ones(len(origins), bool)
        return _run(self._solid, origins, directions, query="OCCLUDED") < 0


def _embree(corners: np.ndarray) -> Any:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    indices = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    TriangleMesh(scene, np.ascontiguousarray(corners.reshape(-1, 3)), indices)
    return scene


def _run(scene: Any, origins: np.ndarray, directions: np.ndarray, **how: object) -> Any:
    """Cast rays; Embree reads beyond the end of arrays that do not fit together."""
    if origins.shape != directions.shape:
        raise ValueError(f"{len(origins)} origins of {len(directions)} rays")
    return scene.run(
        np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32),
        **how,
    )  # fmt: skip


def cast_views(
    scene: Scene | Trimesh | Sequence[Trimesh] | Surfaces,
    cameras: Cameras,
    size: int,
    supersampling: int = 2,
) -> np.ndarray:
    """Render views of an object.

    Args:
        scene: z up; it is scaled and centred as Blender's job does.
        cameras: N, for images of this size.
        size: pixels a side.
        supersampling: rays a pixel in each direction. With 1 edges are hard, as Blender's are.

    Returns:
        sRGB with straight alpha, black where nothing is seen, (N, size, size, 4) uint8.

    Raises:
        ValueError: there is nothing to see, or the box is not finite.
        ModuleNotFoundError: embreex or trimesh is not installed.
    """
    surfaces = scene
    if not isinstance(surfaces, Surfaces):
        surfaces = flatten(surfaces, sample_distance(cameras, supersampling))
    return to_pixels(cast_light(RayScene(surfaces), cameras, size, supersampling))


def sample_distance(cameras: Cameras, supersampling: int) -> float:
    """How far apart neighbouring rays are near the origin."""
    distance = float(np.linalg.norm(cameras.world_to_camera[0, :, 3]))
    return distance / float(cameras.intrinsics[0, 0, 0]) / supersampling


def to_pixels(light: np.ndarray) -> np.ndarray:
    """Bytes of a picture out of linear RGBA with premultiplied alpha, any shape (..., 4)."""
    alpha = light[..., 3:]
    colour = filmic(light[..., :3] / np.maximum(alpha, 1e-6))
    values = np.concatenate([np.where(alpha > 0, colour, 0.0), alpha], axis=-1)
    return (values * 255 + 0.5).clip(0, 255).astype(np.uint8)


def cast_light(scene: RayScene, cameras: Cameras, size: int, supersampling: int) -> np.ndarray:
    """Light that the pixels of all views get.

    Returns:
        linear RGB, premultiplied, and alpha, (N, size, size, 4) float32.
    """
    views = len(cameras.intrinsics)
    together = max(1, RAYS_AT_ONCE // (size * supersampling) ** 2)
    pixels = np.zeros((views * size * size, 4), np.float32)
    points = scene.surfaces.corners.reshape(-1, 3).T.copy()
    for start in range(0, views, together):
        chosen = range(start, min(start + together, views))
        rays = [_rays(points, cameras, i, size, supersampling) for i in chosen]
        origins, directions, pixel = (np.concatenate(part) for part in zip(*rays, strict=True))
        light = _look(scene, origins, directions)
        hit = np.flatnonzero(light[:, 3])
        for channel in range(4):
            pixels[:, channel] += np.bincount(
                pixel[hit], light[hit, channel], minlength=len(pixels)
            )
    return pixels.reshape(views, size, size, 4) / supersampling**2


def _rays(
    points: np.ndarray, cameras: Cameras, index: int, size: int, supersampling: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays of a view through the rectangle of pixels that the object can be in.

    Args:
        points: of the object, (3, P) float32.
        cameras: N.
        index: of the view.
        size: pixels a side.
        supersampling: rays a pixel in each direction.

    Returns:
        origins (R, 3), directions of unit length (R, 3), and the pixel of each among those of
        all views, (R,).
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


def _look(scene: RayScene, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Light along rays, through surfaces that are not opaque: premultiplied RGBA, (R, 4)."""
    light = np.zeros((len(origins), 4), np.float32)
    rays, seen_through = np.arange(len(origins)), np.ones(len(origins), np.float32)
    for layer in range(MOST_LAYERS):
        hits = scene.meet(origins, directions)
        if not len(hits.ray):
            break
        colour = scene.surfaces.looks(hits.face, hits.weights)
        rays, seen_through = rays[hits.ray], seen_through[hits.ray]
        if layer == MOST_LAYERS - 1:
            colour[:, 3] = 1.0
        share = seen_through * colour[:, 3]
        light[rays, :3] += shade(scene, hits, colour[:, :3]) * share[:, None]
        light[rays, 3] += share
        on = np.flatnonzero(colour[:, 3] < 1.0)
        rays, seen_through = rays[on], (seen_through - share)[on]
        directions = hits.direction[on]
        origins = hits.place[on] + STEP * directions
    return light


def shade(scene: RayScene, hits: Hits, colour: np.ndarray) -> np.ndarray:
    """Light that surfaces send back along the rays that met them.

    Args:
        scene: what keeps light off.
        hits: R points.
        colour: linear, (R, 3).

    Returns:
        linear, (R, 3) float32.
    """
    material = scene.surfaces.material[hits.face]
    metallic, roughness = scene.surfaces.metallic[material], scene.surfaces.roughness[material]
    around, open_sky = light_from_around(scene, hits)
    lamp, towards = lamp_light(scene, hits.place, hits.normal, hits.side)
    facing = np.maximum(-(hits.normal * hits.direction).sum(axis=1), 1e-3)
    grazing = (1 - facing) ** 5
    matt = 1 + (roughness - 0.5) * (0.07 + 1.2 * grazing)  # rough surfaces send light back
    diffuse = colour * (around + lamp[:, None]) * (matt * (1 - metallic))[:, None]
    mirrored = DIELECTRIC + (colour - DIELECTRIC) * metallic[:, None]
    world = WORLD * open_sky * np.interp(roughness, _ROUGHNESS, _MIRRORED).astype(np.float32)
    grazing *= np.interp(roughness, _ROUGHNESS, _GRAZING).astype(np.float32)
    highlight = np.zeros_like(lamp)
    lit = np.flatnonzero(lamp)
    highlight[lit] = lamp[lit] * _highlight(
        hits.normal[lit], -hits.direction[lit], towards[lit], facing[lit], roughness[lit]
    )
    reflected = mirrored + (1 - mirrored) * grazing[:, None]
    return diffuse + reflected * world[:, None] + mirrored * highlight[:, None]


def _highlight(
    normal: np.ndarray,
    to_eye: np.ndarray,
    to_lamp: np.ndarray,
    facing: np.ndarray,
    roughness: np.ndarray,
) -> np.ndarray:
    """The lamp's reflection (GGX), relative to what a white matt surface sends back, (R,)."""
    half = to_eye + to_lamp
    half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
    squared = np.maximum(roughness, SHARPEST) ** 4
    cosine = (normal * half).sum(axis=1)
    spread = squared / np.maximum(cosine**2 * (squared - 1) + 1, 1e-6) ** 2
    steepness = np.maximum((normal * to_lamp).sum(axis=1), 1e-3)
    hidden = 0.5 / (
        steepness * np.sqrt(squared + (1 - squared) * facing**2)
        + facing * np.sqrt(squared + (1 - squared) * steepness**2)
    )
    return spread * hidden


def lamp_light(
    scene: RayScene, place: np.ndarray, normal: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lamp's light, with hard shadows.

    Args:
        scene: what keeps it off.
        place: points, (R, 3).
        normal: of unit length, (R, 3).
        side: normals of the faces, on the side that is seen, (R, 3).

    Returns:
        what a white matt surface sends back, (R,), and where the lamp is, (R, 3).
    """
    way = LIGHT_POSITION - place
    squared = (way * way).sum(axis=1)
    towards = way / np.sqrt(squared)[:, None]
    cosine = (normal * towards).sum(axis=1)
    lit = np.flatnonzero((cosine > 0) & ((side * towards).sum(axis=1) > 0))
    lit = lit[scene.is_free(place[lit] + STEP * side[lit], towards[lit])]
    light = np.zeros(len(place), np.float32)
    light[lit] = LIGHT * cosine[lit] / squared[lit]
    return light, towards


def light_from_around(scene: RayScene, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Light from the world and from other surfaces, gathered once a cell of space and normal.

    Returns:
        what a white matt surface sends back, (R, 3), and how much of the sky is free, (R,).
    """
    cells = np.floor(hits.place / CELL).astype(np.int64) + 512
    facets = np.round(hits.normal * 2).astype(np.int64) + 2
    key = ((cells[:, 0] * 1024 + cells[:, 1]) * 1024 + cells[:, 2]) * 125
    key += (facets[:, 0] * 5 + facets[:, 1]) * 5 + facets[:, 2]
    _, example, cell = np.unique(key, return_index=True, return_inverse=True)
    around, free = gather(scene, hits.place[example], hits.normal[example], hits.side[example])
    return around[cell], free[cell]


def gather(
    scene: RayScene, place: np.ndarray, normal: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Light from all around at points.

    Returns:
        see `light_from_around`, of C points: (C, 3) and (C,).
    """
    directions = np.einsum("kc,pcx->pkx", _DIRECTIONS, _frames(normal)).reshape(-1, 3)
    origins = np.repeat(place + STEP * side, DIRECTIONS, axis=0)
    face = scene.first_face(origins, directions)
    free = (face < 0).reshape(-1, DIRECTIONS).mean(axis=1, dtype=np.float32)
    around = np.repeat(WORLD * free[:, None], 3, axis=1)
    met = np.flatnonzero(face >= 0)
    met_face = face[met]
    turned = scene.surfaces.normals[met_face]
    turned = np.where((turned * directions[met]).sum(axis=1, keepdims=True) > 0, -turned, turned)
    middle = scene.surfaces.corners[met_face].mean(axis=1)
    lamp, _ = lamp_light(scene, middle, turned, turned)
    sent = scene.albedo[met_face, :3] * (WORLD * INDIRECT + lamp[:, None])
    for channel in range(3):
        around[:, channel] += (
            np.bincount(met // DIRECTIONS, sent[:, channel], minlength=len(place)) / DIRECTIONS
        )
    return around, free


def _frames(normal: np.ndarray) -> np.ndarray:
    """Two tangents and the normal, (P, 3, 3); they turn smoothly with the normal."""
    x, y, z = normal.T
    sign = np.where(z < 0, -1.0, 1.0).astype(np.float32)
    a = -1.0 / (sign + z)
    b = x * y * a
    return np.stack(
        [
            np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1),
            np.stack([b, sign + y * y * a, -y], axis=1),
            normal,
        ],
        axis=1,
    )


def _spread_directions(count: int) -> np.ndarray:
    """Directions about z as dense as the cosine, (K, 3) float32."""
    index = np.arange(count) + 0.5
    radius, angle = np.sqrt(index / count), index * np.pi * (3 - np.sqrt(5))
    up = np.sqrt(1 - index / count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), up], axis=1).astype(np.float32)


_DIRECTIONS = _spread_directions(DIRECTIONS)
