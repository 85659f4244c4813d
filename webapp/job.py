"""Background jobs: one at a time in a thread, stopped when their client disconnects."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""`Job.updates` repeats the last progress after this time, so that a closed page is noticed."""
COMPUTE_LOCK = threading.Lock()
"""Held by the running job. A stopped job keeps it until its current step is complete."""


class Stopped(Exception):  # noqa: N818 - not an error
    """The job was stopped: its result is no longer wanted."""


class Progress(NamedTuple):
    """Progress of a job: completed fraction, 0 to 1, and the current activity.

    `strip` are the latest views to show, uint8 (H, 16 H, 3), `title` is their caption.
    """

    fraction: float
    message: str
    strip: np.ndarray | None = None
    title: str = ""


ProgressCallback = Callable[[Progress], None]
"""Called at every step of a job; raises `Stopped` once the job is to end."""


class Job:
    """Work in a background thread, which holds a lock while it runs.

    `work` is called with the callback for its progress.
    """

    def __init__(
        self, work: Callable[[ProgressCallback], None], lock: threading.Lock = COMPUTE_LOCK
    ) -> None:
        self._work, self._lock = work, lock
        self._changed = threading.Condition()
        self._latest, self._version = Progress(0.0, "Waiting for the previous job"), 0
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self.finished = False
        """Whether the work has ended: complete, failed or stopped."""
        self._on_finished: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)

    @property
    def active(self) -> bool:
        """Whether the job waits or runs, and was not stopped."""
        return not self.finished and not self._stop.is_set()

    @property
    def succeeded(self) -> bool:
        """Whether the work is complete and raised nothing."""
        return self.finished and self._failure is None

    def start(self) -> Job:
        """Start the thread; returns the job."""
        self._thread.start()
        return self

    def stop(self, on_finished: Callable[[], None] = lambda: None) -> None:
        """Request the end at the next step; `on_finished` is called when no more files come."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            finished = self.finished
            if not finished:
                self._on_finished.append(on_finished)
        if finished:
            on_finished()

    def wait(self, seconds: float) -> None:
        """Wait until the thread has ended, at most this long."""
        self._thread.join(seconds)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def publish(self, progress: Progress) -> None:
        """Hand progress to `updates`, or raise Stopped; without views, the previous ones stay."""
        self._check()
        with self._changed:
            if progress.strip is None:
                progress = progress._replace(strip=self._latest.strip, title=self._latest.title)
            self._latest = progress
            self._version += 1
            self._changed.notify_all()

    def updates(self) -> Iterator[Progress]:
        """Yield the progress after every change, and every `POLL_SECONDS`.

        Closing the generator early, also by garbage collection, stops the job.

        Raises:
            Stopped: the job was stopped; its current step may still be running.
            Exception: raised by the work.
        """
        seen = 0  # the initial "Waiting" is skipped when the job starts within POLL_SECONDS
        try:
            while True:
                with self._changed:
                    if self._version == seen and self.active:
                        self._changed.wait(POLL_SECONDS)
                    seen, latest, finished = self._version, self._latest, self.finished
                if finished:
                    break
                self._check()
                yield latest
        finally:
            self._stop.set()
        if self._failure is not None:
            raise self._failure
        yield latest

    def _run(self) -> None:
        try:
            while not self._lock.acquire(timeout=0.1):
                self._check()
            try:
                self._check()
                self._work(self.publish)
            finally:
                self._lock.release()
        except Exception as error:  # noqa: BLE001 - raised again in `updates`
            self._failure = error
            if isinstance(error, Stopped):
                log.info("job stopped")
        finally:
            with self._changed:
                self.finished = True
                self._changed.notify_all()
            for callback in self._on_finished:
                callback()
