"""Atomic writes, locks, checksums, portable file names, and free disk space.

Imports the standard library only, so that Blender's own Python can import this file.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Of NFS without lockd, Lustre without -o flock, FUSE."""
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # no quotas on Windows
MAX_NAME = 255
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_file_name(name: str) -> None:
    """Raise ValueError if `name` is not a plain file or folder name on every system."""
    if not name.strip():
        raise ValueError("must not be empty")
    found = re.search(r'[/\\<>:"|?*\x00-\x1f]', name)
    if found:
        what = "must be the name of a folder, not a path"
        raise ValueError(f"{what}: {name!r} contains {found[0]!r}")
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ValueError(f"{name!a} is not UTF-8; rename it")
    if name.strip(".") == "" or name[-1] in ". " or _DEVICES.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a folder on every system")


def check_content(path: Path, what: str, advice: str = "; download it again") -> None:
    """Raise ValueError if a file is empty or a stand-in for the file: `what` it should be."""
    with path.open("rb") as file:
        found = stand_in(file.read(512), what, advice)
    if found:
        raise ValueError(f"{path}: {found}")


def check_suffix(path: Path, what: str, suffixes: Sequence[str]) -> str:
    """Return the suffix of a file, in lower case, if it is one of `suffixes`, see `check_content`.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is not `what` it should be.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {what} file")
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{path}: expected a {what} in one of the formats {' '.join(suffixes)}")
    check_content(path, f"a {what}")
    return suffix


def stand_in(head: bytes, what: str, advice: str = "") -> str:
    """Say what a file of these first 512 bytes is in place of `what`; empty if it may be that."""
    if not head:
        return f"the file is empty{advice}"
    if head.startswith(b"version https://git-lfs"):
        return f"is a git-lfs pointer of {len(head)} bytes, not {what}; 'git lfs pull' fetches it"
    return f"is a web page, not {what}{advice}" if is_web_page(head) else ""


def is_web_page(head: bytes) -> bool:
    """Whether a file that begins with `head` is HTML or XML."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower()
    return start in (b"<!doc", b"<html", b"<?xml")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` on success only.

    The file gets the usual permissions (0o666 less the umask), whatever the writing library sets.

    Raises:
        OSError: naming `path`, for any error of the file system meanwhile.
    """
    temporary = hidden_beside(path, path.stem, f".{os.getpid()}.tmp{path.suffix}")
    try:
        temporary.unlink(missing_ok=True)
        temporary.touch(0o666)  # less the umask, which cannot be read without changing it
        permissions = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(permissions)
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.EROFS:
            raise OSError(unwritable(path, error)) from error
        raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def hidden_beside(path: Path, stem: str, ending: str) -> Path:
    """The file `.<stem><ending>` beside `path`; a checksum replaces a stem that makes it too long.

    File systems allow names of 255 bytes (most) or characters (Windows, macOS).
    """
    if len(os.fsencode(f".{stem}{ending}")) > MAX_NAME:
        stem = hashlib.sha256(os.fsencode(stem)).hexdigest()[:16]
    return path.with_name(f".{stem}{ending}")


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file atomically."""
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def unwritable(path: Path | str, error: BaseException) -> str:
    """Message of all commands for a folder or disk to which nothing can be written."""
    reason = getattr(error, "strerror", None) or error
    full = getattr(error, "errno", None) in DISK_FULL
    advice = "free some space, or choose another folder" if full else "choose another folder"
    return f"{path}: cannot be written to ({reason}); {advice}"


@contextmanager
def file_lock(path: Path, wait: bool = True, patience: float = 0.0) -> Iterator[None]:
    """Hold the exclusive lock of a file or folder: a hidden file beside it, which stays.

    While another process holds it, wait without limit; if not `wait`, raise OSError after
    `patience` seconds. Where the file system has no locks, go on without, after a warning.
    """
    from filelock import FileLock, Timeout  # Blender's Python has no such package

    lock = FileLock(hidden_beside(path.absolute(), path.name, ".lock"))
    if hasattr(lock, "fallback_to_soft"):  # its file would outlive a process that is killed
        lock = FileLock(lock.lock_file, fallback_to_soft=False)
    try:
        lock.acquire(timeout=-1 if wait else patience, poll_interval=0.1)
    except Timeout as error:
        raise OSError(f"{path}: another process is writing there; wait for its end") from error
    except (OSError, NotImplementedError) as error:  # the latter from filelock, for ENOSYS
        code = getattr(error, "errno", None) or errno.ENOSYS
        if code not in NO_LOCKS:
            raise OSError(unwritable(path.absolute().parent, error)) from error
        _warn_of_no_locks(path.absolute().parent)
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _warn_of_no_locks(folder: Path) -> None:
    """Once for each folder."""
    message = "%s: this file system has no locks; let only one command at a time write there"
    log.warning(message, folder)


def read_text(path: Path) -> str:
    """Read a text file of UTF-8, with or without a byte order mark; ValueError for others."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        line = content[: error.start].count(b"\n") + 1
        found = "is UTF-16" if utf16 else f"line {line} is not UTF-8"
        raise ValueError(f"{path}: {found}; save the file as UTF-8") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_free_space(folder: Path, needed: int) -> None:
    """Raise OSError if the disk of an existing folder has less than `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"up to {needed / 2**20:.1f} MiB are needed, {free / 2**20:.1f} MiB are free"
        raise OSError(f"{folder}: not enough disk space: {sizes}")
