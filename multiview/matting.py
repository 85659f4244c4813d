"""Background removal: an object's mask as the alpha channel of its photo."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageChops

from common.files import atomic_write
from multiview.images import composite_white_01
from multiview.mask_check import level_range, refuse_faint
from multiview.segmentation import Segmenter, clean_alpha
from multiview.segmentation.base import to_pil

DECIDED_PIXELS = 2**22
"""The object is searched for in a copy of at most this many pixels; the network sees 320 x 320."""


class NoObjectError(ValueError):
    """The segmentation found no object in an image."""


def has_mask(image: Image.Image) -> bool:
    """Whether the alpha separates an object from a background: some pixels visible, some not."""
    if image.mode != "RGBA":
        return False
    low, high = level_range(image.getchannel("A"))
    return low < 128 <= high


def remove_background(image: Image.Image, segment: Segmenter, backend: str) -> Image.Image:
    """Set the object's mask as alpha of an image: the minimum of it and of the image's own alpha.

    The object is searched for in a copy of `DECIDED_PIXELS`, whose mask is enlarged, so that time
    and memory are bounded. The image is "RGB" or "RGBA"; the result is RGBA. `backend` names
    `segment` in the message.

    Raises:
        NoObjectError: the segmentation found no object.
        ValueError: the image is transparent everywhere.
    """
    own = image.getchannel("A") if image.mode == "RGBA" else None
    if own is not None:
        refuse_faint(high := level_range(own)[1])
        if high < 128:
            raise ValueError(f"the image is transparent everywhere: alpha at most {high} of 255")
    step = math.ceil(math.sqrt(image.width * image.height / DECIDED_PIXELS))
    small = composite_white_01(image.reduce(step) if step > 1 else image)
    alpha = to_pil(clean_alpha(segment(small)))
    if step > 1:
        alpha = alpha.resize(image.size, Image.Resampling.BILINEAR)
    if own is not None:
        alpha = ImageChops.darker(alpha, own)
    if level_range(alpha)[1] < 128:
        raise NoObjectError(
            f"no object was found by the backend {backend}; larger objects that stand out from the "
            f"background are found more easily"
        )
    found = image.copy()
    found.putalpha(alpha)
    return found


def save_rgba(path: Path, image: Image.Image) -> None:
    """Write an RGBA image as PNG, with its colour profile if that is an RGB profile."""
    profile = image.info.get("icc_profile") or b""
    with atomic_write(path) as temporary:
        image.save(temporary, icc_profile=profile if profile[16:20] == b"RGB " else None)
