"""The same work on many tasks, wherever it is done: here, in processes, or on a cluster."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from common.cli import limit_numpy_threads, one_line
from common.workers.progress import Progress

RETRIES = 2
"""How often a task is given to another worker after its worker was lost."""


class SetUpError(Exception):
    """What the work needs, such as a model, cannot be set up, so no task can be done."""


@dataclass(frozen=True)
class Worker:
    """The process that does the work, as the work sees it.

    Attributes:
        device: to compute on, see `common.devices.pick_device`.
        tick: to be called after every unit of work.
        is_stopped: whether to abort.
    """

    device: str
    tick: Callable[[], None] = lambda: None
    is_stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Outcome:
    """The result of a task, or one line that says why there is none, and the traceback."""

    task: Any
    result: Any = None
    error: str | None = None
    trace: str = ""


Work = Callable[[Any], Any]
"""Does a task. Its errors are the task's own, but for `SetUpError`."""
MakeWork = Callable[[Any, Worker], Work]
"""Makes the work of a worker from a plan, which travels by pickle; a function of a module."""
OnTick = Callable[[Any], None]
"""Is told of every unit of work, and of which task."""
Engine = Callable[[MakeWork, Any, Sequence[Any], OnTick], Iterator[Outcome]]
"""Does tasks, and yields their outcomes as they come; closing it ends the workers.

It raises SetUpError if no task can be done.
"""


def follow(
    engine: Engine,
    make_work: MakeWork,
    plan: Any,
    tasks: Sequence[Any],
    title: str,
    units: int = 1,
) -> Iterator[Outcome]:
    """Do tasks of so many units of work each, and log the progress of all of them together."""
    with (
        Progress(title, len(tasks), units) as progress,
        closing(engine(make_work, plan, tasks, progress.unit)) as outcomes,  # type: ignore[type-var]
    ):
        for outcome in outcomes:
            progress.end(outcome.task)
            yield outcome


def run_here(
    device: str, make_work: MakeWork, plan: Any, tasks: Sequence[Any], on_tick: OnTick
) -> Iterator[Outcome]:
    """The `Engine` of one worker: this process."""
    now: list[Any] = [None]
    work = make_work(plan, Worker(device, lambda: on_tick(now[0])))
    for now[0] in tasks:
        yield attempt(work, now[0])


def attempt(work: Work, task: Any) -> Outcome:
    """Do a task; its error, but for SetUpError, is part of the outcome."""
    try:
        return Outcome(task, work(task))
    except SetUpError:
        raise
    except Exception as error:  # noqa: BLE001 - reported, other tasks continue
        message = one_line(error) or type(error).__name__
        return Outcome(task, error=message, trace=traceback.format_exc())


def limit_threads(number: int) -> None:
    """Compute with so many CPU threads, unless the environment says how many."""
    chosen = os.environ.setdefault("OMP_NUM_THREADS", str(number))
    if "torch" in sys.modules and chosen.isdigit():  # it read the environment when it was imported
        sys.modules["torch"].set_num_threads(int(chosen))
    limit_numpy_threads()
