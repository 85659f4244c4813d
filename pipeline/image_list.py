"""Which images a command is given, where their results go, and which of them failed.

Imports nothing heavy, for commands whose workers do the work.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Literal, NamedTuple

from common.files import atomic_write
from multiview.image_file import SUFFIXES

log = logging.getLogger(__name__)

FAILURES = "failures.csv"
Elevation = float | Literal["auto"]
"""Of an input's camera in degrees, or "auto" to estimate it."""


class ImageTask(NamedTuple):
    """An image's file, the folder of its results, and its camera's elevation."""

    path: Path
    folder: Path
    elevation: Elevation

    def __str__(self) -> str:
        return str(self.path)


def collect_images(paths: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """Pair every input image with the folder of its results.

    Several images get a folder each inside `output`; a folder's images are sorted by name.

    Raises:
        FileNotFoundError, ValueError: no images, or several of one name.
    """
    images = [image for path in paths for image in _images_in(path)]
    if len(images) == 1 and not paths[0].is_dir():
        return [(images[0], output)]
    for path in images:
        if path.stem in (".", "..", FAILURES):
            raise ValueError(f"{path}: its results cannot be called {path.stem}; rename it")
    folders = [output / path.stem for path in images]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        same = [str(path) for path in images if path.stem == twice.name]
        raise ValueError(
            f"two inputs are called '{twice.name}': their results would mix; rename one of "
            f"{' and '.join(same)}"
        )
    return list(zip(images, folders, strict=True))


def pair_elevations(
    images: Sequence[tuple[Path, Path]], elevations: Sequence[Elevation]
) -> list[ImageTask]:
    """Add one elevation to all images, or one to each; ValueError if there are others."""
    if len(elevations) not in (1, len(images)):
        raise ValueError(
            f"expected one elevation for all images or one for each, got {len(elevations)} values "
            f"for {len(images)} images"
        )
    pairs = zip(images, cycle(elevations), strict=False)
    return [ImageTask(path, folder, given) for (path, folder), given in pairs]


def _images_in(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = [file for file in _files_in(path) if file.suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(f"{path}: there are no images in this folder")
    return found


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder by name, without hidden ones; links that lead nowhere, too."""
    return sorted(file for file in folder.glob("[!.]*") if not file.is_dir())


def list_left_out(paths: Sequence[Path]) -> dict[Path, str]:
    """Files of the folders among `paths` that are no images by their names, and why; logs them."""
    folders = [path for path in paths if path.is_dir()]
    files = [file for folder in folders for file in _files_in(folder)]
    others = [file for file in files if file.suffix.lower() not in SUFFIXES]
    if others:
        names = ", ".join(file.name for file in others[:10])
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        log.warning("left out %d files, no images by their names: %s%s", len(others), names, more)
    return dict.fromkeys(others, "left out: no image by its name")


def write_failures(output: Path, failures: Mapping[Path, str]) -> None:
    """Write failures.csv, or remove it if nothing failed."""
    path = output / FAILURES
    if not failures:
        path.unlink(missing_ok=True)
        return
    output.mkdir(parents=True, exist_ok=True)
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):  # names may be undecodable
        csv.writer(file).writerows([("input", "error"), *failures.items()])
