"""The check of masks in the alpha of input images, for all commands."""

from __future__ import annotations

import logging
import math

import numpy as np
from PIL import Image

log = logging.getLogger(__name__)

FAINT = 8
"""An alpha of at most this of 255 shows nothing."""
WHOLE_IMAGE = 0.995
"""A mask that covers more than this fraction of an image has hardly found an object."""
SIDE = 1024
"""Parts are found in a copy of at most this many pixels a side."""
HAZE = 26
"""Smaller alpha, of 255, belongs to the object only within `MARGIN` pixels of it."""
MARGIN = 3
FEW = 0.001
"""Specks are at most this fraction of an image's pixels; more is haze."""
MIN_SPECK = 0.001
"""Smallest part that counts for the object's box, as a fraction of the largest part's area."""
BORDER, HOLE = 0.98, 0.02
"""A mask that covers more of each border than the first, and leaves more of the image than the
second, is probably that of the background."""


def level_range(grey: Image.Image) -> tuple[int, int]:
    """Lowest and highest level of an 8-bit grey image."""
    levels = np.flatnonzero(grey.histogram())
    return int(levels[0]), int(levels[-1])


def mask_area(image: Image.Image) -> float:
    """Fraction of an RGBA image that its object covers."""
    return image.getchannel("A").point(lambda level: 255 * (level >= 128)).histogram()[255] / (
        image.width * image.height
    )


def refuse_faint(high: int) -> None:
    """Raise ValueError if an alpha of at most `high` of 255, which is not 0, shows nothing."""
    if 0 < high <= FAINT:
        raise ValueError(
            f"its alpha is at most {high} of 255, which leaves nothing to be seen; "
            f"if it is a mask saved as 0 and {high}, multiply it by {255 // high}"
        )


def border_shares(solid: np.ndarray) -> list[float]:
    """Shares of the four borders that a mask, bool (H, W), covers."""
    return [float(side.mean()) for side in (solid[0], solid[-1], solid[:, 0], solid[:, -1])]


def looks_inverted(solid: np.ndarray) -> bool:
    """Whether a mask, bool (H, W), is probably that of the background."""
    return min(border_shares(solid)) > BORDER and solid.mean() < 1 - HOLE


def check_mask(image: Image.Image, name: object, keep_haze: bool = False) -> Image.Image:
    """Check the mask of an input, an RGBA image; return it without specks and haze.

    Those are small or faint alpha away from the object that would enlarge its box; without them,
    the image stays as it is. Doubts are logged with their numbers; `name` is for messages. RGB
    images, and what is transparent or opaque everywhere, are returned as they are.

    Compat: `keep_haze` frames an object in haze as the published code does, with a warning.

    Raises:
        ValueError: the alpha is too faint to show anything.
    """
    if image.mode != "RGBA":
        return image
    alpha = image.getchannel("A")
    low, high = level_range(alpha)
    if high == 0:
        return image
    if low == 255:
        said = "%s is opaque everywhere: its background counts as the object, for the mask covers "
        log.warning(said + "the whole image", name)
        return image
    refuse_faint(high)
    if high < 128:
        said = "%s: its alpha is at most %d of 255: the object is hardly visible"
        log.warning(said, name, high)
        return image
    area = mask_area(image)
    step = math.ceil(max(image.size) / SIDE)
    small = np.asarray(alpha.reduce(step))
    solid = small >= 128
    borders = border_shares(solid)
    if area > WHOLE_IMAGE:
        said = "%s: the mask covers the whole image (%.1f %%): was the object found?"
        log.warning(said, name, 100 * area)
    elif looks_inverted(solid):
        log.warning(
            "%s: the mask covers all borders (%.0f %% of them) and leaves %.0f %% of the image "
            "inside them: is it inverted, 255 on the background?",
            name, 100 * np.mean(borders), 100 * (1 - area),
        )  # fmt: skip
    return _without_specks(image, small, step, name, keep_haze) if solid.any() else image


def _without_specks(
    image: Image.Image, small: np.ndarray, step: int, name: object, keep_haze: bool
) -> Image.Image:
    """Clear alpha outside the object, which is found in the mask reduced by `step`."""
    from scipy import ndimage

    parts, _ = ndimage.label(small >= HAZE, np.ones((3, 3)))
    areas = np.bincount(parts.ravel(), small.ravel() >= 128)
    areas[0] = 0
    kept = (areas >= MIN_SPECK * areas.max()) & (areas > 0)
    near = ndimage.binary_dilation(kept[parts], np.ones((3, 3)), iterations=MARGIN)
    whole = Image.fromarray(near).resize(
        (near.shape[1] * step, near.shape[0] * step), Image.Resampling.NEAREST
    )
    alpha, clean = image.getchannel("A"), Image.new("L", image.size)
    clean.paste(alpha, mask=whole.crop((0, 0, *image.size)))
    if alpha.getbbox() == clean.getbbox():
        return image
    dropped = sum(alpha.histogram()[1:]) - sum(clean.histogram()[1:])
    clean = clean.point(lambda level: level * (level >= HAZE))
    boxes = [each.getbbox() or (0, 0, 0, 0) for each in (clean, alpha)]
    sizes = [f"{right - left} x {bottom - top}" for left, top, right, bottom in boxes]
    haze = keep_haze and dropped > FEW * image.width * image.height
    what = "counts as the object, as in the published code" if haze else "is left out"
    log.warning(
        "%s: alpha away from the object (%d pixels) %s: its box is %s without it, %s with it",
        name, dropped, what, *sizes,
    )  # fmt: skip
    if haze:
        return image
    cleaned = image.copy()
    cleaned.putalpha(clean)
    return cleaned
