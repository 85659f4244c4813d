"""Parallel rendering of many objects, on this machine or on a Ray cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing

from blender.job import RenderResult, RenderSetup, render_missing_sets
from blender.objects import DatasetObject
from common.workers.ray_cluster import Cluster, run_on_ray
from common.workers.work import Work, Worker


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
    objects: list[DatasetObject], setup: RenderSetup, cluster: Cluster
) -> Iterator[RenderResult]:
    """Render objects on a Ray cluster, see `run_on_ray`; yield the results as they complete."""
    outcomes = run_on_ray(cluster, make_render, setup, objects, lambda _: None)
    with closing(outcomes):  # type: ignore[type-var]
        for outcome in outcomes:
            yield outcome.result or RenderResult(outcome.task, outcome.error, 1)


def make_render(setup: RenderSetup, worker: Worker) -> Work:
    """The work of `render_batch.py` on Ray: an object to its view sets."""

    def work(item: DatasetObject) -> RenderResult:
        return render_missing_sets(item, setup, 0, worker.is_stopped)

    return work
