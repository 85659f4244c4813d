"""Ending long work early: the first Ctrl-C or SIGTERM asks, the second does not wait."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


class StopFlag:
    """Whether the user, or the system, has asked for an early end.

    Attributes:
        signal: number of the signal that asked; None as long as none has.
    """

    def __init__(self) -> None:
        self.signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Let the first Ctrl-C or SIGTERM only ask for an end; the second does what it did before."""
    request = StopFlag()
    former: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if request.signal is None:
            request.signal = number
            log.warning("stopping after this step, and saving what was done (once more: at once)")
        elif callable(former[number]):
            former[number](number, frame)
        else:
            raise KeyboardInterrupt

    number: int
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # outside the main thread
            former[number] = signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
