"""Background jobs: one at a time in a thread, in the order of their start."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""`Job.updates` repeats the last progress after this time, so that a closed page is noticed."""
EARLY = 0.05
"""Below this fraction of a job its own speed does not say how long it takes."""


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


class JobQueue:
    """Jobs in the order of their start: the first one runs, the others wait.

    A stopped job that runs stays the first until its current step is complete.
    """

    def __init__(self) -> None:
        self._jobs: list[Job] = []
        self._changed = threading.Condition()

    def add(self, job: Job) -> None:
        """Put a job last."""
        with self._changed:
            self._jobs.append(job)

    def wait_for_turn(self, job: Job) -> None:
        """Wait until the job is the first, or is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs[0] is job or not job.active)

    def wake(self) -> None:
        """Let the waiting jobs see that one was stopped."""
        with self._changed:
            self._changed.notify_all()

    def remove(self, job: Job) -> None:
        """Let the next one run."""
        with self._changed:
            self._jobs.remove(job)
            self._changed.notify_all()

    def ahead(self, job: Job | None) -> list[Job]:
        """The jobs that run or wait before this one; all of them if it is not in the queue."""
        with self._changed:
            return self._jobs[: self._jobs.index(job)] if job in self._jobs else [*self._jobs]


QUEUE = JobQueue()
"""Of the whole process: there is one model."""


class Job:
    """Work in a background thread, which waits for its turn in a queue.

    `work` is called with the callback for its progress.
    """

    def __init__(self, work: Callable[[ProgressCallback], None], queue: JobQueue = QUEUE) -> None:
        self._work, self._queue = work, queue
        self._began: float | None = None
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
    def running(self) -> bool:
        """Whether it is the job's turn."""
        return self._began is not None and not self.finished

    @property
    def latest(self) -> Progress:
        """The latest progress."""
        return self._latest

    def seconds_left(self, typical: float | None) -> float | None:
        """Estimate of the time that the job itself still takes, s; None if it cannot be made.

        `typical` is the whole time of such a job, if one is known.
        """
        elapsed = 0.0 if self._began is None else time.monotonic() - self._began
        done = self._latest.fraction
        if self._began is not None and done > EARLY:
            return elapsed * (1 - done) / done
        return None if typical is None else max(typical - elapsed, 0.0)

    @property
    def succeeded(self) -> bool:
        """Whether the work is complete and raised nothing."""
        return self.finished and self._failure is None

    def start(self) -> Job:
        """Put the job into the queue and start its thread; returns the job."""
        self._queue.add(self)
        self._thread.start()
        return self

    def stop(self, on_finished: Callable[[], None] = lambda: None) -> None:
        """Request the end at the next step; `on_finished` is called when no more files come."""
        self._end()
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

    def _end(self) -> None:
        self._stop.set()
        self._queue.wake()

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
            self._end()
        if self._failure is not None:
            raise self._failure
        yield latest

    def _run(self) -> None:
        try:
            self._queue.wait_for_turn(self)
            self._check()
            self._began = time.monotonic()
            self._work(self.publish)
        except Exception as error:  # noqa: BLE001 - raised again in `updates`
            self._failure = error
            if isinstance(error, Stopped):
                log.info("job stopped")
        finally:
            self._queue.remove(self)
            with self._changed:
                self.finished = True
                self._changed.notify_all()
            for callback in self._on_finished:
                callback()
