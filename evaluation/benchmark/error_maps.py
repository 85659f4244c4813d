"""Error maps, and the strips of true views, predicted views and error maps of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.images import views_to_strip

STRIPS = {"true": "ground truth", "predicted": "prediction", "error": "error map"}
"""Name of each strip (file `<name>.jpg`) and its caption."""
MAX_VIEW_SIZE = 256
"""Pixels a side; larger views are downscaled."""
FULL_SCALE = 0.5
"""Mean absolute difference of the channels at the end of the colour map."""
COLOUR_MAP = np.array(
    [[255, 255, 255], [255, 226, 120], [244, 132, 50], [178, 34, 60], [58, 8, 60]], dtype=np.float64
)
"""RGB colours, evenly spaced from no difference to `FULL_SCALE`."""


def error_map(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Colour-code the difference of views: white for equal, dark for `FULL_SCALE` or more.

    Views and error maps are RGB in [0, 1], (N, S, S, 3).
    """
    error = np.abs(true - predicted).mean(axis=-1) / FULL_SCALE
    stops = np.linspace(0, 1, len(COLOUR_MAP))
    channels = [np.interp(error, stops, channel) for channel in COLOUR_MAP.T]
    return np.stack(channels, axis=-1) / 255


def write_strips(folder: Path, true: np.ndarray, predicted: np.ndarray) -> None:
    """Write true.jpg, predicted.jpg and error.jpg of views in [0, 1], (N, S, S, 3)."""
    for name, views in zip(STRIPS, (true, predicted, error_map(true, predicted)), strict=True):
        strip = Image.fromarray((views_to_strip(views) * 255).round().astype(np.uint8))
        if strip.height > MAX_VIEW_SIZE:
            strip = strip.resize((len(true) * MAX_VIEW_SIZE, MAX_VIEW_SIZE))
        with atomic_write(folder / f"{name}.jpg") as temporary:
            strip.save(temporary, quality=85)


def find_strips(folder: Path) -> dict[str, Path] | None:
    """The strips that `write_strips` wrote into a folder; None if any is missing."""
    paths = {name: folder / f"{name}.jpg" for name in STRIPS}
    complete = all(path.is_file() and path.stat().st_size for path in paths.values())
    return paths if complete else None
