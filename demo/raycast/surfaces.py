"""The faces of a textured scene as flat arrays, ready for casting rays.

A material's colour is read as glTF says: factors are linear, textures are sRGB, and a metallic
factor that is left out is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Resampling

from common.optional import import_optional

if TYPE_CHECKING:
    from PIL.Image import Image
    from trimesh import Scene, Trimesh

GREY = (0.8, 0.8, 0.8, 1.0)
"""Linear colour of what has no material, as Blender shows it."""
LARGEST_TEXTURE, LEAST_TEXTURE = 1024, 4
"""Texels a side between which textures are reduced."""
TEXELS_PER_SAMPLE = 1.5
"""A texture is reduced until about as many texels lie between two neighbouring samples."""


@dataclass(frozen=True)
class Textures:
    """All textures of a scene one after the other.

    Attributes:
        texels: linear RGBA, row by row from the top, (T, 4) float32.
        first: index of each texture's first texel, (M,); -1 where a material has no texture.
        size: width and height, (M, 2).
    """

    texels: np.ndarray
    first: np.ndarray
    size: np.ndarray

    def sample(self, materials: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """Interpolate between texels; textures repeat.

        Args:
            materials: with a texture, (R,).
            uv: (0, 0) is the lower left corner of the picture, (R, 2).

        Returns:
            linear RGBA, (R, 4) float32.
        """
        width, height = self.size[materials].T
        first = self.first[materials]
        x = (uv[:, 0] - np.floor(uv[:, 0])) * width - np.float32(0.5)
        y = (np.ceil(uv[:, 1]) - uv[:, 1]) * height - np.float32(0.5)
        column, row = np.floor(x), np.floor(y)
        right, below = (x - column)[:, None], (y - row)[:, None]
        left, top = column.astype(np.int32), row.astype(np.int32)
        columns = (np.where(left < 0, width - 1, left), np.where(left + 1 < width, left + 1, 0))
        rows = (np.where(top < 0, height - 1, top), np.where(top + 1 < height, top + 1, 0))
        upper, lower = (first + r * width for r in rows)
        above = self.texels[upper + columns[0]] * (1 - right)
        above += self.texels[upper + columns[1]] * right
        under = self.texels[lower + columns[0]] * (1 - right)
        under += self.texels[lower + columns[1]] * right
        return above + (under - above) * below


@dataclass(frozen=True)
class Surfaces:
    """F triangles with the looks of M materials.

    Attributes:
        corners: longest side of their box 1, centred at the origin, (F, 3, 3) float32.
        normals: of unit length, of the faces, (F, 3) float32.
        smooth: normals at the corners, (F, 3, 3) float32; None where no mesh has them.
        uv: texture coordinates of the corners, (F, 3, 2) float32.
        material: of each face, (F,).
        colours: that the corners have by themselves, linear RGBA, (F, 3, 4) float32; None where no
            mesh has them.
        factors: linear RGBA of each material, (M, 4) float32.
        metallic: of each material, (M,) float32.
        roughness: of each material, (M,) float32.
        opaque: materials whose alpha counts as 1, (M,).
        cutoff: alpha from which on a material is seen, else not at all; 0 where it is mixed, (M,).
        textures: of the materials.
    """

    corners: np.ndarray
    normals: np.ndarray
    smooth: np.ndarray | None
    uv: np.ndarray
    material: np.ndarray
    colours: np.ndarray | None
    factors: np.ndarray
    metallic: np.ndarray
    roughness: np.ndarray
    opaque: np.ndarray
    cutoff: np.ndarray
    textures: Textures

    def looks(self, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Colour at points on faces.

        Args:
            faces: (R,).
            weights: of the three corners, (R, 3).

        Returns:
            linear RGBA, (R, 4) float32.
        """
        materials = self.material[faces]
        colour = self.factors[materials]
        textured = np.flatnonzero(self.textures.first[materials] >= 0)
        if len(textured):
            uv = between(self.uv, faces[textured], weights[textured])
            colour[textured] *= self.textures.sample(materials[textured], uv)
        if self.colours is not None:
            colour *= between(self.colours, faces, weights)
        alpha, cutoff = colour[:, 3], self.cutoff[materials]
        alpha[cutoff > 0] = (alpha >= cutoff)[cutoff > 0]
        alpha[self.opaque[materials]] = 1.0
        return colour


