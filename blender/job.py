"""Rendering the view sets of one object by Blender processes, atomically into the training set."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blender.objects import DatasetObject
from blender.plan import META, ViewSettings, meta_matches, plan_cameras
from blender.png import ends_as_png
from blender.process import RenderError, blender_command, find_blender, run_blender
from blender.view_folder import view_name

UNFINISHED = ".parts"
"""Folder of incomplete view sets in the data set; on the same disk, so that moving is atomic."""
LOGS = "logs"


@dataclass(frozen=True)
class RenderSetup:
    """Settings of the rendering of all objects."""

    out: Path  # folder of the data set
    sets: dict[str, ViewSettings]  # by the name of the set's folder in `out`
    flags: tuple[str, ...] = ()  # of `blender_script.py`, besides those of the views
    blender: str | None = None  # see `find_blender`
    timeout: float = 1800.0  # seconds per attempt at an object
    retries: int = 1  # attempts after the first
    gpus: tuple[str, ...] = ()  # indices, among which objects are distributed


@dataclass(frozen=True)
class RenderResult:
    """Result of rendering an object."""

    dataset_object: DatasetObject
    error: str | None = None  # None if all views are complete
    attempts: int = 0  # 0 if all views were complete before
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()  # what is not rendered as it is meant


def render_missing_sets(
    item: DatasetObject,
    setup: RenderSetup,
    index: int,
    is_stopped: Callable[[], bool] = lambda: False,
) -> RenderResult:
    """Render the incomplete view sets of an object; failures are returned, not raised.

    `index` is the object's number, which selects a GPU; `is_stopped` returns True to abort.
    """
    begin = time.monotonic()
    missing = [
        name
        for name, settings in setup.sets.items()
        if item.error or not _is_complete(setup.out / name / item.uid, item.uid, settings)
    ]
    error = item.error
    attempts = 0
    warnings: list[str] = []
    while missing and item.error is None and attempts <= setup.retries and not is_stopped():
        attempts += 1
        try:
            warnings = _attempt(item, missing, setup, index, is_stopped)
            missing, error = [], None
        except (RenderError, OSError, ValueError) as failure:
            error = " ".join(str(failure).split())
    if missing and error is None:
        error = "aborted, as the batch was stopped"
    return RenderResult(item, error, attempts, time.monotonic() - begin, tuple(warnings))


def _is_complete(folder: Path, uid: str, settings: ViewSettings) -> bool:
    """Whether a folder has its cameras and all views; only the ends of the images are read."""
    cameras = plan_cameras(settings, uid)
    names = [view_name(index) for index in range(len(cameras.elevations))]
    return meta_matches(folder / META, cameras) and all(ends_as_png(folder / n) for n in names)


def _attempt(
    item: DatasetObject,
    missing: list[str],
    setup: RenderSetup,
    index: int,
    is_stopped: Callable[[], bool],
) -> list[str]:
    """Render the view sets named in `missing`; return warnings on the model; raises on failure."""
    if not item.path.is_file():
        raise FileNotFoundError(f"{item.path}: no such model")
    deadline = time.monotonic() + setup.timeout
    program = find_blender(setup.blender)
    environment = {}
    if setup.gpus:
        gpu = setup.gpus[index % len(setup.gpus)]
        environment = {"CUDA_VISIBLE_DEVICES": gpu, "HIP_VISIBLE_DEVICES": gpu}
    logs = setup.out / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    warnings: list[str] = []
    for name in missing:
        settings = setup.sets[name]
        final, part = setup.out / name / item.uid, setup.out / UNFINISHED / name / item.uid
        part.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not part.exists():
            final.rename(part)  # incomplete: its valid views are kept
        flags = [f"--object_path={item.path.resolve()}", f"--output_dir={part.parent.resolve()}"]
        flags += [f"--{flag}={value}" for flag, value in vars(settings).items()]
        command = blender_command(program, [*flags, f"--uid={item.uid}", *setup.flags])
        with (logs / f"{item.uid}.log").open("ab") as log:
            warnings += run_blender(command, log, deadline, is_stopped, environment)
        if not _is_complete(part, item.uid, settings):
            raise RenderError("Blender ended without an error, but views are missing")
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
    about = f"{item.path.resolve()}: "  # others are on the device
    found = (text.removeprefix(about) for text in warnings if text.startswith(about))
    return list(dict.fromkeys(found))
