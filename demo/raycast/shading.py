"""Reflected light: a lamp with hard shadows, a grey world and one indirect bounce.

Calibrated to match Blender's Cycles with the lights of the published job: a diffuse and a GGX
component as in the Principled BSDF. Ambient light is computed once per cell of space and normal,
for all views, without noise.
"""

from __future__ import annotations

import math

import numpy as np

from demo.raycast.ray_scene import Hits, RayScene

LIGHT_POSITION = np.array([4.076245, 1.005454, 5.903862], np.float32)
"""Blender's default lamp, as in the published job."""
LIGHT = 1000.0 / (4 * math.pi**2)
"""Radiance of a white diffuse surface at distance 1 that faces the lamp of 1000 W."""
WORLD = 0.5
"""Radiance of the grey world, from every direction."""
INDIRECT = 0.6
"""Share of the world's light that surfaces hit by ambient rays get; it is not sampled again."""
DIELECTRIC = 0.04
"""Specular reflectance of non-metals at normal incidence (Schlick's F0)."""
MIN_ROUGHNESS = 0.15
"""For highlights: smaller ones would fall between the samples."""
NUM_DIRECTIONS = 16
"""Directions of the hemisphere in which ambient light is sampled."""
CELL_SIZE = 1 / 48
"""Side of the cells in which ambient light is taken as constant."""
_ROUGHNESS = (0.1, 0.3, 0.5, 0.75, 1.0)
_SPECULAR_ALBEDO = (1.0, 0.99, 0.91, 0.63, 0.32)
"""At these roughnesses: share of the world's light that Blender's Principled BSDF reflects, as
measured on spheres; its microfacets shadow each other."""
_FRESNEL_SCALE = (1.0, 0.6, 0.28, 0.16, 0.17)
"""At these roughnesses: remaining share of Schlick's increase at grazing angles."""
SURFACE_OFFSET = 1e-4
"""Distance from a surface at which secondary rays start."""


def shade(scene: RayScene, hits: Hits, colour: np.ndarray) -> np.ndarray:
    """Return the linear RGB that surfaces of these base colours reflect along the rays, (R, 3)."""
    material = scene.arrays.material[hits.face]
    metallic, roughness = scene.arrays.metallic[material], scene.arrays.roughness[material]
    ambient, open_sky = ambient_light(scene, hits)
    lamp, to_lamp = lamp_light(scene, hits.position, hits.normal, hits.face_normal)
    facing = np.maximum(-(hits.normal * hits.direction).sum(axis=1), 1e-3)
    fresnel = (1 - facing) ** 5
    # rough surfaces are retro-reflective
    diffuse_scale = 1 + (roughness - 0.5) * (0.07 + 1.2 * fresnel)
    diffuse = colour * (ambient + lamp[:, None]) * (diffuse_scale * (1 - metallic))[:, None]
    specular = DIELECTRIC + (colour - DIELECTRIC) * metallic[:, None]
    world = WORLD * open_sky * np.interp(roughness, _ROUGHNESS, _SPECULAR_ALBEDO).astype(np.float32)
    fresnel *= np.interp(roughness, _ROUGHNESS, _FRESNEL_SCALE).astype(np.float32)
    highlight = np.zeros_like(lamp)
    lit = np.flatnonzero(lamp)
    highlight[lit] = lamp[lit] * _ggx_highlight(
        hits.normal[lit], -hits.direction[lit], to_lamp[lit], facing[lit], roughness[lit]
    )
    reflectance = specular + (1 - specular) * fresnel[:, None]
    return diffuse + reflectance * world[:, None] + specular * highlight[:, None]


def _ggx_highlight(
    normal: np.ndarray,
    to_eye: np.ndarray,
    to_lamp: np.ndarray,
    facing: np.ndarray,
    roughness: np.ndarray,
) -> np.ndarray:
    """Return the lamp's GGX reflection relative to that of a white diffuse surface, (R,)."""
    half = to_eye + to_lamp
    half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
    squared = np.maximum(roughness, MIN_ROUGHNESS) ** 4
    cosine = (normal * half).sum(axis=1)
    distribution = squared / np.maximum(cosine**2 * (squared - 1) + 1, 1e-6) ** 2
    to_lamp_cosine = np.maximum((normal * to_lamp).sum(axis=1), 1e-3)
    visibility = 0.5 / (
        to_lamp_cosine * np.sqrt(squared + (1 - squared) * facing**2)
        + facing * np.sqrt(squared + (1 - squared) * to_lamp_cosine**2)
    )
    return distribution * visibility


