"""Reading the views of one object from a folder of images or a strip, and writing a folder."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from common.files import atomic_write
from multiview.cameras import NUM_VIEWS, Cameras
from multiview.colmap_model import MODEL, MODEL_FILES, write_colmap
from multiview.image_file import MAX_INPUT_PIXELS, SUFFIXES, read_image
from multiview.images import composite_white_01, strip_to_views, view_names
from multiview.transforms_json import TRANSFORMS, write_transforms

log = logging.getLogger(__name__)

MIN_SIZE = 16
"""Pixels a side below which views show nothing."""
MAX_VIEW_PIXELS = 1024**2
"""Larger views are refused where they are not reduced: the scores of 16 would take gigabytes."""
CAMERA_FILES = (Path(TRANSFORMS), *(MODEL / name for name in MODEL_FILES))
"""What `write_views` writes beside the views."""


def write_views(folder: Path, views: np.ndarray, cameras: Cameras, colmap: bool = False) -> None:
    """Write N views, uint8 (N, S, S, 3), into a folder: 000.png, 001.png, ...

    Their cameras are written to transforms.json, and with `colmap` also as a COLMAP model.
    """
    names = view_names(len(views))
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in zip(names, views, strict=True):
        with atomic_write(folder / name) as path:
            Image.fromarray(view).save(path)
    write_transforms(folder / TRANSFORMS, names, cameras, views.shape[1])
    if colmap:
        write_colmap(folder / MODEL, names, cameras, views.shape[1])


def read_views(path: Path, num_views: int = NUM_VIEWS) -> np.ndarray:
    """Read the N views of one object, composited on white, float32 RGB in [0, 1], (N, S, S, 3).

    The path is a folder with 000.png, 001.png, ... (RGB or RGBA; see `view_files` for other names;
    further views are ignored with a warning), or a strip, as `generate.py` writes it.

    Raises:
        FileNotFoundError: there is no such folder or file, or views are missing; names them.
        ValueError: a file is not an image, or the views differ in size, are not square, are
            smaller than `MIN_SIZE`, or have more than `MAX_VIEW_PIXELS`.
    """
    return _on_white(_read_images(path, num_views))


def read_views_and_alpha(
    path: Path, num_views: int = NUM_VIEWS, most_pixels: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read views, see `read_views`, and the alpha of their files, float32 in [0, 1], (N, S, S).

    The alpha is None if it is 1 everywhere, or if not all views have it (with a warning). Views of
    more than `most_pixels` a side are reduced to that.
    """
    images = _read_images(path, num_views, most_pixels)
    return _on_white(images), _alpha(path, images, num_views)


def _read_images(
    path: Path, num_views: int, most_pixels: int | None = None
) -> dict[str, Image.Image]:
    """Read one strip, or N views of the same size, by file name."""
    largest = MAX_VIEW_PIXELS if most_pixels is None else MAX_INPUT_PIXELS // num_views
    if path.is_file():
        strip = read_image(path, max_pixels=num_views * largest)
        _check_strip(path, strip.size, num_views)
        return {path.name: _reduced(path, strip, most_pixels)}
    if not path.is_dir():
        if path.suffix.lower() in SUFFIXES:
            raise FileNotFoundError(f"{path}: no such file")
        raise FileNotFoundError(f"{path}: no such folder of views (000.png, 001.png, ...)")
    files = view_files(path)
    missing = [name for index, name in enumerate(view_names(num_views)) if index not in files]
    if missing:
        found = f"{num_views - len(missing)} of {num_views} views are there"
        advice = _naming_advice(path, files, num_views)
        raise FileNotFoundError(f"{path}: {found}, missing: {', '.join(missing)}{advice}")
    further = {of[0].name for index, of in files.items() if index >= num_views}
    if further:
        log.warning("%s: %d views are read; ignored: %s", path, num_views, _enumerate(further))
    for index in range(num_views):
        if len(files[index]) > 1:
            names = " and ".join(file.name for file in files[index])
            raise ValueError(f"{path}: {names} are all view {index}; remove all but one")
    images, sizes = {}, []
    for file in (files[index][0] for index in range(num_views)):
        image = read_image(file, max_pixels=largest)
        sizes.append(image.size)
        images[file.name] = _reduced(file, image, most_pixels)
    _check_sizes(path, list(images), sizes)
    return images


def _reduced(path: Path, image: Image.Image, most: int | None) -> Image.Image:
    """Reduce one view, or views side by side, to at most so many pixels a side."""
    if most is None or image.height <= most:
        return image
    log.info("%s: reduced from %d to %d pixels a side", path, image.height, most)
    width = max(round(image.width * most / image.height), 1)
    return image.resize((width, most), Image.Resampling.BICUBIC, reducing_gap=3.0)


def view_files(folder: Path) -> dict[int, list[Path]]:
    """Find the files of single views by their numbers: 000.png, else 000.jpg, 0.png, 00.PNG, ..."""
    files: dict[int, list[Path]] = {}
    for file in sorted(folder.glob("*")):
        if re.fullmatch("[0-9]{1,6}", file.stem) and file.suffix.lower() in SUFFIXES:
            files.setdefault(int(file.stem), []).append(file)
    usual = {index: folder / f"{index:03d}.png" for index in files}
    return {index: [usual[index]] if usual[index] in of else of for index, of in files.items()}


def _naming_advice(folder: Path, files: dict[int, list[Path]], num_views: int) -> str:
    """Say how to name the images of a folder that are no views by their names."""
    if 0 not in files and num_views in files:
        return f"; the first is 000.png, not {files[min(files)][0].name}"
    images = {file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES}
    others = images - {file.name for of in files.values() for file in of}
    if not others:
        return ""
    how = "name the views 000.png, 001.png, ... in the order of their azimuths"
    return f"; other images are there ({_enumerate(others, 3)}): {how}"


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


def _enumerate(names: set[str], most: int = NUM_VIEWS) -> str:
    """List the first of the names, and the number of the others."""
    first, more = sorted(names)[:most], len(names) - most
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
