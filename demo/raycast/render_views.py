"""The folder of an object's views, cast instead of rendered, in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from blender.plan import ViewSettings, plan_cameras
from blender.view_folder import ViewFolder
from demo.raycast.ray_caster import RayScene, cast_light, sample_distance, to_pixels
from demo.raycast.surfaces import flatten
from multiview.cameras import Cameras

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

ENGINE = "RAYS 1"
"""Raise the number when views come out otherwise: those made before are then made anew."""


def cast_object(
    scene: Scene | Trimesh | Sequence[Trimesh],
    folders: Sequence[tuple[Path, ViewSettings]],
    uid: str,
    model: str,
    supersampling: int = 2,
) -> int:
    """Write the views of an object that are not there yet.

    Args:
        scene: z up.
        folders: each with its own views, e.g. target/<uid> with fixed cameras and input/<uid> with
            random ones; what they share is computed once.
        uid: the object's name, which random elevations depend on.
        model: what the object is made from; views of another one are made anew.
        supersampling: rays a pixel in each direction.

    Returns:
        how many views were made.

    Raises:
        ValueError: there is nothing to see.
        OSError: the views cannot be written.
        ModuleNotFoundError: embreex is not installed.
    """
    made_with = {"model": model, "engine": ENGINE, "supersampling": supersampling}
    plans = [
        ViewFolder(path, plan_cameras(settings, uid), settings.resolution, dict(made_with))
        for path, settings in folders
    ]
    plans = [views for views in plans if not views.is_complete()]
    if not plans:
        return 0
    distance = min(sample_distance(views.cameras, supersampling) for views in plans)
    rays = RayScene(flatten(scene, distance))  # before anything is written
    made = 0
    for size in sorted({views.resolution for views in plans}):
        missing = [
            (views, index)
            for views in plans
            if views.resolution == size
            for index in views.prepare()
        ]
        light = cast_light(rays, _together(missing), size, supersampling)
        for (views, index), image in zip(missing, to_pixels(light), strict=True):
            path = views.path / ".view.tmp.png"
            Image.fromarray(image).save(path)
            views.add_view(index, path, None)
        made += len(missing)
    return made


def _together(chosen: Sequence[tuple[ViewFolder, int]]) -> Cameras:
    """Cameras of some views of several folders."""
    rows = {
        name: np.array([getattr(views.cameras, name)[index] for views, index in chosen])
        for name in ("intrinsics", "world_to_camera", "azimuths", "elevations")
    }
    return Cameras(**rows)
