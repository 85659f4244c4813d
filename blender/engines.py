"""Rendering many objects: on this machine, or on a Ray cluster, by the same function."""

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

from blender.job import Outcome, RenderSetup, render_model
from blender.objects import Model
from common.optional import import_optional

PROJECT = Path(__file__).resolve().parents[1]
TASKS_AHEAD = 1000
"""Tasks that Ray knows of at a time; a million at once would take gigabytes."""
SECONDS_FOR_RAY_TO_END = 15


def render_here(models: list[Model], setup: RenderSetup, workers: int) -> Iterator[Outcome]:
    """Render objects on this machine, `workers` at a time; yield them as they end.

    Whatever ends this, an exception or that nobody asks for more, ends all Blenders too.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers)
    try:
        tasks = [
            pool.submit(render_model, model, setup, turn, stop.is_set)
            for turn, model in enumerate(models)
        ]
        for task in as_completed(tasks):
            yield task.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def render_on_ray(
    models: list[Model],
    setup: RenderSetup,
    address: str | None,
    cores: int,
    gpus: float | None,
) -> Iterator[Outcome]:
    """Render objects on a Ray cluster, a task each; yield them as they end.

    All machines must see the project, the models and the tree under the same paths.

    Args:
        models: what to render.
        setup: how.
        address: of the cluster, e.g. "auto" or "head:6379"; None starts one on this machine.
        cores: that a task takes.
        gpus: that a task takes; None is 1 where the cluster has any, else 0.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        ValueError: no task would ever fit the cluster.
    """
    ray = import_optional("ray", "--engine ray", "requirements/render.txt")
    search_path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    environment = {"env_vars": {"PYTHONPATH": search_path}}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address=address, runtime_env=environment, include_dashboard=None if address else False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own ends the process without clean-up
    try:
        task = _ray_task(ray, cores, gpus)
        yield from _ray_outcomes(ray, task, models, setup)
    finally:
        ray.shutdown()


def _ray_task(ray: ModuleType, cores: int, gpus: float | None) -> Any:
    """Make a Ray task of `render_model`; ValueError where none would ever fit the cluster."""
    resources = ray.cluster_resources()
    if gpus is None:
        gpus = 1.0 if resources.get("GPU", 0) >= 1 else 0.0
    if cores > resources.get("CPU", 0) or gpus > resources.get("GPU", 0):
        raise ValueError(
            f"a task of {cores} cores and {gpus:g} GPUs never fits the cluster, which has "
            f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}"
        )
    return ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=2)(render_model)


def _ray_outcomes(
    ray: ModuleType, task: Any, models: list[Model], setup: RenderSetup
) -> Iterator[Outcome]:
    waiting = iter(enumerate(models))
    running: dict[object, Model] = {}
    try:
        while True:
            for turn, model in islice(waiting, TASKS_AHEAD - len(running)):
                running[task.remote(model, setup, turn)] = model
            if not running:
                return
            for done in ray.wait(list(running), num_returns=1)[0]:
                model = running.pop(done)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    said = " ".join(str(error).split())[:300]
                    yield Outcome(model, f"its Ray task ended: {said}", 1)
    finally:
        for reference in running:
            ray.cancel(reference)  # interrupts it, so that it ends its Blender
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=SECONDS_FOR_RAY_TO_END)
