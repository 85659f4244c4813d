"""What all segmentation backends share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

Segmenter = Callable[[np.ndarray], np.ndarray]
"""RGB in [0, 1], float32 (H, W, 3) -> alpha in [0, 1], float32 (H, W), 1 where the object is."""


class SegmentationUnavailableError(Exception):
    """A backend cannot be used on this machine; the message says what to install."""


def check_image(image: np.ndarray) -> tuple[int, int]:
    """Return the height and width of an image; ValueError if its shape is not (H, W, 3)."""
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is (H, W, 3), got an array of shape {image.shape}")
    return image.shape[0], image.shape[1]


def to_pil(image: np.ndarray) -> Image.Image:
    """Convert floats in [0, 1] to an 8-bit image, rounded."""
    return Image.fromarray((np.clip(image, 0.0, 1.0) * 255).round().astype(np.uint8))
