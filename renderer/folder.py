"""The folder of one reconstruction: which files are the command's, and what is never touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CHECKPOINT = Path("ckpt", "last.ckpt")
PICTURES = Path("images")

_OWN_FILES = {
    ".": re.compile(
        r"(input|masked)-(\d|1[0-5])\.png|mesh\.(ply|glb)|rendering\.mp4|metrics\.json"
    ),
    "images": re.compile(r"\d+\.jpg"),
    "ckpt": re.compile(r"last\.ckpt"),
}
"""All that the command writes: names in the folder and in its subfolders."""


def own_files(folder: Path) -> Iterator[Path]:
    """Files of a reconstruction that are in the folder; others in it are somebody else's."""
    for subfolder, names in _OWN_FILES.items():
        if (folder / subfolder).is_dir():
            for path in sorted((folder / subfolder).iterdir()):
                if names.fullmatch(path.name) and (path.is_file() or path.is_symlink()):
                    yield path


def check_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse to put a reconstruction where another one is, unless that is asked for.

    Raises:
        FileExistsError: the folder holds a reconstruction, and neither flag is set.
        FileNotFoundError: there is nothing to resume.
        NotADirectoryError: something else has the name of the folder, or of a folder above it.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path}: is a file, expected a folder for the results")
    if resume:
        if not (folder / CHECKPOINT).is_file():
            raise FileNotFoundError(
                f"{folder / CHECKPOINT}: no checkpoint to resume from; start without --resume"
            )
        return
    found = next(own_files(folder), None)
    if found is not None and not overwrite:
        raise FileExistsError(
            f"{folder} holds a reconstruction already (for example {found.name}): go on with it by "
            f"--resume, replace it by --overwrite, or take another --name"
        )


def clear(folder: Path) -> None:
    """Remove the files of a former reconstruction, and its subfolders if nothing else is there."""
    for path in list(own_files(folder)):
        path.unlink()
    for subfolder in (folder / PICTURES, folder / CHECKPOINT.parent):
        with suppress(OSError):  # not there, or not empty
            subfolder.rmdir()
