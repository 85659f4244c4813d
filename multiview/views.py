"""Reading the views of one object from a folder of images or a strip."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from multiview.cameras import NUM_VIEWS
from multiview.image_file import FORMATS, read_image
from multiview.images import composite_white_01, strip_to_views, view_names

log = logging.getLogger(__name__)

MIN_SIZE = 16
"""Pixels a side below which views show nothing."""


def read_views(path: Path, num_views: int = NUM_VIEWS) -> np.ndarray:
    """Read the N views of one object, composited on white, float32 RGB in [0, 1], (N, S, S, 3).

    The path is a folder with 000.png, 001.png, ... (RGB or RGBA; further views are ignored with a
    warning), or a strip, as `generate.py` writes it.

    Raises:
        FileNotFoundError: there is no such folder or file, or views are missing; names them.
        ValueError: a file is not an image, or the views differ in size, are not square, or are
            smaller than `MIN_SIZE`.
    """
    return _on_white(_read_images(path, num_views))


def read_views_and_alpha(
    path: Path, num_views: int = NUM_VIEWS
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read views, see `read_views`, and the alpha of their files, float32 in [0, 1], (N, S, S).

    The alpha is None if it is 1 everywhere, or if not all views have it (with a warning).
    """
    images = _read_images(path, num_views)
    return _on_white(images), _alpha(path, images, num_views)


def _read_images(path: Path, num_views: int) -> dict[str, Image.Image]:
    """Read one strip, or N views of the same size, by file name."""
    if path.is_file():
        strip = read_image(path)
        _check_strip(path, strip.size, num_views)
        return {path.name: strip}
    if not path.is_dir():
        if Image.registered_extensions().get(path.suffix.lower()) in FORMATS:
            raise FileNotFoundError(f"{path}: no such file")
        raise FileNotFoundError(f"{path}: no such folder of views (000.png, 001.png, ...)")
    names = view_names(num_views)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        found = f"{num_views - len(missing)} of {num_views} views are there"
        raise FileNotFoundError(f"{path}: {found}, missing: {', '.join(missing)}")
    further = {item.name for item in path.iterdir() if re.fullmatch(r"\d{3}\.png", item.name)}
    further -= set(names)
    if further:
        log.warning("%s: %d views are read; ignored: %s", path, num_views, _enumerate(further))
    images = {name: read_image(path / name) for name in names}
    _check_sizes(path, names, [image.size for image in images.values()])
    return images


def _on_white(images: dict[str, Image.Image]) -> np.ndarray:
    """Composite views of a strip, or of single files, on white, (N, S, S, 3)."""
    return np.concatenate([strip_to_views(composite_white_01(p)) for p in images.values()])


def _alpha(path: Path, images: dict[str, Image.Image], num_views: int) -> np.ndarray | None:
    """Alpha of a strip or of single views, (N, S, S); None if it is no mask."""
    alphas = {
        name: np.asarray(image.getchannel("A"))
        for name, image in images.items()
        if image.mode == "RGBA"
    }
    if all((alpha == 255).all() for alpha in alphas.values()):
        return None
    without = set(images) - set(alphas)
    if without:
        said = "%s: the views' alpha is not used as masks, because these views have none: %s"
        log.warning(said, path, _enumerate(without))
        return None
    rows = np.concatenate(list(alphas.values()), axis=1)
    return np.stack(np.split(rows.astype(np.float32) / 255.0, num_views, axis=1))


def _enumerate(names: set[str]) -> str:
    """List the first of the names, and the number of the others."""
    first, more = sorted(names)[:NUM_VIEWS], len(names) - NUM_VIEWS
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _check_sizes(path: Path, names: list[str], sizes: list[tuple[int, int]]) -> None:
    usual, _ = Counter(sizes).most_common(1)[0]
    others = [
        f"{name} ({width} x {height})"
        for name, (width, height) in zip(names, sizes, strict=True)
        if (width, height) != usual
    ]
    if others:
        raise ValueError(
            f"{path}: the views differ in size: most have {usual[0]} x {usual[1]} pixels, "
            f"but not {', '.join(others)}"
        )
    if usual[0] != usual[1]:
        found = f"{usual[0]} x {usual[1]} pixels (width x height)"
        raise ValueError(f"{path}: the views have {found}, expected square ones")
    _check_smallest(path, usual[0])


def _check_strip(path: Path, size: tuple[int, int], num_views: int) -> None:
    width, height = size
    if width != num_views * height:
        raise ValueError(
            f"{path}: the image has {width} x {height} pixels (width x height): "
            f"{_what_it_looks_like(width, height, num_views)}, expected {num_views} square views "
            f"side by side ({num_views} times as wide as high), or a folder of views"
        )
    _check_smallest(path, height)


def _what_it_looks_like(width: int, height: int, num_views: int) -> str:
    """Guess what an image is that is no strip of `num_views` square views."""
    if width == height:
        return f"this looks like one view of {height} px"
    if height == num_views * width:
        return f"this looks like {num_views} views of {width} px below one another"
    if width % height == 0:
        return f"this looks like {width // height} views of {height} px"
    if height % width == 0:
        return f"this looks like {height // width} views of {width} px below one another"
    if round(width / height) == num_views:
        off = width - num_views * height
        how = f"{abs(off)} pixels too {'wide' if off > 0 else 'narrow'} for their height"
        return f"this looks like {num_views} views, {how}"
    return "this is no row of square views"


def _check_smallest(path: Path, size: int) -> None:
    if size < MIN_SIZE:
        least = f"{MIN_SIZE} x {MIN_SIZE}"
        raise ValueError(
            f"{path}: the views have {size} x {size} pixels, expected at least {least}"
        )
