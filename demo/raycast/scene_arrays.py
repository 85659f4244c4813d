"""The triangles of a textured scene as flat arrays, for the ray caster.

Materials follow glTF: colour factors are linear, textures are sRGB, and a missing metallic factor
means 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from common.optional import import_optional
from demo.raycast.textures import TextureAtlas, build_atlas, texture_share

if TYPE_CHECKING:
    from PIL.Image import Image
    from trimesh import Scene, Trimesh

GREY = (0.8, 0.8, 0.8, 1.0)
"""Linear colour of meshes without a material, as in Blender."""


@dataclass(frozen=True)
class SceneArrays:
    """F triangles and M materials; float32, colours are linear RGBA, normals unit vectors."""

    corners: np.ndarray  # centred; the bounding box's longest side is 1, (F, 3, 3)
    face_normals: np.ndarray  # (F, 3)
    corner_normals: np.ndarray | None  # (F, 3, 3); None if no mesh has vertex normals
    uv: np.ndarray  # texture coordinates of the corners, (F, 3, 2)
    material: np.ndarray  # index of each face's material, (F,)
    corner_colours: np.ndarray | None  # (F, 3, 4); None if no mesh has vertex or face colours
    colour_factors: np.ndarray  # of the materials, (M, 4)
    metallic: np.ndarray  # (M,)
    roughness: np.ndarray  # (M,)
    opaque: np.ndarray  # materials whose alpha counts as 1, (M,)
    alpha_cutoff: np.ndarray  # least alpha that is visible; 0 for alpha blending, (M,)
    textures: TextureAtlas

    def base_colour(self, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the linear RGBA at points on faces, (R, 4), as the material's alpha mode says.

        Points are indices of faces, (R,), and barycentric coordinates, (R, 3).
        """
        materials = self.material[faces]
        colour = self.colour_factors[materials]
        textured = np.flatnonzero(self.textures.first[materials] >= 0)
        if len(textured):
            uv = interpolate(self.uv, faces[textured], weights[textured])
            colour[textured] *= self.textures.sample(materials[textured], uv)
        if self.corner_colours is not None:
            colour *= interpolate(self.corner_colours, faces, weights)
        alpha, cutoff = colour[:, 3], self.alpha_cutoff[materials]
        alpha[cutoff > 0] = (alpha >= cutoff)[cutoff > 0]
        alpha[self.opaque[materials]] = 1.0
        return colour


