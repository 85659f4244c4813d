"""Textures of a scene in one array of texels, reduced to the resolution that rays sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Resampling

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_TEXTURE_SIZE, MIN_TEXTURE_SIZE = 1024, 4
"""Texels a side between which textures are reduced."""
TEXELS_PER_SAMPLE = 1.5
"""A texture is reduced until about as many texels lie between two neighbouring samples."""


@dataclass(frozen=True)
class TextureAtlas:
    """All textures of a scene, concatenated."""

    texels: np.ndarray  # linear RGBA, row by row from the top, (T, 4) float32
    first: np.ndarray  # index of each texture's first texel, (M,); -1: a material has none
    size: np.ndarray  # width and height, (M, 2)

    def sample(self, materials: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """Sample the textures of materials, (R,), bilinearly: linear RGBA, (R, 4) float32.

        They repeat; texture coordinates, (R, 2), are (0, 0) at the image's lower left corner.
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


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB values from 0 to 1 to linear light; any shape, float32."""
    srgb = np.asarray(srgb, dtype=np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


_LINEAR_OF_BYTE = srgb_to_linear(np.arange(256) / 255)


def texture_share(corners: np.ndarray, uv: np.ndarray, sample_distance: float) -> float:
    """Return the share of a texture's width that typically lies between neighbouring samples.

    The faces that have it are given by their corners, (F, 3, 3), and coordinates, (F, 3, 2).
    """
    sides, edges = corners[:, 1:] - corners[:, :1], uv[:, 1:] - uv[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum()
    covered = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).sum()
    return float(sample_distance * np.sqrt(covered / area)) if area > 0 else 0.0


def build_atlas(images: Sequence[Image | None], shares: Sequence[float]) -> TextureAtlas:
    """Concatenate textures, each reduced according to its share (see `texture_share`)."""
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
    return TextureAtlas(
        np.concatenate(texels), np.array(first, np.int32), np.array(sizes, np.int32)
    )


def _read_texture(image: Image, share: float) -> np.ndarray:
    """Return an image in linear RGBA, box-filtered to the size needed, (H, W, 4) float32."""
    with_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    reduced = image.convert("RGBA" if with_alpha else "RGB")
    scale = min(MAX_TEXTURE_SIZE / max(reduced.size), 1.0)
    if share > 0:
        scale = min(scale, TEXELS_PER_SAMPLE / share / max(reduced.size))
    if scale < 1:
        size = [min(side, max(round(side * scale), MIN_TEXTURE_SIZE)) for side in reduced.size]
        reduced = reduced.resize((size[0], size[1]), Resampling.BOX, reducing_gap=2.0)
    values = np.asarray(reduced)
    alpha = np.ones((*values.shape[:2], 1), np.float32)
    if with_alpha:
        alpha = values[..., 3:] / np.float32(255)
    return np.concatenate([_LINEAR_OF_BYTE[values[..., :3]], alpha], axis=2)
