"""Ray intersections with a scene's triangles, by Embree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.optional import import_optional
from demo import REQUIREMENTS
from demo.raycast.scene_arrays import SceneArrays, interpolate


@dataclass(frozen=True)
class Hits:
    """Nearest intersections of R rays with a scene."""

    ray: np.ndarray  # index of the ray, (R,)
    face: np.ndarray  # (R,)
    weights: np.ndarray  # barycentric coordinates on the face, (R, 3)
    position: np.ndarray  # (R, 3)
    normal: np.ndarray  # for shading, towards the ray's origin, (R, 3)
    face_normal: np.ndarray  # geometric, towards the ray's origin, (R, 3)
    direction: np.ndarray  # unit vector of the ray, (R, 3)


class RayScene:
    """A scene with the acceleration structures for ray casting.

    `albedo` is the base colour at the middle of each face, linear RGBA, (F, 4) float32.
    """

    def __init__(self, arrays: SceneArrays) -> None:
        import_optional("embreex", "Ray casting", REQUIREMENTS)
        self.arrays = arrays
        middle = np.full((len(arrays.corners), 3), 1 / 3, np.float32)
        self.albedo = arrays.base_colour(np.arange(len(middle)), middle)
        self._all: Any = build_embree(arrays.corners)
        opaque = np.flatnonzero(self.albedo[:, 3] >= 0.5)
        self._opaque_faces, self._opaque = opaque, self._all
        if len(opaque) < len(middle):  # transparent faces cast no shadow
            self._opaque = build_embree(arrays.corners[opaque]) if len(opaque) else None

    def intersect(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Find each ray's nearest intersection; directions are unit vectors, (R, 3) float32."""
        found = run_embree(self._all, origins, directions, output=1)
        ray = np.flatnonzero(found["primID"] >= 0)
        face, along = found["primID"][ray], directions[ray]
        u, v = found["u"][ray], found["v"][ray]
        weights = np.stack([1 - u - v, u, v], axis=1)
        facing = self.arrays.face_normals[face]
        facing = np.where((facing * along).sum(axis=1, keepdims=True) > 0, -facing, facing)
        normal = facing
        if self.arrays.corner_normals is not None:
            normal = interpolate(self.arrays.corner_normals, face, weights)
            normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
            normal *= np.where((normal * facing).sum(axis=1, keepdims=True) < 0, -1, 1)
        position = origins[ray] + found["tfar"][ray, None] * along
        return Hits(ray, face, weights, position, normal, facing, along)

    def first_opaque_face(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return the nearest opaque face of each ray, -1 if there is none, (R,)."""
        if self._opaque is None:
            return np.full(len(origins), -1)
        found = run_embree(self._opaque, origins, directions)
        return np.where(found >= 0, self._opaque_faces[found], -1)

    def is_unoccluded(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether no opaque face is in a ray's way, (R,)."""
        if self._opaque is None:
            return np.ones(len(origins), bool)
        return run_embree(self._opaque, origins, directions, query="OCCLUDED") < 0


def build_embree(corners: np.ndarray) -> Any:
    """Build Embree's scene of triangles, (F, 3, 3)."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    indices = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    TriangleMesh(scene, np.ascontiguousarray(corners.reshape(-1, 3)), indices)
    return scene


def run_embree(scene: Any, origins: np.ndarray, directions: np.ndarray, **options: object) -> Any:
    """Cast rays; with arrays of different lengths, Embree would read out of bounds."""
    if origins.shape != directions.shape:
        raise ValueError(f"{len(origins)} origins and {len(directions)} directions of rays")
    rays = (np.ascontiguousarray(part, np.float32) for part in (origins, directions))
    return scene.run(*rays, **options)
