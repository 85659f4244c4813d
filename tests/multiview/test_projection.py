from __future__ import annotations

import torch

from multiview.cameras import orbit_cameras
from multiview.projection import MIN_DEPTH, project, unproject


def rig() -> tuple[torch.Tensor, torch.Tensor]:
    cameras = orbit_cameras(num_views=5)
    return torch.tensor(cameras.intrinsics), torch.tensor(cameras.world_to_camera)


def test_unproject_is_the_inverse_of_project():
    intrinsics, poses = rig()
    points = torch.rand(5, 100, 3, dtype=torch.float64) - 0.5
    points[:, 0] = 0
    pixels, depth = project(points, intrinsics, poses)
    torch.testing.assert_close(unproject(pixels, depth, intrinsics, poses), points)
    torch.testing.assert_close(pixels[:, 0], torch.full_like(pixels[:, 0], 128.0))
    torch.testing.assert_close(depth[:, 0], torch.full_like(depth[:, 0], 1.5))


def test_depths_behind_the_camera_are_raised_to_the_minimum():
    intrinsics, poses = rig()
    behind = torch.tensor([[[10.0, 0.0, 10.0]]], dtype=torch.float64)
    pixels, depth = project(behind, intrinsics[:1], poses[:1])
    assert float(depth) == MIN_DEPTH
    assert pixels.isfinite().all()
