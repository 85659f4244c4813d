"""Parallel rendering of many objects, on this machine or on a Ray cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from blender.job import RenderResult, RenderSetup, render_missing_sets
from blender.objects import DatasetObject
from common.optional import import_optional

PROJECT = Path(__file__).resolve().parents[1]
TASKS_AHEAD = 1000
"""Tasks submitted to Ray at a time; a million at once would take gigabytes."""
RAY_GRACE_SECONDS = 15
"""For cancelled tasks to terminate their Blender."""


def render_local(
    objects: list[DatasetObject], setup: RenderSetup, workers: int
) -> Iterator[RenderResult]:
    """Render objects on this machine, `workers` at a time; yield the results as they complete.

    All Blender processes are terminated when the generator is closed or raises.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers)
    try:
        tasks = [
            pool.submit(render_missing_sets, item, setup, index, stop.is_set)
            for index, item in enumerate(objects)
        ]
        for task in as_completed(tasks):
            yield task.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def render_on_ray(
    objects: list[DatasetObject],
    setup: RenderSetup,
    address: str | None,
    cores: int,
    gpus: float | None,
) -> Iterator[RenderResult]:
    """Render objects on a Ray cluster, one task each; yield the results as they complete.

    The project, the 3D models and the data set must have the same paths on all machines. The
    address is e.g. "auto" or "head:6379"; None starts a cluster on this machine. Each task gets
    `cores` CPU cores and `gpus` GPUs; None is 1 if the cluster has any, else 0.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        ValueError: a task needs more resources than the cluster has.
    """
    ray = import_optional("ray", "rendering on a cluster", "requirements/render.txt")
    search_path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    environment = {"env_vars": {"PYTHONPATH": search_path}}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address=address, runtime_env=environment, include_dashboard=None if address else False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler skips the clean-up
    try:
        task = _ray_task(ray, cores, gpus)
        yield from _ray_results(ray, task, objects, setup)
    finally:
        ray.shutdown()


def _ray_task(ray: ModuleType, cores: int, gpus: float | None) -> Any:
    """Make a Ray task of `render_missing_sets`; ValueError if the cluster is too small for it."""
    resources = ray.cluster_resources()
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    if cores > resources.get("CPU", 0) or gpus > resources.get("GPU", 0):
        raise ValueError(
            f"a task needs {cores} cores and {gpus:g} GPUs, but the cluster has "
            f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}"
        )
    return ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=2)(render_missing_sets)


def _ray_results(
    ray: ModuleType, task: Any, objects: list[DatasetObject], setup: RenderSetup
) -> Iterator[RenderResult]:
    waiting = iter(enumerate(objects))
    running: dict[object, DatasetObject] = {}
    try:
        while True:
            for index, item in islice(waiting, TASKS_AHEAD - len(running)):
                running[task.remote(item, setup, index)] = item
            if not running:
                return
            for done in ray.wait(list(running), num_returns=1)[0]:
                item = running.pop(done)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    message = " ".join(str(error).split())[:300]
                    yield RenderResult(item, f"its Ray task ended: {message}", 1)
    finally:
        for reference in running:
            ray.cancel(reference)  # KeyboardInterrupt in the task, which then terminates Blender
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=RAY_GRACE_SECONDS)
