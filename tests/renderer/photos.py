"""Photos of the coloured ellipsoid, anywhere in the world, by cameras that all differ."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview.cameras import Cameras
from renderer.methods.base import Views
from tests.multiview.test_transforms_json import look_at
from tests.renderer.small_runs import RADII, traced_ellipsoid
from tests.renderer.traced import overlap

CENTRE, SCALE = np.array([10.0, -4.0, 2.0]), 5.0
"""Where the ellipsoid is, and how much larger than in its own coordinates."""
LENGTH = 2 * RADII.max() * SCALE


@dataclass(frozen=True)
class Photo:
    """An image, uint8 RGBA (H, W, 4), and its camera in the world."""

    pixels: np.ndarray
    intrinsics: np.ndarray
    camera_to_world: np.ndarray  # (4, 4), OpenGL's axes


def take_photos(count: int = 6, size: int = 80, seed: int = 1) -> list[Photo]:
    """Photos from all sides, of other sizes, focal lengths and distances, not quite aimed."""
    rng = np.random.default_rng(seed)
    photos = []
    for k in range(count):
        azimuth = 2 * np.pi * k / count + rng.uniform(-0.3, 0.3)
        elevation, distance = rng.uniform(-0.3, 1.0), rng.uniform(1.5, 3.0)
        height = np.sin(elevation)
        flat = np.cos(elevation) * np.array([np.cos(azimuth), np.sin(azimuth)])
        eye = distance * np.array([*flat, height])
        matrix = look_at(eye, rng.uniform(-0.1, 0.1, 3))
        h, w = rng.integers(size * 3 // 4, size, 2, endpoint=True)
        f = 0.5 * min(h, w) * distance
        intrinsics = np.array([[f, 0, w / 2 + rng.uniform(-5, 5)], [0, 1.02 * f, h / 2], [0, 0, 1]])
        rotation = (matrix[:3, :3] * [1, -1, -1]).T
        pose = np.column_stack([rotation, -rotation @ eye])
        camera = Cameras(intrinsics[None], pose[None], np.zeros(1), np.zeros(1))
        traced = traced_ellipsoid(camera, max(h, w), RADII, lambda points: 0.5 + points)
        pixels = np.round(traced[0, :h, :w] * 255).astype(np.uint8)
        matrix[:3, 3] = CENTRE + SCALE * eye
        photos.append(Photo(pixels, intrinsics, matrix))
    return photos


def write_photos(folder: Path, photos: list[Photo], **shared: object) -> Path:
    """Write images and transforms.json, whose path is returned."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for k, photo in enumerate(photos):
        name = f"images/photo {k}.png"
        Image.fromarray(photo.pixels).save(folder / name)
        h, w = photo.pixels.shape[:2]
        (fx, _, cx), (_, fy, cy), _ = photo.intrinsics.tolist()
        keys = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": w, "h": h}
        matrix = photo.camera_to_world.tolist()
        frames.append({"file_path": name, "transform_matrix": matrix, **keys})
    path = folder / "transforms.json"
    path.write_text(json.dumps({"frames": frames, **shared}))
    return path


def check_placement(views: Views) -> None:
    """The ellipsoid's centre is near the origin, and its longest side about 1."""
    assert views.to_given is not None
    to_own = np.linalg.inv(views.to_given)
    assert np.abs(to_own @ [*CENTRE, 1])[:3].max() < 0.06
    assert LENGTH * np.cbrt(np.linalg.det(to_own[:3, :3])) == pytest.approx(1, abs=0.08)


def check_masks(views: Views) -> np.ndarray:
    """The true ellipsoid, seen by the new cameras, has these masks; its views (N, S, S, 4)."""
    given = views.to_given
    poses = np.concatenate(
        [views.cameras.world_to_camera, np.tile([[[0.0, 0, 0, 1]]], (len(views.images), 1, 1))], 1
    )
    true = np.eye(4)  # from the ellipsoid's own coordinates to the given world
    true[:3] = np.column_stack([SCALE * np.eye(3), CENTRE])
    of_ellipsoid = (poses @ np.linalg.inv(given) @ true)[:, :3]
    of_ellipsoid /= np.cbrt(np.linalg.det(of_ellipsoid[:, :, :3]))[:, None, None]
    cameras = replace(views.cameras, world_to_camera=of_ellipsoid)
    expected = traced_ellipsoid(cameras, views.size, RADII, lambda points: 0.5 + points)
    assert overlap(views.masks, expected[..., 3]) > 0.97
    return expected


def check_projection(views: Views) -> None:
    """The true ellipsoid, seen by the new cameras, has the masks' and the images' pixels."""
    expected = check_masks(views)
    inside = expected[..., 3] == 1
    assert np.abs(views.images - expected[..., :3])[inside].mean() < 0.02
