"""A training tree, rendered: outcomes are gathered and what the tree says of itself is written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict

from blender.dataset_index import (
    FAILURES,
    UID_SET,
    add_to_uid_set,
    check_settings,
    write_failures,
)
from blender.job import Outcome, RenderSetup

log = logging.getLogger(__name__)


def render_tree(
    engine: Iterator[Outcome], total: int, setup: RenderSetup, look: dict[str, object]
) -> int:
    """Take an engine's outcomes until it ends, and write the list of objects and of failures.

    These are written too where this is interrupted.

    Args:
        engine: a generator, see `blender.engines`; it is closed.
        total: objects that it will render.
        setup: how it does.
        look: settings that determine the images, besides the views.

    Returns:
        how many objects failed.

    Raises:
        ValueError: the tree was rendered with other settings.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    views = {name: asdict(settings) for name, settings in setup.sets.items()}
    check_settings(setup.out, {**look, **views})
    outcomes: list[Outcome] = []
    try:
        with logging_redirect_tqdm():
            for outcome in tqdm(engine, total=total, unit="object", disable=None):
                outcomes.append(outcome)
                if outcome.error is not None:
                    log.warning("%s: %s", outcome.model.uid, outcome.error)
    finally:
        engine.close()  # type: ignore[attr-defined]
        failures = [outcome for outcome in outcomes if outcome.error is not None]
        done = [outcome.model.uid for outcome in outcomes if outcome.error is None]
        write_failures(setup.out, failures)
        listed = add_to_uid_set(setup.out, setup.sets, done)
    kept = sum(outcome.attempts == 0 for outcome in outcomes if outcome.error is None)
    log.info("%d objects rendered, %d were there; %s lists %d", len(done) - kept, kept,
             setup.out / UID_SET, listed)  # fmt: skip
    if failures:
        log.error("%d of %d objects failed, see %s", len(failures), total, setup.out / FAILURES)
    return len(failures)
