"""Segmentation of an object on a white background, without a network."""

from __future__ import annotations

import numpy as np

from multiview.segmentation.base import check_image

WHITE_FLOOR = 0.9
"""A background is called white if its darkest channel is at least this."""
WHITE_TOLERANCE = 16 / 255
"""Variation inside a white background: 3/255 in generated views, more in JPEG files near the
object. Nearly no pixel of a lit object, even of a white one, is this white."""
MAX_WHITE_TOLERANCE = 24 / 255
"""The tolerance if the image's border is noisy."""
SAME_WHITE = 3 / 255
"""A region within this of the border's white has the background's colour."""
MIN_HOLE = 0.003
"""Smallest hole, as a fraction of the object's area: highlights are smaller, real holes larger."""
MIN_SPECK = 0.015
"""Smallest part that is kept, as a fraction of the largest."""


def segment_white(image: np.ndarray) -> np.ndarray:
    """Find the object on a white background, without a network; see `Segmenter`.

    The background is as white as the image's border and connected to it by more than a few pixels,
    so that a highlight at the object's edge does not open the object. White inside the object is
    background if it has exactly the background's colour and more than 0.3 % of the object's area,
    like a hole behind a handle; shaded white and small highlights belong to the object. Parts below
    1.5 % of the largest are dropped. Antialiased pixels at the edge get a fraction, computed from
    their colour.

    Returns:
        alpha: all 0 for an all-white image, all 1 if no white touches the border.
    """
    from scipy import ndimage

    check_image(image)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    whitish = border[border.min(axis=1) >= WHITE_FLOOR]
    if not len(whitish):
        return np.ones(image.shape[:2], np.float32)
    white = np.median(whitish, axis=0)
    spread = np.percentile(np.abs(whitish - white).max(axis=1), 95)
    difference = np.abs(image - white).max(axis=2)
    near_white = difference <= np.clip(3 * spread, WHITE_TOLERANCE, MAX_WHITE_TOLERANCE)

    background = _flood_from_border(near_white, radius=max(1, round(min(near_white.shape) / 128)))
    enclosed = near_white & ~background
    foreground = ~background & ~_holes(enclosed, background, difference, max(SAME_WHITE, spread))

    parts, _ = ndimage.label(foreground, np.ones((3, 3)))
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return _soften(areas[parts] >= max(1, MIN_SPECK * areas.max()), difference)


def _flood_from_border(near_white: np.ndarray, radius: int) -> np.ndarray:
    """Flood the background from outside with near-white squares of 2 radius + 1 pixels a side.

    Corners are filled by up to 2 radius steps of dilation, which never cross a line that is not
    near white, even of one pixel.
    """
    from scipy import ndimage

    margin = radius + 1
    outside = np.pad(near_white, margin, constant_values=True)
    eroded = ndimage.minimum_filter(outside, 2 * radius + 1, mode="constant", cval=1)
    regions, _ = ndimage.label(eroded)
    flooded = ndimage.binary_dilation(regions == regions[0, 0], iterations=2 * radius, mask=outside)
    return flooded[margin:-margin, margin:-margin]


def _holes(
    enclosed: np.ndarray, background: np.ndarray, difference: np.ndarray, same_white: float
) -> np.ndarray:
    """Find near-white regions that are background: narrow bays of it, and large holes."""
    from scipy import ndimage

    regions, count = ndimage.label(enclosed)
    index = np.arange(count + 1)
    same = np.asarray(ndimage.median(difference, regions, index)) <= same_white
    large = np.bincount(regions.ravel()) >= MIN_HOLE * np.count_nonzero(~background)
    bay = np.isin(index, regions[ndimage.binary_dilation(background)])
    holes = same & (large | bay)
    holes[0] = False
    return holes[regions]


def _soften(foreground: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Antialias a mask's outermost pixels: the fraction of each that the object covers.

    A pixel that is half object, half white differs half as much from white as the object beside it.
    Lines of one or two pixels, which have no inside, are compared with their darkest pixel.
    """
    from scipy import ndimage

    inside = ndimage.binary_erosion(foreground, np.ones((3, 3)), border_value=1)
    weight = ndimage.uniform_filter(inside.astype(np.float64), 3, mode="nearest")
    beside = ndimage.uniform_filter(difference * inside, 3, mode="nearest", output=np.float64)
    strongest = ndimage.maximum_filter(np.where(foreground, difference, 0.0), 3)
    whole = np.where(weight > 1e-3, beside / np.maximum(weight, 1e-3), strongest)
    share = np.clip(difference / np.maximum(whole, 1e-6), 0.0, 1.0)
    return np.where(inside, 1.0, np.where(foreground, share, 0.0)).astype(np.float32)
