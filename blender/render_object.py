"""Rendering the views of one object (inside Blender only)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import numpy as np

from blender.cycles import (
    Device,
    configure_renderer,
    enable_depth_output,
    place_camera,
    read_depth,
    render_view,
    set_threads,
)
from blender.plan import ViewSettings, plan_cameras
from blender.scene import load_scene
from blender.view_folder import ViewFolder
from common.files import sha256

log = logging.getLogger(__name__)


class RenderOptions(Protocol):
    """Settings of the renderer: the flags of `blender_script.py` with these names."""

    engine: str
    device: Device
    samples: int
    threads: int
    up: str
    save_depth: bool


def render_object(
    model: Path, folder: Path, uid: str, settings: ViewSettings, options: RenderOptions
) -> None:
    """Render the missing views of an object.

    Args:
        model: 3D model file.
        folder: of the views; created if missing.
        uid: name of the object, which determines the random elevations.
        settings: settings of the views.
        options: settings of the renderer.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the model cannot be rendered; says why.
        RuntimeError: Blender failed.
        OSError: the views cannot be written.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model")
    image_settings = {
        "model": sha256(model),
        "engine": options.engine,
        "samples": options.samples,
        "up": options.up,
    }
    views = ViewFolder(
        folder, plan_cameras(settings, uid), settings.resolution, image_settings, options.save_depth
    )
    if views.is_complete():
        log.info("%s: all %d views are complete", folder, settings.num_images)
        return
    load_scene(model, options.up)  # before anything is written
    set_threads(options.threads)
    device = configure_renderer(
        options.engine, options.device, settings.resolution, options.samples
    )
    missing = views.prepare()
    if options.save_depth:
        enable_depth_output(folder)
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