def interpolate(values: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Interpolate values of corners, (F, 3, C), at points on faces, (R,) and (R, 3): (R, C)."""
    return np.einsum("rkc,rk->rc", values[faces], weights)


def flatten_scene(
    scene: Scene | Trimesh | Sequence[Trimesh], sample_distance: float = 0.0
) -> SceneArrays:
    """Collect all triangles of a scene, scaled and centred as in Blender's job.

    A mesh is shaded smoothly if it has vertex normals: from its file, or computed because
    `mesh.vertex_normals` was used before. trimesh's glTF exporter has the same rule, so Blender
    shows the same.

    The scene, mesh or meshes have z up. Textures that are finer than `sample_distance`, about that
    of an image's neighbouring samples on a surface, are reduced; 0 leaves them unchanged.
    ValueError: the scene has no faces, or corners that are not finite.
    """
    parts = [part for part in _parts(scene) if len(part.corners)]
    if not parts:
        raise ValueError("no mesh with faces in the scene")
    corners = np.concatenate([part.corners for part in parts])
    lower, upper = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    with np.errstate(invalid="ignore"):
        size = (upper - lower).max()
    if not (np.isfinite(size) and 1e-30 < size < 1e30):
        raise ValueError(f"the longest side is {size:g}, which cannot be scaled to 1")
    corners = ((corners - (lower + upper) / 2) / size).astype(np.float32)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    uv = np.concatenate([part.uv for part in parts])
    counts = [len(part.corners) for part in parts]
    material = np.repeat(np.arange(len(parts)), counts)
    scales = [
        texture_share(corners[material == i], uv[material == i], sample_distance)
        for i in range(len(parts))
    ]
    materials = [part.material for part in parts]
    return SceneArrays(
        corners=corners,
        face_normals=_normalise(normals),
        corner_normals=_concatenate([part.normals for part in parts], counts, _normalise(normals)),
        uv=uv,
        material=material,
        corner_colours=_concatenate([p.colours for p in parts], counts, np.ones((len(corners), 4))),
        colour_factors=np.array([m.factor for m in materials], np.float32),
        metallic=np.array([m.metallic for m in materials], np.float32),
        roughness=np.array([m.roughness for m in materials], np.float32),
        opaque=np.array([m.opaque for m in materials]),
        alpha_cutoff=np.array([m.cutoff for m in materials], np.float32),
        textures=build_atlas([m.texture for m in materials], scales),
    )


@dataclass(frozen=True)
class _Material:
    factor: Sequence[float] = GREY
    texture: Image | None = None
    metallic: float = 0.0
    roughness: float = 1.0
    opaque: bool = True
    cutoff: float = 0.0


_COLOURED = _Material(factor=(1.0, 1.0, 1.0, 1.0), roughness=0.5, opaque=False)
"""Material of meshes with vertex or face colours; Blender's job gives them the same."""


@dataclass(frozen=True)
class _Part:
    """One mesh of a scene; fields as in `SceneArrays`."""

    corners: np.ndarray
    uv: np.ndarray
    normals: np.ndarray | None
    colours: np.ndarray | None
    material: _Material


def _parts(scene: Scene | Trimesh | Sequence[Trimesh]) -> Iterator[_Part]:
    trimesh = import_optional("trimesh", "Ray casting")
    if isinstance(scene, trimesh.Scene):
        for node in scene.graph.nodes_geometry:
            transform, name = scene.graph[node]
            if isinstance(scene.geometry[name], trimesh.Trimesh):
                yield _part(scene.geometry[name], np.asarray(transform))
    else:
        meshes: Any = [scene] if isinstance(scene, trimesh.Trimesh) else scene
        for mesh in meshes:
            yield _part(mesh, np.eye(4))


def _part(mesh: Trimesh, transform: np.ndarray) -> _Part:
    faces = np.asarray(mesh.faces)
    turn = transform[:3, :3]
    with np.errstate(invalid="ignore"):  # `flatten_scene` refuses it
        corners = (np.asarray(mesh.vertices) @ turn.T + transform[:3, 3])[faces]
    normals = None
    if "vertex_normals" in mesh._cache.cache:
        inverse = np.linalg.pinv(turn)  # its transpose turns normals; pinv allows flat parts
        normals = _normalise(np.asarray(mesh.vertex_normals) @ inverse)[faces]
    uv, colours, material = np.zeros((len(faces), 3, 2), np.float32), None, _Material()
    visual: Any = mesh.visual
    if visual.kind == "texture":
        material = _read_material(visual.material)
        if visual.uv is not None and len(visual.uv) == len(mesh.vertices):
            finite = np.nan_to_num(np.asarray(visual.uv)[:, :2], posinf=0.0, neginf=0.0)
            uv = finite.astype(np.float32)[faces]
    elif visual.kind == "vertex":
        colours = (np.asarray(visual.vertex_colors) / np.float32(255))[faces]
        material = _COLOURED
    elif visual.kind == "face":
        each = np.asarray(visual.face_colors) / np.float32(255)
        colours = np.repeat(each[:, None], 3, axis=1)
        material = _COLOURED
    return _Part(corners, uv, normals, colours, material)


def _read_material(material: Any) -> _Material:
    """Convert a material of trimesh; only the colour texture is used."""
    if hasattr(material, "baseColorFactor"):
        mode = material.alphaMode or "OPAQUE"
        cutoff = material.alphaCutoff
        metallic = 1.0 if material.metallicFactor is None else material.metallicFactor
        roughness = 1.0 if material.roughnessFactor is None else material.roughnessFactor
        if material.metallicRoughnessTexture is not None:
            mean = np.asarray(material.metallicRoughnessTexture.convert("RGB")).mean(axis=(0, 1))
            metallic, roughness = metallic * mean[2] / 255, roughness * mean[1] / 255
        return _Material(
            factor=_unit_colour(material.baseColorFactor, (1.0, 1.0, 1.0, 1.0)),
            texture=material.baseColorTexture,
            metallic=float(metallic),
            roughness=float(roughness),
            opaque=mode == "OPAQUE",
            cutoff=0.0 if mode != "MASK" else 0.5 if cutoff is None else float(cutoff),
        )
    if getattr(material, "image", None) is not None:
        return _Material(factor=(1.0, 1.0, 1.0, 1.0), texture=material.image)
    return _Material(factor=_unit_colour(getattr(material, "diffuse", None), GREY))


def _unit_colour(colour: Any, otherwise: Sequence[float]) -> Sequence[float]:
    """Convert a colour, maybe in bytes or without alpha, to RGBA from 0 to 1."""
    if colour is None:
        return otherwise
    values = np.asarray(colour)
    values = values / 255.0 if values.dtype.kind in "ui" else values.astype(np.float64)
    return [*values[:3], values[3] if len(values) > 3 else 1.0]


def _normalise(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)


def _concatenate(
    parts: list[np.ndarray | None], counts: list[int], otherwise: np.ndarray
) -> np.ndarray | None:
    """Concatenate corner values, (F, 3, C); parts without them get `otherwise`, (F, C)."""
    if all(part is None for part in parts):
        return None
    values = np.repeat(otherwise[:, None], 3, axis=1).astype(np.float32)
    for part, count, end in zip(parts, counts, np.cumsum(counts), strict=True):
        if part is not None:
            values[end - count : end] = part
    return values
