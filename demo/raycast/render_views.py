"""Render an object's views by ray casting: to an array, or to folders as Blender's job does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from blender.plan import ViewSettings, plan_cameras
from blender.view_folder import ViewFolder
from demo.raycast.ray_caster import render_light, sample_distance, to_pixels
from demo.raycast.ray_scene import RayScene
from demo.raycast.scene_arrays import flatten_scene
from multiview.cameras import Cameras

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

ENGINE = "RAYS 1"
"""Name of the renderer in the views' records. Raise the number when its images change: older views
are then rendered again."""


def render_views(
    scene: Scene | Trimesh | Sequence[Trimesh], cameras: Cameras, size: int, supersampling: int = 2
) -> np.ndarray:
    """Render views of an object: sRGB with straight alpha, (N, size, size, 4) uint8.

    The scene, z up, is scaled and centred as in Blender's job; the N cameras are for images of this
    size. `supersampling` is rays a pixel in each direction; with 1 edges are hard, as Blender's
    are. ValueError: the scene has no faces, or its bounding box is not finite.
    """
    arrays = flatten_scene(scene, sample_distance(cameras, supersampling))
    return to_pixels(render_light(RayScene(arrays), cameras, size, supersampling))


def render_view_folders(
    scene: Scene | Trimesh | Sequence[Trimesh],
    folders: Sequence[tuple[Path, ViewSettings]],
    uid: str,
    model: str,
    supersampling: int = 2,
) -> int:
    """Render the missing views of an object into folders, each with its settings; count them.

    The scene has z up; random elevations depend on the object's name, `uid`; `model` identifies the
    geometry: views of another one are replaced. ValueError: the scene has no faces.
    """
    record = {"model": model, "engine": ENGINE, "supersampling": supersampling}
    plans = [
        ViewFolder(path, plan_cameras(settings, uid), settings.resolution, dict(record))
        for path, settings in folders
    ]
    plans = [views for views in plans if not views.is_complete()]
    if not plans:
        return 0
    distance = min(sample_distance(views.cameras, supersampling) for views in plans)
    ray_scene = RayScene(flatten_scene(scene, distance))  # before anything is written
    rendered = 0
    for size in sorted({views.resolution for views in plans}):
        plans_of_size = [views for views in plans if views.resolution == size]
        missing = [(views, index) for views in plans_of_size for index in views.prepare()]
        light = render_light(ray_scene, _select_cameras(missing), size, supersampling)
        for (views, index), image in zip(missing, to_pixels(light), strict=True):
            path = views.path / ".view.tmp.png"
            Image.fromarray(image).save(path)
            views.add_view(index, path, None)
        rendered += len(missing)
    return rendered


def _select_cameras(chosen: Sequence[tuple[ViewFolder, int]]) -> Cameras:
    """Return the cameras of some views of several folders."""
    rows = {
        name: np.array([getattr(views.cameras, name)[index] for views, index in chosen])
        for name in ("intrinsics", "world_to_camera", "azimuths", "elevations")
    }
    return Cameras(**rows)
