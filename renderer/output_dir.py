"""The output folder of a reconstruction: which files belong to it, and how they are removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from renderer.checkpoint import NoCheckpointError
from renderer.formats.options import ALWAYS, FORMATS, PRINT_REPORT

CHECKPOINT = Path("ckpt", "last.ckpt")
PREVIEWS = Path("images")
MESH_FILES = tuple(FORMATS[name] for name in ALWAYS)
"""Written by `renderer.export.export_meshes`."""
VIDEO_FILE = "rendering.mp4"
COORDINATES = "coordinates.json"
"""Which coordinates the meshes have, and how to get to those of given cameras."""

_OWN_FILES = {
    ".": re.compile(
        r"(input|masked)-([12]?\d|3[01])\.png|metrics\.json|"
        + "|".join(map(re.escape, (*FORMATS.values(), PRINT_REPORT, VIDEO_FILE, COORDINATES)))
    ),
    "images": re.compile(r"\d+\.jpg"),
    "ckpt": re.compile(r"last\.ckpt"),
}
"""Names of all files that a reconstruction writes, by subfolder."""
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\d+\.tmp(?P<suffix>\.[^.]+)")
"""Temporary names of `common.files.atomic_write`."""


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a reconstruction in the folder, and no others."""
    for path, names in _files(folder):
        if names.fullmatch(path.name):
            yield path


def _files(folder: Path) -> Iterator[tuple[Path, re.Pattern[str]]]:
    """Yield all files in the output folders, each with the names that are ours in its folder."""
    for subfolder, names in _OWN_FILES.items():
        if (folder / subfolder).is_dir():
            for path in sorted((folder / subfolder).iterdir()):
                if path.is_file() or path.is_symlink():
                    yield path, names


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Check that a reconstruction may be written to the folder.

    Raises:
        FileExistsError: it holds a reconstruction, and neither `resume` nor `overwrite` is set.
        NoCheckpointError: `resume` is set, but there is no checkpoint.
        NotADirectoryError: the folder, or one above it, is a file.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path}: is a file, expected a folder for the results")
    if resume:
        if not (folder / CHECKPOINT).is_file():
            raise NoCheckpointError(f"{folder / CHECKPOINT}: no checkpoint to resume from")
        return
    found = next(own_files(folder), None)
    if found is not None and not overwrite:
        which = "a checkpoint" if (folder / CHECKPOINT).is_file() else "no checkpoint"
        raise FileExistsError(
            f"{folder} already holds a reconstruction (for example {found.name}) with {which}"
        )


def clear_temporary(folder: Path) -> None:
    """Remove what killed runs left, where that is possible; call it with the folder locked."""
    for path, names in list(_files(folder)):
        match = _TEMPORARY.fullmatch(path.name)
        if match and names.fullmatch(match["stem"] + match["suffix"]):
            with suppress(OSError):
                path.unlink()


def clear(folder: Path) -> None:
    """Remove the files of an earlier reconstruction, and its subfolders if they are then empty."""
    clear_temporary(folder)
    for path in list(own_files(folder)):
        path.unlink()
    for subfolder in (folder / PREVIEWS, folder / CHECKPOINT.parent):
        with suppress(OSError):  # does not exist, or is not empty
            subfolder.rmdir()
