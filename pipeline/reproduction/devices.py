"""Work on many objects by several workers, with the time that is left."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from common.devices import pick_device
from common.workers.work import Engine, MakeWork, follow
from evaluation.benchmark.dataset import ObjectFiles

log = logging.getLogger(__name__)


def all_devices(name: str) -> list[str]:
    """All GPUs for "auto" where there are any, else the one device that is named."""
    device = pick_device(name)
    if name == "auto" and device.type == "cuda":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device)]


def run_on_objects(
    engine: Engine,
    make_work: MakeWork,
    plan: Any,
    objects: Sequence[ObjectFiles],
    title: str,
    units: int,
) -> dict[str, str]:
    """Do the same work on all objects; returns the reason of each failure by the object's name.

    `title` is of the progress, `units` are of work for an object; kept results count as none.

    Raises:
        common.workers.work.SetUpError: the model cannot be loaded, so no object can be processed.
    """
    failures: dict[str, str] = {}
    for outcome in follow(engine, make_work, plan, objects, title, units):
        if outcome.error is not None:
            log.error("%s: %s", outcome.task.name, outcome.error)
            failures[outcome.task.name] = outcome.error
    return failures
