"""All views of one model (inside Blender only)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import numpy as np

from blender.cycles import (
    Device,
    place_camera,
    read_depth,
    render_view,
    save_depth,
    set_up,
    use_threads,
)
from blender.plan import ViewSettings, plan_cameras
from blender.scene import load_model
from blender.view_folder import ViewFolder, fingerprint

log = logging.getLogger(__name__)


class RenderOptions(Protocol):
    """How views are rendered: the flags of `blender_script.py` of the same names."""

    engine: str
    device: Device
    samples: int
    threads: int
    up: str
    save_depth: bool


def render_object(
    model: Path, folder: Path, uid: str, settings: ViewSettings, options: RenderOptions
) -> None:
    """Render the views of a model that are not there yet.

    Args:
        model: the file.
        folder: of the views; made if need be.
        uid: the object's name, which random elevations depend on.
        settings: which views.
        options: how.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the model cannot be rendered; says why.
        RuntimeError: Blender failed.
        OSError: the views cannot be written.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model")
    made_with = {
        "model": fingerprint(model),
        "engine": options.engine,
        "samples": options.samples,
        "up": options.up,
    }
    views = ViewFolder(
        folder, plan_cameras(settings, uid), settings.resolution, made_with, options.save_depth
    )
    if views.is_complete():
        log.info("%s: all %d views are there", folder, settings.num_images)
        return
    load_model(model, options.up)  # before anything is written
    use_threads(options.threads)
    device = set_up(options.engine, options.device, settings.resolution, options.samples)
    missing = views.prepare()
    if options.save_depth:
        save_depth(folder)
    log.info(
        "%s: rendering %d of %d views on %s", folder, len(missing), settings.num_images, device
    )
    for index in missing:
        place_camera(views.cameras.world_to_camera[index])
        image = folder / ".view.tmp.png"
        render_view(image)
        depth: np.ndarray | None = read_depth(folder) if options.save_depth else None
        views.add_view(index, image, depth)
    log.info("%s: done", folder)
