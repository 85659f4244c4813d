from __future__ import annotations

import numpy as np
import pytest
import torch

from multiview.cameras import orbit_cameras, orbit_pose
from multiview.visual_hull import cell_centres
from pipeline.selection.hull_renderer import (
    TexturedHull,
    downsample_views,
    raycast_sdf,
    silhouette_distances,
)
from pipeline.selection.similarity import soft_iou

SIZE, RADIUS = 64, 0.35
CAMERAS = orbit_cameras(16, image_size=SIZE)


def ball(intrinsics: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ball around the origin, red towards +x and blue elsewhere: mask and view on white."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    sights = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(intrinsics).T @ pose[:, :3]
    sights /= np.linalg.norm(sights, axis=-1, keepdims=True)
    eye = -pose[:, :3].T @ pose[:, 3]
    along = -(sights @ eye)
    room = RADIUS**2 - (eye @ eye - along**2)
    mask = room > 0
    front = eye + sights * (along - np.sqrt(np.maximum(room, 0)))[..., None]
    colour = np.where(front[..., :1] > 0, (0.8, 0.1, 0.1), (0.1, 0.1, 0.8))
    return mask, np.where(mask[..., None], colour, 1.0).astype(np.float32)


VIEWS = np.stack([
    ball(k, pose)[1] for k, pose in zip(CAMERAS.intrinsics, CAMERAS.world_to_camera, strict=True)
])  # fmt: skip


def hull(resolution: int = 48) -> TexturedHull:
    views = downsample_views(VIEWS, CAMERAS, SIZE)
    return TexturedHull(views, silhouette_distances(views, resolution).amax(dim=0))


def test_the_field_of_a_ball_is_the_distance_to_it_where_it_is_seen():
    field = hull().field
    centres = cell_centres(48)
    above = np.hypot(np.hypot(*np.meshgrid(centres, centres, indexing="ij"))[..., None], centres)
    near = (np.abs(above - RADIUS) < 0.05) & (centres > 0)
    # Rings of cameras see a ball's top only from aside: there its hull is a little larger.
    assert float(np.abs(field.numpy() - (above - RADIUS))[near].mean()) < 0.012


def test_a_camera_that_was_not_used_sees_the_ball_at_its_place_in_its_colours():
    shape = hull()
    intrinsics = CAMERAS.intrinsics[0]
    for azimuth in (0.2, 1.7, 3.0):
        pose = orbit_pose(np.deg2rad(20.0), azimuth, 1.5)
        seen = shape.render(intrinsics, pose, SIZE)
        mask, view = ball(intrinsics, pose)
        assert soft_iou(seen.alpha, torch.from_numpy(mask).float()) > 0.93
        assert float(seen.depth[32, 32]) == pytest.approx(1.5 - RADIUS, abs=0.02)
        error = (seen.colours.movedim(0, -1).numpy() - view)[mask]
        assert float(np.abs(error).mean()) < 0.07


def test_a_field_without_inside_and_one_beside_the_picture_show_nothing():
    pose = CAMERAS.world_to_camera[0]
    for field in (torch.ones(20, 20, 20), torch.full((20, 20, 20), 0.05)):
        alpha, depth = raycast_sdf(field, CAMERAS.intrinsics[0], pose, 32)
        assert not alpha.any()
        assert torch.isinf(depth).all()
