"""Similarity of two small images of an object on white, S pixels a side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import PIXEL_CENTRE
from multiview.segmentation import segment_white

CROP_SIDE = 64
"""Pixels a side at which inputs and views are compared."""
WINDOW = 5
"""Pixels a side of the windows in which patterns are compared."""
FLAT_VARIANCE = 1.5e-3
"""Colour variance (summed over channels) of a patternless window; stabilises the division."""
BEST_PSNR = 40.0
"""dB; the upper limit of a PSNR."""
MIN_ALPHA = 0.05
"""Pixels with more alpha than this in either image are compared."""
FRAME_SIDE = 2.2
"""Side of a scale-normalised image over the square root of the object's area; 4:1 objects fit."""
LARGE_SIDE = 1024
"""Inputs of at least twice this side are thinned out to it before they are cropped."""
INPUT_OBJECT_SHARE = 0.8
"""Length of the object's longer side over the image's side in a centred input."""


class ObjectCrop(NamedTuple):
    """An input image, cropped to its object with a margin and downsampled, for comparisons.

    Alpha (S, S) and colours on white (3, S, S) are in [0, 1].
    """

    alpha: Tensor
    colours: Tensor


class Similarity(NamedTuple):
    """Similarity of two images of an object.

    Attributes:
        silhouette: soft intersection over union of the silhouettes, in [0, 1].
        psnr: of the colours where either shows an object, dB, at most `BEST_PSNR`.
        pattern: structural similarity without the luminance term (Wang et al. 2004), in [-1, 1];
            low for blurred, shifted and noisy patterns.
    """

    silhouette: float
    psnr: float
    pattern: float


def measure_similarity(
    alpha: Tensor, colours: Tensor, other_alpha: Tensor, other: Tensor
) -> Similarity:
    """Compare two images: alpha (S, S) and colours on white, in [0, 1], (3, S, S), of each."""
    shown = torch.maximum(alpha, other_alpha) > MIN_ALPHA
    if not shown.any():
        return Similarity(1.0, BEST_PSNR, 1.0)
    error = float((colours - other).square().mean(dim=0)[shown].mean())
    psnr = min(BEST_PSNR, -10 * float(np.log10(max(error, 1e-12))))
    pattern = float(_structural_similarity(colours, other)[shown].mean())
    return Similarity(soft_iou(alpha, other_alpha), psnr, pattern)


def soft_iou(first: Tensor, second: Tensor) -> float:
    """Intersection over union of soft masks of any equal shape, 1 where both are empty."""
    union = float(torch.maximum(first, second).sum())
    return float(torch.minimum(first, second).sum()) / union if union > 0 else 1.0


def _structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity without luminance around each pixel of (3, S, S) images, (S, S)."""
    mean, other_mean = _window_mean(first), _window_mean(second)
    variance = _window_mean(first.square()) - mean.square()
    other_variance = _window_mean(second.square()) - other_mean.square()
    covariance = _window_mean(first * second) - mean * other_mean
    flat = 2 * FLAT_VARIANCE
    return (2 * covariance.sum(dim=0) + flat) / ((variance + other_variance).sum(dim=0) + flat)


def _window_mean(values: Tensor) -> Tensor:
    return F.avg_pool2d(values[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]


def normalise_scale(alpha: Tensor, colours: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Centre an object by its centroid and scale the image by its area.

    Area and centroid are robust to thin parts, which a coarse hull may lack; a box is not. Results
    are alpha (size, size) and colours on white (3, size, size).
    """
    middle = torch.arange(len(alpha)) + PIXEL_CENTRE
    area = alpha.sum().clamp_min(1e-3)
    column, row = (alpha * middle).sum() / area, (alpha * middle[:, None]).sum() / area
    offsets = ((torch.arange(size) + 0.5) / size - 0.5) * FRAME_SIDE * area.sqrt()
    across, down = column + offsets, (row + offsets)[:, None]
    places = torch.stack([across.expand(size, size), down.expand(size, size)], dim=-1)
    layers = torch.cat([colours - 1, alpha[None]])  # grid_sample pads with 0: white
    normalised = (places / len(alpha) * 2 - 1)[None]
    found = F.grid_sample(layers[None], normalised, align_corners=False)[0]
    return found[3], found[:3] + 1


def crop_object(image: np.ndarray, size: int) -> ObjectCrop:
    """Crop an input image to its object and resize it; ValueError if there is no object.

    It is uint8 or float in [0, 1], RGBA with the object's mask as alpha, (H, W, 4), or RGB on
    white, (H, W, 3).
    """
    step = max(1, max(image.shape[:2]) // LARGE_SIDE)  # bounds the memory; the crop is small
    image = image[::step, ::step]
    pixels = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        colours = pixels[..., :3] * alpha[..., None] + 1 - alpha[..., None]
    else:
        alpha, colours = segment_white(pixels), pixels
    rows, columns = np.nonzero(alpha >= 0.5)
    if not len(rows):
        raise ValueError("there is no object in the input image")
    box = [(places.min() + places.max() + 1) // 2 for places in (rows, columns)]
    side = round(max(np.ptp(rows) + 1, np.ptp(columns) + 1) / INPUT_OBJECT_SHARE)
    layers = np.concatenate([colours - 1, alpha[..., None]], axis=2)
    padded = np.pad(layers, ((side, side), (side, side), (0, 0)))
    top, left = (middle + side - side // 2 for middle in box)
    square = padded[top : top + side, left : left + side]
    tensor = torch.from_numpy(np.ascontiguousarray(square)).movedim(-1, 0)[None]
    small = F.interpolate(tensor, (size, size), mode="bilinear", antialias=True)[0]
    return ObjectCrop(small[3].clamp(0, 1), (small[:3] + 1).clamp(0, 1))
