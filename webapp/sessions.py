"""Sessions: a private temporary folder per open page, removed when the page is closed or idle."""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from webapp.job import Job
from webapp.mask_editor import MaskEditor

log = logging.getLogger(__name__)

IDLE_SECONDS = 3600.0
"""A session idle for this long is closed; Gradio's copies of files live no longer either."""
UPLOAD_SECONDS = 600.0
"""Lifetime of an uploaded file. Gradio stores equal uploads of all visitors once, so a file cannot
be removed as soon as one session has read it."""
MAX_CACHE_BYTES = 2 * 2**30
"""Uploads are refused while Gradio's copies of uploads and results take more than this."""
CLEANUP_SECONDS = 60.0
"""Time between two removals of expired files and sessions."""
JOB_END_SECONDS = 5.0
"""A server that shuts down waits at most this long for each job's current step."""


@dataclass
class Session:
    """One open page, with a private folder of an unguessable name and its last job.

    `tag` is part of the names of all files that the page serves, to find Gradio's copies again;
    `files` are those of the latest mesh, by the names of `Service.build_mesh`;
    `last_used` is the time of the last activity, monotonic clock.
    """

    folder: Path
    tag: str
    editor: MaskEditor | None = None
    job: Job | None = None
    files: dict[str, Path] = field(default_factory=dict)
    last_used: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        return self.job is not None and self.job.active

    def touch(self) -> None:
        """Set `last_used` to now."""
        self.last_used = time.monotonic()

    def file(self, stem: str, suffix: str) -> Path:
        """Path of a file that the page serves."""
        return self.folder / f"{stem}-{self.tag}{suffix}"


class SessionStore:
    """All sessions by Gradio's session id.

    Only this process's user can read the folder `root`; `cache` has Gradio's copies of files.
    """

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self._sessions: dict[str, Session] = {}
        self.uploads: AbstractSet[str] = frozenset()
        """Paths of all uploads so far: the server puts the set here that Gradio adds to."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session_id: str) -> Session | None:
        """The session of an id, if it exists; counts as activity."""
        with self._lock:
            session = self._sessions.get(session_id)
            if session is not None:
                session.touch()
            return session

    def open(self, session_id: str) -> Session:
        """The session of an id, created if needed."""
        session = self.find(session_id)
        if session is not None:
            return session
        folder = self.root / secrets.token_urlsafe(24)
        folder.mkdir(mode=0o700, parents=True)
        with self._lock:
            session = self._sessions.setdefault(session_id, Session(folder, secrets.token_hex(5)))
        if session.folder != folder:  # another thread opened it at the same moment
            shutil.rmtree(folder, ignore_errors=True)
        return session

    def close(self, session_id: str) -> None:
        """Stop the session's job and remove all its files."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is None:
            return
        if session.job is not None:
            session.job.stop(on_finished=lambda: self._remove(session))
        else:
            self._remove(session)

    def close_all(self) -> None:
        """Close all sessions, waiting up to `JOB_END_SECONDS` for each job."""
        jobs = [session.job for session in self._sessions.values() if session.job is not None]
        for session_id in list(self._sessions):
            self.close(session_id)
        for job in jobs:
            job.wait(JOB_END_SECONDS)

    def has_room(self) -> bool:
        """Whether Gradio's copies of files take less than `MAX_CACHE_BYTES`."""
        used = 0
        for path in self.cache.rglob("*"):
            with suppress(OSError):
                used += path.lstat().st_size
        return used < MAX_CACHE_BYTES

    def remove_expired(self) -> None:
        """Remove uploads older than `UPLOAD_SECONDS`, and close idle sessions."""
        latest = time.time() - UPLOAD_SECONDS
        # Gradio leaves empty files named tmp* in its cache.
        for path in [*map(Path, list(self.uploads)), *self.cache.glob("tmp*")]:
            with suppress(OSError):
                if path.is_file() and path.stat().st_mtime < latest:
                    path.unlink()
                    path.parent.rmdir()
        now = time.monotonic()
        with self._lock:
            idle = [
                key
                for key, session in self._sessions.items()
                if now - session.last_used > IDLE_SECONDS and not session.busy
            ]
        for session_id in idle:
            self.close(session_id)

    def _remove(self, session: Session) -> None:
        shutil.rmtree(session.folder, ignore_errors=True)
        for copy in self.cache.glob(f"*/*{session.tag}*"):
            with suppress(OSError):
                copy.unlink()
                copy.parent.rmdir()


class Store(Protocol):
    """What keeps files that expire."""

    def remove_expired(self) -> None:
        """Remove what is too old."""

    def close_all(self) -> None:
        """End all work."""


@contextmanager
def cleanup_thread(store: Store) -> Iterator[None]:
    """Call `store.remove_expired` every `CLEANUP_SECONDS`; at the end, `store.close_all`."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(CLEANUP_SECONDS):
            store.remove_expired()

    thread = threading.Thread(target=work, name="cleanup", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        store.close_all()
