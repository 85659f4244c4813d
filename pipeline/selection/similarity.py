"""How well two small pictures of an object on white agree: outline, colours and pattern.

Shape letters: S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.segmentation import segment_white

WINDOW = 5
"""Pixels a side of the windows in which patterns are compared."""
FLAT = 1.5e-3
"""Variance of colours, of all channels together, below which a window has no pattern."""
BEST_PSNR = 40.0
"""dB: small pictures of the same thing do not agree better."""
FAINT = 0.05
"""Pixels that show more of an object than this are compared."""
FRAME_SIDE = 2.2
"""Side of an aligned picture, in square roots of the object's area: four to one just fits."""
INPUT_SIDE = 0.8
"""Share of the picture that the longer side of an input's object takes."""


@dataclass(frozen=True)
class Agreement:
    """How well two pictures agree.

    Attributes:
        silhouette: intersection over union of the soft outlines, in [0, 1].
        psnr: of the colours where either shows an object, dB, at most `BEST_PSNR`.
        pattern: structural similarity of the colours without their means (Wang et al. 2004, without
            the luminance term), in [-1, 1]: blurred, displaced and noisy patterns are not alike.
    """

    silhouette: float
    psnr: float
    pattern: float


def agreement(alpha: Tensor, colours: Tensor, other_alpha: Tensor, other: Tensor) -> Agreement:
    """Compare two pictures.

    Args:
        alpha: of the first, (S, S).
        colours: of the first, on white, in [0, 1], (3, S, S).
        other_alpha: of the second, (S, S).
        other: colours of the second, (3, S, S).
    """
    shown = torch.maximum(alpha, other_alpha) > FAINT
    if not shown.any():
        return Agreement(1.0, BEST_PSNR, 1.0)
    error = float((colours - other).square().mean(dim=0)[shown].mean())
    psnr = min(BEST_PSNR, -10 * float(np.log10(max(error, 1e-12))))
    pattern = float(_similarity(colours, other)[shown].mean())
    return Agreement(soft_iou(alpha, other_alpha), psnr, pattern)


def soft_iou(first: Tensor, second: Tensor) -> float:
    """Intersection over union of soft masks of any equal shape, 1 where both are empty."""
    union = float(torch.maximum(first, second).sum())
    return float(torch.minimum(first, second).sum()) / union if union > 0 else 1.0


def _similarity(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity without luminance around each pixel of (3, S, S) pictures, (S, S)."""
    mean, other_mean = _window_mean(first), _window_mean(second)
    variance = _window_mean(first.square()) - mean.square()
    other_variance = _window_mean(second.square()) - other_mean.square()
    covariance = _window_mean(first * second) - mean * other_mean
    flat = 2 * FLAT
    return (2 * covariance.sum(dim=0) + flat) / ((variance + other_variance).sum(dim=0) + flat)


def _window_mean(values: Tensor) -> Tensor:
    return F.avg_pool2d(values[None], WINDOW, 1, WINDOW // 2, count_include_pad=False)[0]


def aligned(alpha: Tensor, colours: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Bring an object's centroid to the middle of a picture and its area to a given size.

    The area and not the box: a box is moved by the thinnest part, which a coarse hull may lack.

    Args:
        alpha: (S, S), not all 0.
        colours: on white, (3, S, S).
        size: pixels a side of the result.

    Returns:
        alpha (size, size) and colours (3, size, size); white beyond the picture.
    """
    middle = torch.arange(len(alpha)) + 0.5
    area = alpha.sum().clamp_min(1e-3)
    column, row = (alpha * middle).sum() / area, (alpha * middle[:, None]).sum() / area
    offsets = ((torch.arange(size) + 0.5) / size - 0.5) * FRAME_SIDE * area.sqrt()
    places = torch.stack(
        [(column + offsets).expand(size, size), (row + offsets)[:, None].expand(size, size)], dim=-1
    )
    layers = torch.cat([colours - 1, alpha[None]])  # what is beyond the picture is 0
    normalised = (places / len(alpha) * 2 - 1)[None]
    found = F.grid_sample(layers[None], normalised, align_corners=False)[0]
    return found[3], found[:3] + 1


def input_picture(image: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Make an input image small, with its object in the middle.

    Args:
        image: uint8 or float in [0, 1], RGBA with the object's mask as alpha, or RGB on white,
            (H, W, 4) or (H, W, 3).
        size: pixels a side of the result.

    Returns:
        alpha (size, size) and colours on white, in [0, 1], (3, size, size).

    Raises:
        ValueError: the shape does not fit, or there is no object.
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise ValueError(f"an input is (H, W, 3) or (H, W, 4), got an array of shape {image.shape}")
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
    side = round(max(np.ptp(rows) + 1, np.ptp(columns) + 1) / INPUT_SIDE)
    layers = np.concatenate([colours - 1, alpha[..., None]], axis=2)
    padded = np.pad(layers, ((side, side), (side, side), (0, 0)))
    top, left = (middle + side - side // 2 for middle in box)
    square = padded[top : top + side, left : left + side]
    tensor = torch.from_numpy(np.ascontiguousarray(square)).movedim(-1, 0)[None]
    small = F.interpolate(
        tensor, (size, size), mode="bilinear", antialias=True, align_corners=False
    )[0]
    return small[3].clamp(0, 1), (small[:3] + 1).clamp(0, 1)
