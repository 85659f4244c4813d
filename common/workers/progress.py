"""Progress of many tasks together: a bar on a terminal, and lines with the time left."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

LOG_SECONDS = 60.0
"""Longest time between two lines of progress."""


class Progress:
    """Counts the units of work of tasks; what is kept from earlier needs none."""

    def __init__(self, title: str, num_tasks: int, units: int) -> None:
        self.title, self.num_tasks, self.units = title, num_tasks, units
        self.total = num_tasks * units
        self.done = self.ended = 0
        self.of_task: Counter[Any] = Counter()
        self.first = self.logged = 0.0
        self.bar = tqdm(total=self.total, desc=title, disable=None if units > 1 else True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def unit(self, task: Any) -> None:
        """A unit of work of a task is done."""
        self.of_task[task] += 1
        self.done += 1
        self.first = self.first or time.monotonic()
        self.bar.update()
        if self.units > 1 and time.monotonic() - self.logged > LOG_SECONDS:
            self.log()

    def end(self, task: Any) -> None:
        """A task is done; units that it did not need are no longer counted."""
        self.ended += 1
        self.total -= self.units - self.of_task[task]
        self.bar.total = self.total
        self.log()

    def log(self) -> None:
        """Log the number of tasks done, and the time left; nothing of a single unit of work."""
        if self.num_tasks * self.units == 1:
            return
        self.logged = time.monotonic()
        left = "time left: known after two steps"
        if self.done >= self.total:
            left = "done" if self.ended == self.num_tasks else "finishing"
        elif self.done > 1:
            seconds = (self.logged - self.first) / (self.done - 1) * (self.total - self.done)
            left = f"about {tqdm.format_interval(seconds)} left"
        with tqdm.external_write_mode():
            log.info("%s: %d of %d, %s", self.title, self.ended, self.num_tasks, left)
