"""Other versions of a real object: turned, stretched and re-coloured."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from trimesh import Scene


@dataclass(frozen=True)
class VariationLimits:
    """How far versions go from the original.

    Attributes:
        stretch: each axis by a factor of up to this, or of down to its inverse.
        hue: of all colours together, turns to either side.
        part_hue: of each material or texture by itself, turns to either side.
        saturation: factor of up to this, or of down to its inverse.
        value: factor of up to this, or of down to its inverse.
    """

    stretch: float = 1.3
    hue: float = 0.5
    part_hue: float = 0.05
    saturation: float = 1.6
    value: float = 1.3

    def __post_init__(self) -> None:
        for name in ("stretch", "saturation", "value"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("hue", "part_hue"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ValueError(f"{name} must be from 0 to 0.5, got {getattr(self, name)}")


def vary(scene: Scene, name: str, seed: int = 0, limits: VariationLimits | None = None) -> Scene:
    """Make another version of an object: turned about z, stretched, re-coloured.

    Args:
        scene: z up; it stays as it is.
        name: of the version; with the seed it determines what comes out.
        seed: of all versions.
        limits: how far it goes.

    Returns:
        with meshes of their own; textures that are not changed are shared.
    """
    limits = limits or VariationLimits()
    digest = hashlib.sha256(f"variation/{seed}/{name}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "big"))
    angle = generator.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    stretch = np.diag([*_factors(generator, limits.stretch, 3), 1.0])
    hue = generator.uniform(-limits.hue, limits.hue)
    saturation = _factors(generator, limits.saturation, 1)[0]
    value = _factors(generator, limits.value, 1)[0]
    varied = type(scene)()
    changed: dict[int, Any] = {}
    for node in sorted(scene.graph.nodes_geometry):
        transform, geometry = scene.graph[node]
        mesh = scene.geometry[geometry].copy(include_cache=True)  # with the normals of its file
        own_hue = hue + generator.uniform(-limits.part_hue, limits.part_hue)
        _recolour(mesh.visual, own_hue, saturation, value, changed)
        varied.add_geometry(mesh, node_name=node, transform=turn @ stretch @ transform)
    return varied


def _factors(generator: np.random.Generator, most: float, count: int) -> np.ndarray:
    return most ** generator.uniform(-1, 1, count)


def _recolour(
    visual: Any,
    hue: float,
    saturation: float,
    value: float,
    changed: dict[int, Any],
) -> None:
    """Change the colours of a part; textures that several parts have change once."""

    def shift(rgba: np.ndarray) -> np.ndarray:
        return shift_colours(rgba, hue, saturation, value)

    if visual.kind == "vertex":
        visual.vertex_colors = shift(np.asarray(visual.vertex_colors))
    elif visual.kind == "face":
        visual.face_colors = shift(np.asarray(visual.face_colors))
    if visual.kind != "texture":
        return
    material = visual.material = visual.material.copy()
    picture = "baseColorTexture" if hasattr(material, "baseColorTexture") else "image"
    image = getattr(material, picture, None)
    if image is not None:
        key = hash(image.tobytes())
        if key not in changed:
            mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
            changed[key] = Image.fromarray(shift(np.asarray(image.convert(mode))))
        setattr(material, picture, changed[key])
        return
    factor = "baseColorFactor" if hasattr(material, "baseColorFactor") else "diffuse"
    colour = getattr(material, factor, None)
    if colour is not None:
        setattr(material, factor, shift(np.asarray(colour).reshape(1, -1))[0])


def shift_colours(colours: np.ndarray, hue: float, saturation: float, value: float) -> np.ndarray:
    """Shift colours in hue, saturation and value.

    Args:
        colours: RGB or RGBA, bytes, (..., 3) or (..., 4).
        hue: in turns.
        saturation: factor.
        value: factor.

    Returns:
        bytes of the same shape; alpha stays.
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
