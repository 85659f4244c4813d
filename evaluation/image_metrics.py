"""PSNR and SSIM of views, and detection of views in another order.

Computed by NumPy and SciPy, so that the values do not depend on the device.
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import numpy as np

from common.optional import import_optional

SsimForm = Literal["cropped", "current"]
SSIM_FORMS: dict[str, str] = {
    "cropped": "border-cropped, as in the paper (torchmetrics up to 1.4)",
    "current": "border kept (torchmetrics since 1.5); the paper's numbers are the cropped form",
}

SIGMA = 1.5
RADIUS = 5
"""Standard deviation and radius of the Gaussian window (11 x 11) in pixels."""
THUMBNAIL = 32
"""Approximate side in pixels of the thumbnails from which the order of views is detected."""
SUSPICIOUS_GAIN = 1.0
"""Gain in PSNR (dB, of thumbnails) above which another order of the views is reported."""


def psnr(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each view over all its pixels and channels.

    Views are RGB in [0, 1], (N, H, W, 3); returns dB, (N,) float64, infinite for equal views.
    Compat: the mean is taken in float32 over the pixels first, then over the channels.
    """
    squared = (true.astype(np.float32) - predicted.astype(np.float32)) ** 2
    error = squared.mean(axis=(1, 2)).mean(axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error)


def ssim(true: np.ndarray, predicted: np.ndarray, form: SsimForm = "cropped") -> np.ndarray:
    """Structural similarity of each view (Wang et al. 2004), Gaussian window of 11 x 11.

    Views are RGB in [0, 1], (N, H, W, 3), at least as large as the window, else ValueError; returns
    (N,) float64. The data range is the larger of the two views' ranges (1 for two uniform views).
    torchmetrics, which computed the paper's numbers, averaged the map without a border of
    5 pixels up to version 1.4 ("cropped"), and averages the whole map (images padded by reflection)
    since 1.5 ("current").
    """
    height, width = true.shape[1:3]
    if min(height, width) <= 2 * RADIUS:
        least = f"SSIM needs views of at least {2 * RADIUS + 1} pixels a side"
        raise ValueError(f"{least}, got {width} x {height}")
    pairs = zip(true.astype(np.float64), predicted.astype(np.float64), strict=True)
    margin = slice(RADIUS, -RADIUS) if form == "cropped" else slice(None)
    return np.array([_ssim_map(a, b)[margin, margin].mean() for a, b in pairs])


def _ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity map of two (H, W, 3) images, (H, W, 3)."""
    value_range = max(np.ptp(a), np.ptp(b)) or 1.0
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a = _blur(a * a) - mean_a**2
    variance_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )


def _blur(image: np.ndarray) -> np.ndarray:
    blur = import_optional("scipy.ndimage", "SSIM").gaussian_filter
    return blur(image, (SIGMA, SIGMA, 0), mode="mirror", truncate=RADIUS / SIGMA)


def detect_view_order(true: np.ndarray, predicted: np.ndarray) -> str | None:
    """Name a clearly better order of the predicted views, in a sentence; None if there is none.

    All cyclic shifts in both directions are compared on thumbnails.
    """
    small_true, small_predicted = _thumbnails(true), _thumbnails(predicted)
    n = len(true)
    errors = ((small_true[:, None] - small_predicted[None]) ** 2).mean(axis=(2, 3, 4))  # (N, N)
    index, scores = np.arange(n), {}
    for direction, shift in product((1, -1), range(n)):
        order = errors[index, (direction * index + shift) % n]
        scores[direction, shift] = float(-10 * np.log10(order + 1e-10).mean())
    direction, shift = max(scores, key=scores.__getitem__)
    gain = scores[direction, shift] - scores[1, 0]
    if gain < SUSPICIOUS_GAIN:
        return None
    reverse = "in reverse order and " if direction < 0 else ""
    return (
        f"the predicted views seem to be in another order: {reverse}starting with view {shift}, "
        f"they would fit by {gain:.1f} dB (of thumbnails) better"
    )


def _thumbnails(views: np.ndarray) -> np.ndarray:
    """Average (N, S, S, 3) views over blocks, to at most about THUMBNAIL pixels a side."""
    block = max(views.shape[1] // THUMBNAIL, 1)
    side = views.shape[1] // block
    cut = views[:, : side * block, : side * block].astype(np.float64)
    return cut.reshape(len(views), side, block, side, block, 3).mean(axis=(2, 4))
