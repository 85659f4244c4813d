"""Builds a toy: random numbers, a palette, and textured parts at their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from common.optional import import_optional
from demo.toys.paint import RGB, Paint, Palette, make_palette, make_texture, texture_coordinates
from demo.toys.solids import Point, Solid, rotation_matrix

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

Choice = TypeVar("Choice")
Turn = tuple[int, float]

CREASE_DEG = 38.0
"""Edges between faces that meet at more than this are sharp."""


class ToyBuilder:
    """Random numbers, the palette and the parts of one toy."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.palette: Palette = make_palette(rng)
        self.parts: list[Trimesh] = []  # in world coordinates

    def uniform(self, low: float, high: float) -> float:
        """Return a uniform random number."""
        return float(low + (high - low) * self.rng.random())

    def integer(self, low: int, high: int) -> int:
        """Return a random integer; both limits are included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)

    def choice(self, choices: Sequence[Choice]) -> Choice:
        """Return one of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def add(
        self, solid: Solid, paint: Paint | RGB, *places: Point, turn: Sequence[Turn] = ()
    ) -> None:
        """Add a solid, or copies, with the origin at these places, by default (0, 0, 0).

        Before the translation it is turned by (axis, degrees), in this order.
        """
        part = textured_mesh(solid, paint)
        frame = np.eye(4)
        for axis, degrees in turn:
            frame[:3, :3] = rotation_matrix(axis, degrees) @ frame[:3, :3]
        for place in places or ((0.0, 0.0, 0.0),):
            frame[:3, 3] = place
            self.parts.append(_transformed(part.copy(include_cache=True), frame))

    def add_around(self, solid: Solid, paint: Paint | RGB, count: int, radius: float, height: float,
               start: float = 0.0) -> None:  # fmt: skip
        """Add copies on a circle about z, facing outwards; `start` is an azimuth in degrees."""
        part = textured_mesh(solid, paint)
        for k in range(count):
            degrees = start + 360 * k / count
            frame = np.eye(4)
            frame[:3, :3] = rotation_matrix(2, degrees)
            angle = np.deg2rad(degrees)
            frame[:3, 3] = radius * np.cos(angle), radius * np.sin(angle), height
            self.parts.append(_transformed(part.copy(include_cache=True), frame))

    def scene(self) -> Scene:
        """Return all parts as a scene, standing on z = 0 above the origin."""
        trimesh = import_optional("trimesh", "Toy generation")
        bounds = np.array([part.bounds for part in self.parts])
        low, high = bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)
        shift = np.append(-(low + high)[:2] / 2, -low[2])
        scene = trimesh.Scene()
        for number, part in enumerate(self.parts):
            frame = np.eye(4)
            frame[:3, 3] = shift
            name = f"part-{number:03d}"
            scene.add_geometry(_transformed(part, frame), node_name=name, geom_name=name)
        return scene


def _transformed(part: Trimesh, frame: np.ndarray) -> Trimesh:
    """Transform a part in place; recomputed normals would show its seams, so they are rotated."""
    normals = part.vertex_normals @ frame[:3, :3].T
    part.vertices = part.vertices @ frame[:3, :3].T + frame[:3, 3]
    part.vertex_normals = normals  # type: ignore[method-assign]
    return part


def textured_mesh(solid: Solid, paint: Paint | RGB) -> Trimesh:
    """Return a solid as a mesh with smooth and sharp edges, along which vertices are doubled."""
    paint = paint if isinstance(paint, Paint) else Paint(paint)
    trimesh = import_optional("trimesh", "Toy generation")
    image = Image.fromarray(make_texture(paint, np.ptp(solid.vertices, axis=0)))
    corners = solid.vertices[solid.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)
    uv = texture_coordinates(paint, corners, flat).reshape(-1, 2)
    normals = _corner_normals(solid, cross, flat)
    keys = [solid.faces.reshape(-1), np.round(normals * 512), np.round(uv * 8192)]
    rows = np.ascontiguousarray(np.column_stack(keys).astype(">i4"))
    single = rows.view(np.dtype((np.void, 4 * rows.shape[1]))).reshape(-1)  # faster to sort
    _, first, same = np.unique(single, return_index=True, return_inverse=True)
    factors = {"metallicFactor": 0.0, "roughnessFactor": paint.roughness}
    look = trimesh.visual.material.PBRMaterial(baseColorTexture=image, **factors)
    return trimesh.Trimesh(
        vertices=corners.reshape(-1, 3)[first],
        faces=same.reshape(-1, 3),
        vertex_normals=normals[first],
        visual=trimesh.visual.TextureVisuals(uv=uv[first], material=look),
        process=False,
    )


def _corner_normals(solid: Solid, cross: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return corner normals, (3 F, 3), averaged over faces that meet at less than the crease angle.

    `cross` are the face normals with a length of twice the area, `flat` of length 1, (F, 3).
    """
    corner_of = solid.faces.reshape(-1)
    uses = np.bincount(corner_of, minlength=len(solid.vertices))
    order = np.argsort(corner_of, kind="stable")
    start = np.cumsum(uses) - uses
    repeats = uses[corner_of]
    ends = np.cumsum(repeats)
    one = np.repeat(np.arange(len(corner_of)), repeats)
    step = np.arange(ends[-1]) - np.repeat(ends - repeats, repeats)
    other = order[np.repeat(start[corner_of], repeats) + step]
    smooth = (flat[one // 3] * flat[other // 3]).sum(axis=1) > np.cos(np.deg2rad(CREASE_DEG))
    one, other = one[smooth], other[smooth]
    total = np.stack(
        [np.bincount(one, cross[other // 3, k], minlength=len(corner_of)) for k in range(3)], -1
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-15, total / np.maximum(length, 1e-15), np.repeat(flat, 3, axis=0))
