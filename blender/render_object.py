"""Rendering the views of one object (inside Blender only)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import numpy as np

from blender import cycles
from blender.plan import ViewSettings, plan_cameras
from blender.scene import load_scene
from blender.view_folder import ViewFolder
from common.files import sha256

log = logging.getLogger(__name__)


class RenderOptions(Protocol):
    """Settings of the renderer: the flags of `blender_script.py` with these names."""

    engine: str
    device: cycles.Device
    samples: int
    threads: int
    up: str
    save_depth: bool


def render_object(
    model: Path, folder: Path, uid: str, settings: ViewSettings, options: RenderOptions
) -> None:
    """Render the missing views of a 3D model into a folder; the uid determines the elevations.

    Raises:
        OSError: the model does not exist, or the views cannot be written.
        ValueError: the model cannot be rendered; says why.
        RuntimeError: Blender failed.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model}: no such model")
    record = {name: getattr(options, name) for name in ("engine", "samples", "up")}
    record = {"model": sha256(model), **record}
    cameras = plan_cameras(settings, uid)
    views = ViewFolder(folder, cameras, settings.resolution, record, options.save_depth)
    if views.is_complete():
        log.info("%s: all %d views are complete", folder, settings.num_images)
        return
    load_scene(model, options.up)  # before anything is written
    cycles.set_threads(options.threads)
    size = settings.resolution
    device = cycles.configure_renderer(options.engine, options.device, size, options.samples)
    missing = views.prepare()
    if options.save_depth:
        cycles.enable_depth_output(folder)
    text = "%s: rendering %d of %d views on %s"
    log.info(text, folder, len(missing), settings.num_images, device)
    for index in missing:
        cycles.place_camera(views.cameras.world_to_camera[index])
        image = folder / ".view.tmp.png"
        cycles.render_view(image)
        depth: np.ndarray | None = cycles.read_depth(folder) if options.save_depth else None
        views.add_view(index, image, depth)
    log.info("%s: done", folder)
