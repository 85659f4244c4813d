"""The views of one object as they are evaluated: a folder of files, or a strip of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from multiview.images import over_white, read_image, strip_to_views, view_names

NUM_VIEWS = 16
"""Views of an object in the paper's protocol."""


def read_views(path: Path, num_views: int = NUM_VIEWS) -> np.ndarray:
    """Read the views of one object, composited on white.

    Args:
        path: a folder with 000.png, 001.png, ... (RGB or RGBA; other files in it are left
            alone), or one image with the views side by side, as `generate.py` writes it.
        num_views: N.

    Returns:
        float32 RGB in [0, 1], (N, S, S, 3).

    Raises:
        FileNotFoundError: there is no such folder or file, or views are missing; names them.
        ValueError: a file is not an image, or the views differ in size or are not square.
    """
    if path.is_file():
        return _read_strip(path, num_views)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of views (000.png, 001.png, ...)")
    names = view_names(num_views)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        found = f"{num_views - len(missing)} of {num_views} views are there"
        raise FileNotFoundError(f"{path}: {found}, missing: {', '.join(missing)}")
    views = [over_white(read_image(path / name)) for name in names]
    _check_sizes(path, names, views)
    return np.stack(views)


def _check_sizes(path: Path, names: list[str], views: list[np.ndarray]) -> None:
    sizes = [view.shape[:2] for view in views]
    usual, _ = Counter(sizes).most_common(1)[0]
    others = [
        f"{name} ({width} x {height})"
        for name, (height, width) in zip(names, sizes, strict=True)
        if (height, width) != usual
    ]
    if others:
        raise ValueError(
            f"{path}: the views differ in size: most have {usual[1]} x {usual[0]} pixels, "
            f"but not {', '.join(others)}"
        )
    if usual[0] != usual[1]:
        raise ValueError(
            f"{path}: the views have {usual[1]} x {usual[0]} pixels (width x height), expected "
            f"square ones"
        )


def _read_strip(path: Path, num_views: int) -> np.ndarray:
    strip = over_white(read_image(path))
    height, width = strip.shape[:2]
    if width != num_views * height:
        raise ValueError(
            f"{path}: the image has {width} x {height} pixels (width x height), expected "
            f"{num_views} square views side by side, or a folder of views"
        )
    return strip_to_views(strip)
