"""Background removal: an object's mask as the alpha channel of its photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.images import composite_white_01
from multiview.segmentation import Segmenter, clean_alpha

WHOLE_IMAGE = 0.995
"""A mask that covers more than this fraction of an image has hardly found an object."""


class NoObjectError(ValueError):
    """The segmentation found no object in an image."""


def has_mask(image: Image.Image) -> bool:
    """Whether the alpha separates an object from a background: some pixels visible, some not."""
    if image.mode != "RGBA":
        return False
    visible = np.asarray(image.getchannel("A")) >= 128
    return bool(visible.any() and not visible.all())


def mask_area(image: Image.Image) -> float:
    """Fraction of an RGBA image that its object covers."""
    return float(np.mean(np.asarray(image.getchannel("A")) >= 128))


def remove_background(image: Image.Image, segment: Segmenter, backend: str) -> Image.Image:
    """Set the object's mask as alpha of an image: the minimum of it and of the image's own alpha.

    The image is "RGB" or "RGBA"; the result is RGBA, of the same colour profile. `backend` names
    `segment` in the message.

    Raises:
        NoObjectError: the segmentation found no object.
        ValueError: the image is transparent everywhere.
    """
    pixels = np.asarray(image)
    if pixels.shape[2] == 4 and not (pixels[:, :, 3] >= 128).any():
        raise ValueError("the image is transparent everywhere")
    alpha = (clean_alpha(segment(composite_white_01(image))) * 255).round().astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = np.minimum(alpha, pixels[:, :, 3])
    if not (alpha >= 128).any():
        raise NoObjectError(
            f"no object was found by the backend {backend}; larger objects that stand out from the "
            f"background are found more easily"
        )
    found = Image.fromarray(np.dstack([pixels[:, :, :3], alpha]))
    found.info["icc_profile"] = image.info.get("icc_profile") or b""
    return found


def save_rgba(path: Path, image: Image.Image) -> None:
    """Write an RGBA image as PNG, with its colour profile if that is an RGB profile."""
    profile = image.info.get("icc_profile") or b""
    with atomic_write(path) as temporary:
        image.save(temporary, icc_profile=profile if profile[16:20] == b"RGB " else None)
