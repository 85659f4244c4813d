"""Write files atomically, lock them, and check their names and the free disk space.

Standard library only, so that Blender's own Python can import this file.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_file_name(name: str) -> None:
    """Raise ValueError for what is not the plain name of a file or folder on every system."""
    if not name.strip():
        raise ValueError("must not be empty")
    found = re.search(r'[/\\<>:"|?*\x00-\x1f]', name)
    if found:
        raise ValueError(f"is the name of a folder, not a path: {name!r} contains {found[0]!r}")
    if name.strip(".") == "" or name[-1] in ". " or _DEVICES.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a folder on every system")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` on success only.

    Raises:
        OSError: naming `path`, for whatever goes wrong with the disk meanwhile.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # some libraries make files that only the owner can read
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path, wait: bool = True, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file or folder, where the system has locks (not on Windows).

    Args:
        path: what is locked, in a folder that exists; a file `.<name>.lock` beside it is left.
        wait: for another process that holds it.
        patience: seconds to wait where `wait` is false.

    Raises:
        OSError: another process holds it, and `wait` is false.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.absolute().parent.joinpath(f".{path.name}.lock").open("w") as lock:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    message = f"{path}: another process is writing there; wait for its end"
                    raise OSError(message) from error
            time.sleep(0.1)
        yield


def check_free_space(folder: Path, needed: int) -> None:
    """Raise OSError where the disk of an existing folder has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: not enough disk space: up to {needed / 2**20:.1f} MiB are needed, "
            f"{free / 2**20:.1f} MiB are free"
        )
