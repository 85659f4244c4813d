"""The rendering of one object: both view sets, into the training tree, whole or not at all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blender.objects import Model
from blender.plan import META, ViewSettings, meta_matches, plan_cameras
from blender.png import ends_as_png
from blender.process import RenderError, blender_command, find_blender, run_blender
from blender.view_folder import view_name
from multiview.cameras import Cameras

PARTS = ".parts"
"""Folder, in the tree, of what is not finished; on the same disk, so that moving is atomic."""
LOGS = "logs"


@dataclass(frozen=True)
class RenderSetup:
    """How objects are rendered.

    Attributes:
        out: the training tree; its view sets are folders in it.
        sets: name of a view set -> its views.
        flags: of `blender_script.py`, in addition to those of the views.
        blender: see `find_blender`.
        timeout: seconds for an attempt at an object.
        retries: attempts after the first.
        gpus: numbers of GPUs that objects take turns on; none leaves the choice to Blender.
    """

    out: Path
    sets: dict[str, ViewSettings]
    flags: tuple[str, ...] = ()
    blender: str | None = None
    timeout: float = 1800.0
    retries: int = 1
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of an object.

    Attributes:
        model: the object.
        error: why it failed; None where all its views are there.
        attempts: 0 where all views were there before.
        seconds: that it took.
    """

    model: Model
    error: str | None = None
    attempts: int = 0
    seconds: float = 0.0


def never() -> bool:
    """Nobody asks to give up."""
    return False


def render_model(
    model: Model, setup: RenderSetup, turn: int, stopped: Callable[[], bool] = never
) -> Outcome:
    """Render the views of an object that are missing in the tree; never raises for a failure.

    Args:
        model: what to render.
        setup: how, and where to.
        turn: number of the object, for taking turns on GPUs.
        stopped: says whether to give up.
    """
    begin = time.monotonic()
    missing = [name for name in setup.sets if not is_complete(model, name, setup)]
    error: str | None = None
    attempts = 0
    while missing and attempts <= setup.retries and not stopped():
        attempts += 1
        try:
            _attempt(model, missing, setup, turn, stopped)
            missing, error = [], None
        except (RenderError, OSError, ValueError) as failure:
            error = " ".join(str(failure).split())
    if missing and error is None:
        error = "given up, as all was stopped"
    return Outcome(model, error, attempts, time.monotonic() - begin)


def is_complete(model: Model, name: str, setup: RenderSetup) -> bool:
    """Say whether a view set of an object is there: its cameras, and views that are not cut off.

    Folders come into the tree whole, so that this need not read all of every image.
    """
    settings = setup.sets[name]
    return _is_complete(setup.out / name / model.uid, plan_cameras(settings, model.uid))


def _is_complete(folder: Path, cameras: Cameras) -> bool:
    names = [view_name(index) for index in range(len(cameras.elevations))]
    return meta_matches(folder / META, cameras) and all(ends_as_png(folder / n) for n in names)


def _attempt(
    model: Model, missing: list[str], setup: RenderSetup, turn: int, stopped: Callable[[], bool]
) -> None:
    """Render the view sets named in `missing`; raises where one fails."""
    if not model.path.is_file():
        raise FileNotFoundError(f"{model.path}: no such model")
    deadline = time.monotonic() + setup.timeout
    program = find_blender(setup.blender)
    environment = {}
    if setup.gpus:
        gpu = setup.gpus[turn % len(setup.gpus)]
        environment = {"CUDA_VISIBLE_DEVICES": gpu, "HIP_VISIBLE_DEVICES": gpu}
    logs = setup.out / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    for name in missing:
        settings = setup.sets[name]
        final, part = setup.out / name / model.uid, setup.out / PARTS / name / model.uid
        part.parent.mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not part.exists():
            final.rename(part)  # incomplete: what is good of it is kept
        command = blender_command(program, _arguments(model, part.parent, settings, setup.flags))
        with (logs / f"{model.uid}.log").open("ab") as log:
            run_blender(command, log, deadline, stopped, environment)
        if not _is_complete(part, plan_cameras(settings, model.uid)):
            raise RenderError("Blender ended as if it were done, but views are missing")
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)


def _arguments(
    model: Model, folder: Path, settings: ViewSettings, flags: tuple[str, ...]
) -> list[str]:
    return [
        f"--object_path={model.path.resolve()}",
        f"--output_dir={folder.resolve()}",
        f"--uid={model.uid}",
        *(f"--{name}={value}" for name, value in vars(settings).items()),
        *flags,
    ]
