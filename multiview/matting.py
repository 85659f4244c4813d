"""An object cut out of a photo: the photo's colours, and its mask as alpha."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.images import composite_white_01
from multiview.segmentation import Segmenter, clean_alpha

WHOLE_IMAGE = 0.995
"""A mask that covers more than this share of a picture has hardly found an object."""


def has_mask(image: Image.Image) -> bool:
    """Whether an image's alpha tells an object from a background: some is seen, some is not."""
    if image.mode != "RGBA":
        return False
    seen = np.asarray(image.getchannel("A")) >= 128
    return bool(seen.any() and not seen.all())


def mask_area(image: Image.Image) -> float:
    """Share of an RGBA image that its object covers."""
    return float(np.mean(np.asarray(image.getchannel("A")) >= 128))


def remove_background(image: Image.Image, segment: Segmenter, backend: str) -> Image.Image:
    """Give an image its object's mask as alpha; alpha that it has stays where it is smaller.

    Args:
        image: mode "RGB" or "RGBA".
        segment: what finds the object.
        backend: name of it, for the message.

    Returns:
        RGBA image of the same size, and with the same profile of its colours.

    Raises:
        ValueError: no object was found, or the image is transparent everywhere.
    """
    pixels = np.asarray(image)
    if pixels.shape[2] == 4 and not (pixels[:, :, 3] >= 128).any():
        raise ValueError("its alpha leaves nothing to be seen: it is transparent everywhere")
    alpha = (clean_alpha(segment(composite_white_01(image))) * 255).round().astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = np.minimum(alpha, pixels[:, :, 3])
    if not (alpha >= 128).any():
        raise ValueError(
            f"no object was found in it; try another --backend than {backend}, or a photo in which "
            f"the object is larger and stands out from the background"
        )
    found = Image.fromarray(np.dstack([pixels[:, :, :3], alpha]))
    found.info["icc_profile"] = image.info.get("icc_profile") or b""
    return found


def save_rgba(path: Path, image: Image.Image) -> None:
    """Write an RGBA image as PNG, with the profile of its colours where that is one of RGB."""
    profile = image.info.get("icc_profile") or b""
    with atomic_write(path) as temporary:
        image.save(temporary, icc_profile=profile if profile[16:20] == b"RGB " else None)
