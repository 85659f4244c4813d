"""Rendering a training set: collects the results and writes uid_set.pkl and failures.csv."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from blender.dataset_index import FAILURES, UID_SET, add_to_uid_set, check_settings, write_failures
from blender.job import RenderResult, RenderSetup

log = logging.getLogger(__name__)


def render_dataset(
    results: Iterator[RenderResult], total: int, setup: RenderSetup, image_settings: dict[str, Any]
) -> int:
    """Collect results and write the lists of complete and of failed objects, also on interruption.

    Args:
        results: generator of `total` results, see `blender.engines`; it is closed at the end.
        total: number of objects.
        setup: settings of the rendering.
        image_settings: settings besides the views that determine the images.

    Returns the number of failed objects.

    Raises:
        ValueError: the data set was rendered with other settings.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    views = {name: asdict(settings) for name, settings in setup.sets.items()}
    check_settings(setup.out, {**image_settings, **views})
    collected: list[RenderResult] = []
    try:
        with logging_redirect_tqdm():
            for result in tqdm(results, total=total, unit="object", disable=None):
                collected.append(result)
                if result.error is not None:
                    log.warning("%s: %s", result.dataset_object.uid, result.error)
    finally:
        results.close()  # type: ignore[attr-defined]
        failures = [result for result in collected if result.error is not None]
        done = [result.dataset_object.uid for result in collected if result.error is None]
        write_failures(setup.out, failures)
        listed = add_to_uid_set(setup.out, setup.sets, done)
    skipped = sum(result.attempts == 0 for result in collected if result.error is None)
    text = "%d objects rendered, %d were complete; %s lists %d"
    log.info(text, len(done) - skipped, skipped, setup.out / UID_SET, listed)
    if failures:
        log.error("%d of %d objects failed, see %s", len(failures), total, setup.out / FAILURES)
    return len(failures)
