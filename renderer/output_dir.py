"""The folder of one reconstruction: which files are the command's, and what is never touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from renderer.checkpoint import NOTHING_TO_RESUME

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
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\d+\.tmp(?P<suffix>\.[^.]+)")
"""Names of `common.files.atomic_write` for files that are not whole yet."""


def own_files(folder: Path) -> Iterator[Path]:
    """Files of a reconstruction that are in the folder; others in it are somebody else's."""
    for path, names in _files(folder):
        if names.fullmatch(path.name):
            yield path


def _files(folder: Path) -> Iterator[tuple[Path, re.Pattern[str]]]:
    """All files where the command writes, with the names that are its own there."""
    for subfolder, names in _OWN_FILES.items():
        if (folder / subfolder).is_dir():
            for path in sorted((folder / subfolder).iterdir()):
                if path.is_file() or path.is_symlink():
                    yield path, names


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
            raise FileNotFoundError(f"{folder / CHECKPOINT}: {NOTHING_TO_RESUME}")
        return
    found = next(own_files(folder), None)
    if found is not None and not overwrite:
        resumable = (folder / CHECKPOINT).is_file()
        first = "go on with it by --resume," if resumable else "it has no checkpoint;"
        raise FileExistsError(
            f"{folder} holds a reconstruction already (for example {found.name}): {first} replace "
            f"it by --overwrite, or take another --name"
        )


def clear_temporary(folder: Path) -> None:
    """Remove what runs that were killed left of their own files; call it under the folder's lock.

    A file that cannot be removed is left: it does no harm.
    """
    for path, names in list(_files(folder)):
        match = _TEMPORARY.fullmatch(path.name)
        if match and names.fullmatch(match["stem"] + match["suffix"]):
            with suppress(OSError):
                path.unlink()


def clear(folder: Path) -> None:
    """Remove the files of a former reconstruction, and its subfolders if nothing else is there."""
    clear_temporary(folder)
    for path in list(own_files(folder)):
        path.unlink()
    for subfolder in (folder / PICTURES, folder / CHECKPOINT.parent):
        with suppress(OSError):  # not there, or not empty
            subfolder.rmdir()
