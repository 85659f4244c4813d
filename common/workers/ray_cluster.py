"""Workers on a Ray cluster: actors, which keep what they loaded and are restarted when lost."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from common.cli import one_line
from common.optional import import_optional
from common.signals import keep_sigterm
from common.workers.work import (
    RETRIES,
    MakeWork,
    OnTick,
    Outcome,
    SetUpError,
    Work,
    Worker,
    attempt,
    limit_threads,
)

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cluster:
    """Where the workers are, and what each of them gets.

    Attributes:
        address: "auto" or e.g. "head:6379"; None starts a cluster on this machine.
        workers: their number; None is as many as there is room for, of `cores` None one for each
            machine without GPUs. More than that wait until the cluster grows.
        cores: of the CPU, for each worker; None divides those of a machine among its workers.
        gpus: for each worker; None is 1 if the cluster has any, else 0.
        grace: seconds in which tasks that ask `is_stopped` may end, if all is stopped.
        device: see `Worker`.
    """

    address: str | None = None
    workers: int | None = None
    cores: int | None = None
    gpus: float | None = None
    grace: float = 0.0
    device: str = "auto"


class RayWorker:
    """The actor: a process of the cluster that does one task at a time."""

    def __init__(
        self, make_work: MakeWork, plan: Any, device: str, cores: int, folder: str
    ) -> None:
        self.given = make_work, plan, device, cores, folder
        self.stopped = threading.Event()
        self.work: Work | None = None
        self.ticks = 0

    def do(self, task: Any) -> tuple[Outcome | SetUpError, int]:
        """Do a task; returns how many units of work it took, too."""
        self.ticks = 0
        try:
            self.work = self.work or self._start()
            return attempt(self.work, task), self.ticks
        except Exception as error:  # noqa: BLE001 - the driver reports it
            return SetUpError(one_line(error) or type(error).__name__), self.ticks

    def _start(self) -> Work:
        make_work, plan, device, cores, folder = self.given
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        os.chdir(folder)  # relative paths are those of the command
        limit_threads(cores)
        return make_work(plan, Worker(device, self._tick, self.stopped.is_set))

    def _tick(self) -> None:
        self.ticks += 1

    def stop(self) -> None:
        """Ask the task to abort; runs beside it."""
        self.stopped.set()


def run_on_ray(
    cluster: Cluster, make_work: MakeWork, plan: Any, tasks: Sequence[Any], on_tick: OnTick
) -> Iterator[Outcome]:
    """The `Engine` of a Ray cluster.

    The project and all files must have the same paths on all machines. A task whose worker was
    lost is done by a new one, up to `RETRIES` times.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        ValueError: a worker needs more than any machine of the cluster has.
    """
    ray = import_optional("ray", "working on a cluster", "requirements/render.txt")
    search_path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": search_path, "TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    without_dashboard = None if cluster.address else False
    with keep_sigterm():  # Ray's own handler skips the clean-up
        ray.init(
            address=cluster.address,
            runtime_env={"env_vars": variables},
            include_dashboard=without_dashboard,
        )
    try:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers, cores, gpus = share(machines, cluster)
        kind = ray.remote(
            num_cpus=cores, num_gpus=gpus, max_restarts=-1, max_task_retries=RETRIES,
            concurrency_groups={"control": 1},
        )(RayWorker)  # fmt: skip
        folder = str(Path.cwd())
        actors = [
            kind.remote(make_work, plan, cluster.device, cores, folder)
            for _ in range(min(workers, len(tasks)))
        ]
        yield from _outcomes(ray, actors, tasks, on_tick, cluster.grace)
    finally:
        ray.shutdown()


def share(machines: Sequence[dict[str, float]], cluster: Cluster) -> tuple[int, int, float]:
    """The number of workers, and the CPU cores and GPUs of each, by the machines' resources.

    Raises:
        ValueError: no machine has enough for one worker.
    """
    gpus = cluster.gpus
    if gpus is None:
        gpus = 1.0 if any(machine.get("GPU", 0) >= 1 for machine in machines) else 0.0
    usable = [m for m in machines if m.get("CPU", 0) >= 1 and m.get("GPU", 0) >= gpus]
    each = -(-(cluster.workers or 1) // max(len(usable), 1))  # of a machine, rounded up
    shares = [int(m["CPU"] // (m["GPU"] // gpus if gpus else each)) for m in usable]
    cores = cluster.cores or max(min(shares, default=1), 1)
    room = sum(int(min(m["CPU"] // cores, m["GPU"] // gpus if gpus else m["CPU"])) for m in usable)
    if not room:
        raise ValueError(
            f"a worker needs {cores} cores and {gpus:g} GPUs, but the machines of the cluster have "
            + ", ".join(f"{m.get('CPU', 0):g} and {m.get('GPU', 0):g}" for m in machines)
        )
    return cluster.workers or room, cores, gpus


def _outcomes(
    ray: ModuleType, actors: list[Any], tasks: Sequence[Any], on_tick: OnTick, grace: float
) -> Iterator[Outcome]:
    waiting = iter(tasks)
    running = {
        actor.do.remote(task): (actor, task) for actor, task in zip(actors, waiting, strict=False)
    }
    try:
        while running:
            for done in ray.wait(list(running), num_returns=1)[0]:
                actor, task = running.pop(done)
                try:
                    outcome, ticks = ray.get(done)
                except ray.exceptions.RayError as error:
                    message = " ".join(str(error).split())[:300]
                    outcome, ticks = Outcome(task, error=f"its Ray task ended: {message}"), 0
                for following in waiting:
                    running[actor.do.remote(following)] = actor, following
                    break
                else:  # frees what it has, for a worker that lost its machine
                    ray.kill(actor)
                if isinstance(outcome, SetUpError):
                    raise outcome
                for _ in range(ticks):
                    on_tick(task)
                yield replace(outcome, task=task)
    finally:
        if running and grace:
            for actor, _ in running.values():
                actor.stop.options(concurrency_group="control").remote()
            ray.wait(list(running), num_returns=len(running), timeout=grace)
