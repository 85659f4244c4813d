"""The folder of COLMAP's files: reused by later runs without deleting the user's files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.files import file_lock

MANIFEST = "made_by_eval_colmap.txt"
"""Lists the files that the last run wrote into the folder."""
UNFINISHED = "unfinished"
"""Manifest of a running or killed run: all files under `PROJECT_FILES` belong to it."""
PROJECT_FILES = ("images", "poses", "sparse", "dense", "database.db", "colmap.log")


@contextmanager
def project_folder(path: Path | None) -> Iterator[Path]:
    """Yield a folder for COLMAP's files, without those of a previous run; None: a temporary one.

    Raises:
        FileExistsError: under the names of COLMAP's files the folder has files that no previous
            run wrote; nothing is removed then.
        OSError: the folder cannot be created or written.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="eval_colmap-") as temporary:
            yield Path(temporary)
        return
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path, wait=False):
        _remove_previous_run(path)
        path.mkdir(exist_ok=True)
        (path / MANIFEST).write_text(f"{UNFINISHED}\n", encoding="utf-8")
        try:
            yield path
        finally:
            (path / MANIFEST).write_text("\n".join(_project_files(path)) + "\n", encoding="utf-8")


def _project_files(folder: Path) -> list[str]:
    """Paths of the files and links under `PROJECT_FILES`, relative to the folder."""
    tops = [folder / name for name in PROJECT_FILES]
    below = [path for top in tops if not top.is_symlink() for path in top.rglob("*")]
    found = (p for p in (*tops, *below) if p.is_symlink() or (p.exists() and not p.is_dir()))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _remove_previous_run(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder, this is a file")
    manifest = folder / MANIFEST
    listed = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
    found = _project_files(folder)
    foreign = [] if listed == [UNFINISHED] else [name for name in found if name not in listed]
    if foreign:
        raise FileExistsError(
            f"{folder}: {len(foreign)} files, such as {foreign[0]}, were not written by a previous "
            f"run (they are not listed in {MANIFEST})"
        )
    for name in found:
        (folder / name).unlink()
