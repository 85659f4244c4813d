"""Who is on the page: a folder that nobody can guess for each visitor, and its end."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.files import file_lock
from webapp.job import Job
from webapp.mask_editor import MaskEditor

log = logging.getLogger(__name__)

PREFIX = "syncdreamer-page-"
"""Of the folders of servers, in the system's folder for temporary files."""
KEEP_SECONDS = 3600.0
"""How long the files of a visitor are kept who does nothing, and copies of them in any case."""
UPLOAD_SECONDS = 600.0
"""How long a file that was sent is kept as it came. The web framework stores equal files once, so
it may not go as soon as one visitor's page has read it: another's may be about to."""
MAX_CACHE = 2 * 2**30
"""Bytes of what was sent and handed out, all together; nothing more is taken beyond that."""
SWEEP_SECONDS = 60.0
END_SECONDS = 5.0
"""How long the end of the server waits for the step that a job is at."""
MAX_VISITS = 200
"""Visitors with files at once; of more, the one who has done nothing for longest is forgotten."""


@dataclass
class Visit:
    """One open page.

    Attributes:
        folder: its files, under a name that nobody can guess.
        tag: in the names of all files that leave the folder, so that copies are found again.
        editor: of the picture that is being worked on.
        job: the last one.
        touched: when the visitor last did something, by the monotonic clock.
    """

    folder: Path
    tag: str
    editor: MaskEditor | None = None
    job: Job | None = None
    touched: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        """Whether something is being made."""
        return self.job is not None and self.job.alive

    def touch(self) -> None:
        """Note that the visitor is still there."""
        self.touched = time.monotonic()

    def file(self, stem: str, suffix: str) -> Path:
        """Path of a file that is shown or handed out."""
        return self.folder / f"{stem}-{self.tag}{suffix}"


class Visits:
    """All visitors, by the names that the web framework gives their sessions.

    Args:
        root: folder that only this program can read.
        cache: where the web framework puts its copies of files.
        keep: seconds after which an idle visitor is forgotten.
    """

    def __init__(self, root: Path, cache: Path, keep: float = KEEP_SECONDS) -> None:
        self.root, self.cache, self.keep = root, cache, keep
        self._visits: dict[str, Visit] = {}
        self.uploads: AbstractSet[str] = frozenset()
        """Paths of what was ever sent; the web framework puts a set here that it adds to."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def find(self, session: str) -> Visit | None:
        """The visitor of a session, if there is one; counts as a sign of life."""
        with self._lock:
            visit = self._visits.get(session)
            if visit is not None:
                visit.touch()
            return visit

    def open(self, session: str) -> Visit:
        """The visitor of a session, new or known."""
        visit = self.find(session)
        if visit is not None:
            return visit
        folder = self.root / secrets.token_urlsafe(24)
        folder.mkdir(mode=0o700, parents=True)
        with self._lock:
            visit = self._visits.setdefault(session, Visit(folder, secrets.token_hex(5)))
            waiting = [key for key, one in self._visits.items() if not one.busy and key != session]
            surplus = len(self._visits) - MAX_VISITS
            oldest = sorted(waiting, key=lambda key: self._visits[key].touched)[: max(surplus, 0)]
        if visit.folder != folder:  # the same session, at the same moment
            shutil.rmtree(folder, ignore_errors=True)
        for key in oldest:
            self.close(key)
        return visit

    def close(self, session: str) -> None:
        """End what a visitor has begun and remove all files of theirs."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is None:
            return
        if visit.job is not None:
            visit.job.stop(then=lambda: self._remove(visit))
        else:
            self._remove(visit)

    def close_all(self) -> None:
        """End everything, and wait for it, but not for long."""
        jobs = [visit.job for visit in self._visits.values() if visit.job is not None]
        for session in list(self._visits):
            self.close(session)
        for job in jobs:
            job.wait(END_SECONDS)

    def has_room(self) -> bool:
        """Whether the copies of all visitors' files leave room for more pictures."""
        taken = 0
        for path in self.cache.rglob("*"):
            with suppress(OSError):
                taken += path.lstat().st_size
        return taken < MAX_CACHE

    def sweep(self) -> None:
        """Remove what was sent some time ago; forget visitors who have done nothing for long."""
        self._remove_uploads()
        now = time.monotonic()
        with self._lock:
            idle = [
                key
                for key, visit in self._visits.items()
                if now - visit.touched > self.keep and not visit.busy
            ]
        for session in idle:
            self.close(session)

    def _remove_uploads(self) -> None:
        latest = time.time() - UPLOAD_SECONDS
        sent = [Path(path) for path in list(self.uploads)]
        for path in [*sent, *self.cache.glob("tmp*")]:  # gradio leaves empty ones behind
            with suppress(OSError):
                if path.is_file() and path.stat().st_mtime < latest:
                    path.unlink()
                    path.parent.rmdir()

    def _remove(self, visit: Visit) -> None:
        shutil.rmtree(visit.folder, ignore_errors=True)
        for copy in self.cache.glob(f"*/*{visit.tag}*"):
            with suppress(OSError):
                copy.unlink()
                copy.parent.rmdir()


@contextmanager
def server_folder(parent: Path | None = None, keep: float = KEEP_SECONDS) -> Iterator[Path]:
    """A folder for one server, removed at its end; removes those of servers that were killed.

    Args:
        parent: where; the system's folder for temporary files by default.
        keep: seconds after which a folder that no running server holds is removed.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_leftovers(parent, keep)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # only its owner can read it
    try:
        with file_lock(folder / "server", wait=False):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path, keep: float = KEEP_SECONDS) -> None:
    """Remove folders of servers that do not run any more and are older than `keep` seconds."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is in use, another user's, or gone
            status = folder.lstat()
            own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            old = time.time() - status.st_mtime > keep
            if folder.is_symlink() or not folder.is_dir() or not own or not old:
                continue
            with file_lock(folder / "server", wait=False):
                shutil.rmtree(folder)
            log.info("removed %s, left by a server that was killed", folder)


@contextmanager
def swept(visits: Visits, every: float = SWEEP_SECONDS) -> Iterator[None]:
    """Forget idle visitors in the background; at the end, all of them."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(every):
            visits.sweep()

    thread = threading.Thread(target=work, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        visits.close_all()