def lamp_light(
    scene: RayScene, position: np.ndarray, normal: np.ndarray, face_normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lamp's light at points, with hard shadows.

    Normals are those of the shading and of the visible sides, unit vectors, (R, 3). Returns the
    radiance of a white diffuse surface, (R,), and unit vectors towards the lamp, (R, 3).
    """
    offset = LIGHT_POSITION - position
    squared = (offset * offset).sum(axis=1)
    to_lamp = offset / np.sqrt(squared)[:, None]
    cosine = (normal * to_lamp).sum(axis=1)
    lit = np.flatnonzero((cosine > 0) & ((face_normal * to_lamp).sum(axis=1) > 0))
    lit = lit[scene.is_unoccluded(position[lit] + SURFACE_OFFSET * face_normal[lit], to_lamp[lit])]
    light = np.zeros(len(position), np.float32)
    light[lit] = LIGHT * cosine[lit] / squared[lit]
    return light, to_lamp


def ambient_light(scene: RayScene, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Return light from the world and from other surfaces: ambient occlusion with one bounce.

    It is sampled once per cell of space and normal. Returns the radiance of a white diffuse
    surface, (R, 3), and the unoccluded share of the hemisphere, (R,).
    """
    cells = np.floor(hits.position / CELL_SIZE).astype(np.int64) + 512
    facets = np.round(hits.normal * 2).astype(np.int64) + 2
    key = ((cells[:, 0] * 1024 + cells[:, 1]) * 1024 + cells[:, 2]) * 125
    key += (facets[:, 0] * 5 + facets[:, 1]) * 5 + facets[:, 2]
    _, example, cell = np.unique(key, return_index=True, return_inverse=True)
    light, unoccluded = _sample_hemisphere(
        scene, hits.position[example], hits.normal[example], hits.face_normal[example]
    )
    return light[cell], unoccluded[cell]


def _sample_hemisphere(
    scene: RayScene, position: np.ndarray, normal: np.ndarray, face_normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ambient light at C points; see `ambient_light`: (C, 3) and (C,)."""
    directions = np.einsum("kc,pcx->pkx", _DIRECTIONS, _frames(normal)).reshape(-1, 3)
    origins = np.repeat(position + SURFACE_OFFSET * face_normal, NUM_DIRECTIONS, axis=0)
    face = scene.first_opaque_face(origins, directions)
    unoccluded = (face < 0).reshape(-1, NUM_DIRECTIONS).mean(axis=1, dtype=np.float32)
    light = np.repeat(WORLD * unoccluded[:, None], 3, axis=1)
    hit = np.flatnonzero(face >= 0)
    hit_face = face[hit]
    hit_normal = scene.arrays.face_normals[hit_face]
    hit_normal = np.where(
        (hit_normal * directions[hit]).sum(axis=1, keepdims=True) > 0, -hit_normal, hit_normal
    )
    hit_position = scene.arrays.corners[hit_face].mean(axis=1)
    lamp, _ = lamp_light(scene, hit_position, hit_normal, hit_normal)
    reflected = scene.albedo[hit_face, :3] * (WORLD * INDIRECT + lamp[:, None])
    for channel in range(3):
        total = np.bincount(hit // NUM_DIRECTIONS, reflected[:, channel], len(position))
        light[:, channel] += total / NUM_DIRECTIONS
    return light, unoccluded


def _frames(normal: np.ndarray) -> np.ndarray:
    """Return frames of two tangents and the normal, continuous in the normal, (P, 3, 3)."""
    x, y, z = normal.T
    sign = np.where(z < 0, -1.0, 1.0).astype(np.float32)
    a = -1.0 / (sign + z)
    b = x * y * a
    first = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1)
    second = np.stack([b, sign + y * y * a, -y], axis=1)
    return np.stack([first, second, normal], axis=1)


def _cosine_directions(count: int) -> np.ndarray:
    """Return cosine-weighted directions of the hemisphere about z, (K, 3) float32."""
    index = np.arange(count) + 0.5
    radius, angle = np.sqrt(index / count), index * np.pi * (3 - np.sqrt(5))
    up = np.sqrt(1 - index / count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), up], axis=1).astype(np.float32)


_DIRECTIONS = _cosine_directions(NUM_DIRECTIONS)
