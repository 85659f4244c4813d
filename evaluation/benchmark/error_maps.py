"""The pictures of a report: strips of the true and predicted views, and of where they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.images import views_to_strip

STRIPS = {"true": "ground truth", "predicted": "prediction", "error": "error map"}
"""Names of the pictures, `<name>.jpg` each, and what they show."""
LARGEST_VIEW = 256
"""Pixels a side; larger views are scaled down."""
FULL_SCALE = 0.5
"""Mean absolute difference of the channels that is drawn in the last colour."""
COLOURS = np.array(
    [[255, 255, 255], [255, 226, 120], [244, 132, 50], [178, 34, 60], [58, 8, 60]], dtype=np.float64
)
"""Of error maps, evenly spaced from no difference to `FULL_SCALE`."""


def error_map(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Draw where views differ: white is equal, dark is `FULL_SCALE` or more.

    Args:
        true: RGB in [0, 1], (N, S, S, 3).
        predicted: the same.

    Returns:
        RGB in [0, 1], (N, S, S, 3).
    """
    error = np.abs(true - predicted).mean(axis=-1) / FULL_SCALE
    stops = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(error, stops, colours) for colours in COLOURS.T]
    return np.stack(channels, axis=-1) / 255


def write_strips(folder: Path, true: np.ndarray, predicted: np.ndarray) -> None:
    """Write true.jpg, predicted.jpg and error.jpg, all views side by side.

    Args:
        folder: where to.
        true: RGB in [0, 1], (N, S, S, 3).
        predicted: the same.
    """
    views = (true, predicted, error_map(true, predicted))
    for name, pictures in zip(STRIPS, views, strict=True):
        strip = Image.fromarray((views_to_strip(pictures) * 255).round().astype(np.uint8))
        if strip.height > LARGEST_VIEW:
            strip = strip.resize((len(true) * LARGEST_VIEW, LARGEST_VIEW))
        with atomic_write(folder / f"{name}.jpg") as temporary:
            strip.save(temporary, quality=85)


def strips_in(folder: Path) -> dict[str, Path] | None:
    """The pictures that `write_strips` wrote into a folder; None where any is missing."""
    paths = {name: folder / f"{name}.jpg" for name in STRIPS}
    whole = all(path.is_file() and path.stat().st_size for path in paths.values())
    return paths if whole else None