def between(values: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values at points on faces out of those at the corners.

    Args:
        values: (F, 3, C).
        faces: (R,).
        weights: of the three corners, (R, 3).

    Returns:
        (R, C).
    """
    return np.einsum("rkc,rk->rc", values[faces], weights)


def linear(srgb: np.ndarray) -> np.ndarray:
    """Light that sRGB values from 0 to 1 stand for; any shape, float32."""
    srgb = np.asarray(srgb, dtype=np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


_LINEAR = linear(np.arange(256) / 255)


def flatten(scene: Scene | Trimesh | Sequence[Trimesh], sample_distance: float = 0.0) -> Surfaces:
    """Gather all faces of a scene, scaled and moved as Blender's job does.

    Normals are interpolated where a mesh has normals of its vertices: those that its file gave, or
    that were computed because `mesh.vertex_normals` was used before. trimesh's glTF exporter has
    the same rule, so that Blender shows the same.

    Args:
        scene: z up; a scene, a mesh, or several.
        sample_distance: about how far apart neighbouring samples of a picture lie on a surface;
            textures that are finer are reduced. 0 leaves them as they are.

    Raises:
        ValueError: there is no face, or corners are not finite.
        ModuleNotFoundError: trimesh is not installed.
    """
    parts = [part for part in _parts(scene) if len(part.corners)]
    if not parts:
        raise ValueError("there is no mesh with faces in it")
    corners = np.concatenate([part.corners for part in parts])
    lower, upper = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    with np.errstate(invalid="ignore"):
        size = (upper - lower).max()
    if not (np.isfinite(size) and 1e-30 < size < 1e30):
        raise ValueError(f"its longest side is {size:g}, which cannot be scaled to 1")
    corners = ((corners - (lower + upper) / 2) / size).astype(np.float32)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    uv = np.concatenate([part.uv for part in parts])
    counts = [len(part.corners) for part in parts]
    material = np.repeat(np.arange(len(parts)), counts)
    scales = [
        _texels_apart(corners[material == i], uv[material == i], sample_distance)
        for i in range(len(parts))
    ]
    materials = [part.material for part in parts]
    return Surfaces(
        corners=corners,
        normals=_unit(normals),
        smooth=_together([part.normals for part in parts], counts, _unit(normals)),
        uv=uv,
        material=material,
        colours=_together([p.colours for p in parts], counts, np.ones((len(corners), 4))),
        factors=np.array([m.factor for m in materials], np.float32),
        metallic=np.array([m.metallic for m in materials], np.float32),
        roughness=np.array([m.roughness for m in materials], np.float32),
        opaque=np.array([m.opaque for m in materials]),
        cutoff=np.array([m.cutoff for m in materials], np.float32),
        textures=_gather([m.texture for m in materials], scales),
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
"""Of meshes whose corners have colours: as the material that Blender's job gives them."""


@dataclass(frozen=True)
class _Part:
    """A mesh: see `Surfaces`."""

    corners: np.ndarray
    uv: np.ndarray
    normals: np.ndarray | None
    colours: np.ndarray | None
    material: _Material


def _parts(scene: Scene | Trimesh | Sequence[Trimesh]) -> Iterator[_Part]:
    trimesh = import_optional("trimesh", "casting rays")
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
    with np.errstate(invalid="ignore"):  # refused by `flatten`
        corners = (np.asarray(mesh.vertices) @ turn.T + transform[:3, 3])[faces]
    normals = None
    if "vertex_normals" in mesh._cache.cache:
        inverse = np.linalg.pinv(turn)  # of the transpose, for normals; flat parts too
        normals = _unit(np.asarray(mesh.vertex_normals) @ inverse)[faces]
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
    """Read a material of trimesh; of one with several textures, only the colour."""
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
    """RGBA from 0 to 1 of a colour that may be of bytes or without alpha."""
    if colour is None:
        return otherwise
    values = np.asarray(colour)
    values = values / 255.0 if values.dtype.kind in "ui" else values.astype(np.float64)
    return [*values[:3], values[3] if len(values) > 3 else 1.0]


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)


def _together(
    parts: list[np.ndarray | None], counts: list[int], otherwise: np.ndarray
) -> np.ndarray | None:
    """Values of all corners, (F, 3, C); where a part has none, those of the faces, (F, C)."""
    if all(part is None for part in parts):
        return None
    values = np.repeat(otherwise[:, None], 3, axis=1).astype(np.float32)
    for part, count, end in zip(parts, counts, np.cumsum(counts), strict=True):
        if part is not None:
            values[end - count : end] = part
    return values


def _texels_apart(corners: np.ndarray, uv: np.ndarray, sample_distance: float) -> float:
    """How much of a texture's width, typically, lies between neighbouring samples."""
    sides, edges = corners[:, 1:] - corners[:, :1], uv[:, 1:] - uv[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum()
    covered = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).sum()
    return float(sample_distance * np.sqrt(covered / area)) if area > 0 else 0.0


def _gather(images: list[Image | None], shares: list[float]) -> Textures:
    """Read textures, each reduced by how much of its width lies between two samples."""
    first, sizes, texels, total = [], [], [np.zeros((0, 4), np.float32)], 0
    known: dict[int, tuple[int, tuple[int, int]]] = {}
    for image, share in zip(images, shares, strict=True):
        if image is None:
            first.append(-1)
            sizes.append((1, 1))
            continue
        if id(image) not in known:
            reduced = _read_texture(image, share)
            known[id(image)] = (total, (reduced.shape[1], reduced.shape[0]))
            texels.append(reduced.reshape(-1, 4))
            total += len(texels[-1])
        first.append(known[id(image)][0])
        sizes.append(known[id(image)][1])
    return Textures(np.concatenate(texels), np.array(first, np.int32), np.array(sizes, np.int32))


def _read_texture(image: Image, share: float) -> np.ndarray:
    """Linear RGBA of a picture that is averaged to the size that is needed, (H, W, 4) float32."""
    with_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    picture = image.convert("RGBA" if with_alpha else "RGB")
    most = min(LARGEST_TEXTURE / max(picture.size), 1.0)
    if share > 0:
        most = min(most, TEXELS_PER_SAMPLE / share / max(picture.size))
    if most < 1:
        size = [min(side, max(round(side * most), LEAST_TEXTURE)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Resampling.BOX, reducing_gap=2.0)
    values = np.asarray(picture)
    alpha = np.ones((*values.shape[:2], 1), np.float32)
    if with_alpha:
        alpha = values[..., 3:] / np.float32(255)
    return np.concatenate([_LINEAR[values[..., :3]], alpha], axis=2)
