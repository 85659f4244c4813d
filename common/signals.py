"""Graceful stop: the first Ctrl-C or SIGTERM requests it, the second stops at once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


class StopFlag:
    """Request to stop early: the number of the first signal received, None before."""

    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Set a flag on the first Ctrl-C or SIGTERM; the second calls the former handler."""
    flag = StopFlag()
    former: dict[int, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        if flag.signal is None:
            flag.signal = number
            log.warning("stopping after this step and saving (again: stop at once)")
        elif callable(former[number]):
            former[number](number, frame)
        else:
            raise KeyboardInterrupt

    number: int
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError):  # outside the main thread
            former[number] = signal.signal(number, on_signal)
    try:
        yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """Put the handler of SIGTERM back that an imported package replaces."""
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):  # outside the main thread; none that Python knows
            signal.signal(signal.SIGTERM, former)
