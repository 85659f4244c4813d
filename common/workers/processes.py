"""Worker processes on this machine, which end with the process that started them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from common.cli import one_line
from common.workers.work import (
    RETRIES,
    MakeWork,
    OnTick,
    Outcome,
    SetUpError,
    Worker,
    attempt,
    limit_threads,
)

log = logging.getLogger(__name__)

GRACE_SECONDS = 15
"""Between SIGTERM and SIGKILL; compiled code handles signals late."""


def run_in_processes(
    devices: Sequence[str], make_work: MakeWork, plan: Any, tasks: Sequence[Any], on_tick: OnTick
) -> Iterator[Outcome]:
    """The `Engine` of one process for each of the devices; they share the CPU's cores.

    A task whose process was lost is given to a new one, up to `RETRIES` times.
    """
    devices = devices[: len(tasks)]
    threads = max((os.cpu_count() or 1) // max(len(devices), 1), 1)
    pool = _Pool((make_work, plan, threads), tasks, on_tick)
    try:
        for device in devices:
            pool.start(device)
        while pool.running:
            for connection in wait(list(pool.running)):
                outcome = pool.receive(connection)  # type: ignore[arg-type]
                if outcome is not None:
                    yield outcome
    finally:
        _terminate(worker.process for worker in pool.running.values())


@dataclass
class _Process:
    """A worker process on its device, the task that it has, and which attempt at it that is."""

    device: str
    process: BaseProcess
    task: Any = None
    number: int = 0  # 0 without a task


class _Pool:
    """Worker processes, and the tasks that wait for them; `given` are the first of `_serve`."""

    def __init__(
        self, given: tuple[MakeWork, Any, int], tasks: Sequence[Any], on_tick: OnTick
    ) -> None:
        self.given, self.on_tick = given, on_tick
        self.waiting = deque((task, 1) for task in tasks)
        self.running: dict[Connection, _Process] = {}

    def start(self, device: str) -> None:
        """Start a process and give it a task."""
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        arguments = (*self.given, device, theirs)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self.running[connection] = _Process(device, process)
        self._give(connection)

    def _give(self, connection: Connection) -> None:
        """Give a process its next task, or tell it to end."""
        worker = self.running[connection]
        worker.task, worker.number = self.waiting.popleft() if self.waiting else (None, 0)
        with suppress(OSError):  # it was lost, as will be seen
            connection.send((worker.task,) if worker.number else None)

    def receive(self, connection: Connection) -> Outcome | None:
        """Take a message of a process, or its end; returns the outcome of its task if it has one.

        Raises:
            SetUpError: the process cannot do any task.
        """
        worker = self.running[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            del self.running[connection]
            return self._after_loss(worker)
        if isinstance(message, SetUpError):
            raise message
        if message is None:
            self.on_tick(worker.task)
            return None
        outcome = replace(message, task=worker.task)
        self._give(connection)
        return outcome

    def _after_loss(self, worker: _Process) -> Outcome | None:
        """Let another process try the task of one that ended; returns its outcome if none may."""
        end = f"the process on {worker.device} ended by {_how_it_ended(worker.process)}"
        outcome = None
        if 0 < worker.number <= RETRIES:
            log.warning("%s: %s; once more", worker.task, end)
            self.waiting.appendleft((worker.task, worker.number + 1))
        elif worker.number:
            outcome = Outcome(worker.task, error=end)
        if self.waiting:
            self.start(worker.device)
        return outcome


def _serve(
    make_work: MakeWork, plan: Any, threads: int, device: str, connection: Connection
) -> None:
    """Do the tasks that come through the connection, until None comes."""
    _prepare_worker()
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s: {device}: %(message)s")
    limit_threads(threads)
    try:
        work = make_work(plan, Worker(device, partial(connection.send, None)))
        while (given := connection.recv()) is not None:
            connection.send(attempt(work, *given))
    except Exception as error:  # noqa: BLE001 - the parent process reports it
        connection.send(SetUpError(one_line(error) or type(error).__name__))


def _prepare_worker() -> None:
    """End with the parent process, and on SIGTERM; leave Ctrl-C to the parent; no bars."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported


def _exit_with_parent() -> None:
    """Exit when the parent process was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _terminate(processes: Iterable[BaseProcess]) -> None:
    """End processes, those that have ended too."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE_SECONDS)
        process.kill()  # no effect if it has ended


def _how_it_ended(process: BaseProcess) -> str:
    """Wait for the end of a process, and describe it: "signal 9" or "exit status 3"."""
    process.join()
    code = process.exitcode
    return f"signal {-code}" if code and code < 0 else f"exit status {code}"
