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
    pixels, depth = project(points, intrinsics, poses)
    torch.testing.assert_close(unproject(pixels, depth, intrinsics, poses), points)


def test_a_point_on_the_axis_projects_to_the_principal_point_at_its_distance():
    intrinsics, poses = rig()
    pixels, depth = project(torch.zeros(1, 1, 3, dtype=torch.float64), intrinsics, poses)
    torch.testing.assert_close(pixels, torch.full_like(pixels, 128.0))
    torch.testing.assert_close(depth, torch.full_like(depth, 1.5))


def test_depths_behind_the_camera_are_raised_to_the_minimum():
    intrinsics, poses = rig()
    behind = torch.tensor([[[10.0, 0.0, 10.0]]], dtype=torch.float64)
    pixels, depth = project(behind, intrinsics[:1], poses[:1])
    assert float(depth) == MIN_DEPTH
    assert pixels.isfinite().all()
