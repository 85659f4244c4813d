"""Augmentation of real objects: rotated, stretched and recoloured variants."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from trimesh import Scene


STRETCH, SATURATION, VALUE = 1.3, 1.6, 1.3
"""Each axis, the saturation and the value change by a factor between this and its inverse."""
HUE, PART_HUE = 0.5, 0.05
"""Of all colours together, and of each part in addition; in turns to either side."""


def augment(scene: Scene, name: str) -> Scene:
    """Return a random variant of an object: rotated about z (up), stretched and recoloured.

    The variant's name determines the random numbers; the meshes are copied.
    """
    digest = hashlib.sha256(f"variation/0/{name}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    angle = generator.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    stretch = np.diag([*_factors(generator, STRETCH, 3), 1.0])
    hue = generator.uniform(-HUE, HUE)
    saturation = _factors(generator, SATURATION, 1)[0]
    value = _factors(generator, VALUE, 1)[0]
    variant = type(scene)()
    recoloured: dict[int, Any] = {}
    for node in sorted(scene.graph.nodes_geometry):
        transform, geometry = scene.graph[node]
        mesh = scene.geometry[geometry].copy(include_cache=True)  # with the normals of its file
        part_hue = hue + generator.uniform(-PART_HUE, PART_HUE)
        _recolour(mesh.visual, part_hue, saturation, value, recoloured)
        variant.add_geometry(mesh, node_name=node, transform=rotation @ stretch @ transform)
    return variant


def _factors(generator: np.random.Generator, limit: float, count: int) -> np.ndarray:
    return limit ** generator.uniform(-1, 1, count)


def _recolour(
    visual: Any, hue: float, saturation: float, value: float, recoloured: dict[int, Any]
) -> None:
    """Recolour a part in place; textures that parts share are recoloured once."""

    def shift(rgba: np.ndarray) -> np.ndarray:
        return shift_colours(rgba, hue, saturation, value)

    if visual.kind == "vertex":
        visual.vertex_colors = shift(np.asarray(visual.vertex_colors))
    elif visual.kind == "face":
        visual.face_colors = shift(np.asarray(visual.face_colors))
    if visual.kind != "texture":
        return
    material = visual.material = visual.material.copy()
    attribute = "baseColorTexture" if hasattr(material, "baseColorTexture") else "image"
    image = getattr(material, attribute, None)
    if image is not None:
        key = hash(image.tobytes())
        if key not in recoloured:
            mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
            recoloured[key] = Image.fromarray(shift(np.asarray(image.convert(mode))))
        setattr(material, attribute, recoloured[key])
        return
    factor = "baseColorFactor" if hasattr(material, "baseColorFactor") else "diffuse"
    colour = getattr(material, factor, None)
    if colour is not None:
        setattr(material, factor, shift(np.asarray(colour).reshape(1, -1))[0])


def shift_colours(colours: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Shift colours in hue (by turns), saturation and value (by factors).

    Colours are bytes, RGB or RGBA, (..., 3) or (..., 4); alpha is kept.
    """
    rgb = colours[..., :3].astype(np.float32) / np.float32(255)
    brightest, darkest = rgb.max(axis=-1), rgb.min(axis=-1)
    chroma = brightest - darkest
    safe = np.where(chroma > 0, chroma, 1)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    sector = np.where(
        brightest == red,
        (green - blue) / safe,
        np.where(brightest == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    colourful = np.minimum(chroma / np.where(brightest > 0, brightest, 1) * saturation, 1)
    bright = np.minimum(brightest * value, 1)
    shifted = colours.copy()
    for channel, offset in enumerate((5, 3, 1)):
        k = (offset + sector + 6 * hue) % 6
        part = bright * (1 - colourful * np.clip(np.minimum(k, 4 - k), 0, 1))
        shifted[..., channel] = (part * 255 + 0.5).astype(np.uint8)
    return shifted
