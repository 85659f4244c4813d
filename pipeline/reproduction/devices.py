"""Work on many objects, in one process for each GPU, with the time that is left."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from tqdm import tqdm

from common.devices import pick_device
from common.processes import how_it_ended, prepare_worker, terminate
from evaluation.benchmark.dataset import ObjectFiles
from pipeline.cli_args import with_advice
from pipeline.view_generator import ModelError

log = logging.getLogger(__name__)

LOG_SECONDS = 60.0
"""Longest time between two lines of progress."""

Tick = Callable[[], None]
"""Called after every unit of work."""
Work = Callable[[ObjectFiles, Tick], None]
"""Does the work of one object."""
MakeWork = Callable[[Any, str], Work]
"""Makes the work of a process from a plan and the name of its device; a function of a module."""


def all_devices(name: str) -> list[str]:
    """All GPUs for "auto" where there are any, else the one device that is named."""
    device = pick_device(name)
    if name == "auto" and device.type == "cuda":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device)]


def run_on_devices(
    make_work: MakeWork,
    plan: Any,
    objects: Sequence[ObjectFiles],
    devices: Sequence[str],
    title: str,
    units: int,
) -> dict[str, str]:
    """Do the same work on all objects, one process for each device.

    Args:
        make_work: see `MakeWork`.
        plan: its argument; it travels to the processes by pickle.
        objects: shared out to the devices in turn.
        devices: see `all_devices`.
        title: of the progress.
        units: of work for an object; results that are kept count as no work.

    Returns:
        the reason of each failure, by the name of the object.

    Raises:
        ModelError: the model cannot be loaded, so no object can be processed.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, tuple[BaseProcess, str]] = {}
    unfinished: dict[str, set[str]] = {}
    failures: dict[str, str] = {}
    with _Progress(title, len(objects), units) as progress:
        try:
            for number, device in enumerate(devices[: len(objects)]):
                share = objects[number :: len(devices)]
                receiver, sender = context.Pipe(duplex=False)
                arguments = (make_work, plan, share, device, sender)
                process = context.Process(target=_work_in_process, args=arguments, daemon=True)
                process.start()
                sender.close()
                workers[receiver] = (process, device)
                unfinished[device] = {files.name for files in share}
            while workers:
                ready = wait(list(workers))
                for receiver in [each for each in workers if each in ready]:
                    worker, on = workers[receiver]
                    try:
                        kind, name, message = receiver.recv()
                    except EOFError:
                        end = f"the process on {on} ended by {how_it_ended(worker)}"
                        failures |= dict.fromkeys(unfinished[on], end)
                        del workers[receiver]
                        continue
                    if kind == "no model":
                        raise ModelError(message)
                    if kind == "unit":
                        progress.unit(name)
                        continue
                    unfinished[on].discard(name)
                    progress.end(name)
                    if message:
                        log.error("%s: %s", name, message)
                        failures[name] = message
        finally:
            terminate(worker for worker, _ in workers.values())
    return failures


def _work_in_process(
    make_work: MakeWork,
    plan: Any,
    objects: Sequence[ObjectFiles],
    device: str,
    sender: Connection,
) -> None:
    prepare_worker()
    form = f"%(levelname)s: {device}: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form)
    try:
        work = make_work(plan, device)
        for files in objects:
            message = ""
            tick = partial(sender.send, ("unit", files.name, ""))
            try:
                work(files, tick)
            except ModelError:
                raise
            except Exception as error:  # noqa: BLE001 - reported, other objects continue
                message = " ".join(with_advice(error).split()) or type(error).__name__
            sender.send(("end", files.name, message))
    except (ModelError, OSError, ValueError) as error:
        sender.send(("no model", "", str(error)))


class _Progress:
    """A bar on a terminal, and lines with the time left."""

    def __init__(self, title: str, num_objects: int, units: int) -> None:
        self.title, self.num_objects, self.units = title, num_objects, units
        self.total = num_objects * units
        self.done = self.ended = 0
        self.of_object: dict[str, int] = {}
        self.first = self.logged = 0.0
        self.bar = tqdm(total=self.total, desc=title, disable=None)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def unit(self, name: str) -> None:
        self.of_object[name] = self.of_object.get(name, 0) + 1
        self.done += 1
        self.first = self.first or time.monotonic()
        self.bar.update()
        if time.monotonic() - self.logged > LOG_SECONDS:
            self.log()

    def end(self, name: str) -> None:
        """An object is done; units that it did not need are no longer counted."""
        self.ended += 1
        self.total -= self.units - self.of_object.get(name, 0)
        self.bar.total = self.total
        self.log()

    def log(self) -> None:
        self.logged = time.monotonic()
        left = "time left: known after two steps"
        if self.done >= self.total:
            left = "done" if self.ended == self.num_objects else "finishing"
        elif self.done > 1:
            seconds = (self.logged - self.first) / (self.done - 1) * (self.total - self.done)
            left = f"about {tqdm.format_interval(seconds)} left"
        with tqdm.external_write_mode():
            log.info("%s: %d of %d objects, %s", self.title, self.ended, self.num_objects, left)
