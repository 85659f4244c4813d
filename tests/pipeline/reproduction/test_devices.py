"""Work on objects in one process for each device."""

from __future__ import annotations

from functools import partial

from common.workers.work import run_here
from evaluation.benchmark.dataset import ObjectFiles
from pipeline.reproduction.devices import all_devices, run_on_objects


def test_failures_are_named():
    def make_work(plan, worker):
        def work(files: ObjectFiles) -> None:
            if files.name != "a":
                raise MemoryError("too little memory")

        return work

    objects = [ObjectFiles(name, *[None] * 5) for name in ("a", "b")]
    failures = run_on_objects(partial(run_here, "cpu"), make_work, None, objects, "notes", 2)
    assert failures == {"b": "too little memory"}


def test_without_a_gpu_there_is_one_device():
    assert all_devices("cpu") == ["cpu"]
