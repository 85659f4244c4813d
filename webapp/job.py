"""Long work in a thread of its own, one at a time, that ends soon after nobody looks any more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds after which a watcher hears again where nothing new has happened: it may leave then."""
TURN = threading.Lock()
"""Held by the job that computes: the step that a stopped one is at ends before another begins."""


class Stopped(Exception):  # noqa: N818 - not an error
    """Nobody waits for the result any more."""


@dataclass(frozen=True)
class Update:
    """How far a job is.

    Attributes:
        share: of it that is done, 0 to 1.
        words: what it does.
        strip: views that it last had to show, uint8 (H, 16 H, 3).
        title: what they are.
    """

    share: float
    words: str
    strip: np.ndarray | None = None
    title: str = ""


Tell = Callable[[Update], None]
"""Call it often: it raises `Stopped` where the work is to end."""


class Job:
    """Work in a thread.

    Args:
        work: is given `Tell`.
        turn: held while it works.
    """

    def __init__(self, work: Callable[[Tell], None], turn: threading.Lock = TURN) -> None:
        self._work, self._turn = work, turn
        self._changed = threading.Condition()
        self._latest = Update(0.0, "Waiting for the one before")
        self._version = 0
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._ended = False
        self._then: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="job", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it is still to be worked on; a stopped one may need its last step's time."""
        return not self._ended and not self._stop.is_set()

    @property
    def succeeded(self) -> bool:
        """Whether it came to its end."""
        return self._ended and self._failure is None

    @property
    def ended(self) -> bool:
        """Whether its thread has done its last step."""
        return self._ended

    def start(self) -> Job:
        """Begin; returns itself."""
        self._thread.start()
        return self

    def stop(self, then: Callable[[], None] | None = None) -> None:
        """Ask for the end, and go on.

        Args:
            then: called when nothing is written any more.
        """
        self._stop.set()
        with self._changed:
            ended = self._ended
            if then is not None and not ended:
                self._then.append(then)
        if then is not None and ended:
            then()

    def wait(self, seconds: float) -> None:
        """Wait until its thread has done its last step, or so long."""
        self._thread.join(seconds)

    def tell(self, update: Update) -> None:
        """Let the watcher know.

        Raises:
            Stopped: somebody has asked for the end.
        """
        if self._stop.is_set():
            raise Stopped
        with self._changed:
            if update.strip is None:  # keep showing what there was
                last = self._latest
                update = Update(update.share, update.words, last.strip, last.title)
            self._latest = update
            self._version += 1
            self._changed.notify_all()

    def updates(self) -> Iterator[Update]:
        """What there is to show, each time that it changed and every `PATIENCE` seconds.

        Whoever leaves this early, also by being thrown away, stops the job.

        Raises:
            Exception: what the work raised.
        """
        seen = 0  # that it waits is shown only if nothing comes of it soon
        try:
            while True:
                with self._changed:
                    if not self._ended and self._version == seen:
                        self._changed.wait(PATIENCE)
                    seen, latest, ended = self._version, self._latest, self._ended
                if ended:
                    break
                yield latest
        finally:
            self._stop.set()
        if self._failure is not None:
            raise self._failure
        yield latest

    def _run(self) -> None:
        try:
            while not self._turn.acquire(timeout=0.1):
                if self._stop.is_set():
                    raise Stopped
            try:
                if self._stop.is_set():
                    raise Stopped
                self._work(self.tell)
            finally:
                self._turn.release()
        except Stopped as stopped:
            log.info("a job was stopped")
            self._failure = stopped
        except Exception as error:  # noqa: BLE001 - handed to whoever watches
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                then, self._then = self._then, []
                self._changed.notify_all()
            for call in then:
                call()
