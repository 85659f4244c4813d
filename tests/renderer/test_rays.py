from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from multiview.cameras import PIXEL_CENTRE, orbit_cameras
from multiview.projection import project
from renderer.rays import (
    PUBLISHED_PIXEL_OFFSET,
    depths_around_origin,
    depths_in_cube,
    inside_object_cube,
    pixel_rays,
    points_on_rays,
)


def camera_tensors(num_views: int = 16, dtype: torch.dtype = torch.float32):
    cameras = orbit_cameras(num_views)
    return (
        torch.from_numpy(cameras.intrinsics).to(dtype)[:, None],
        torch.from_numpy(cameras.world_to_camera).to(dtype)[:, None],
    )


def test_rays_and_their_stretches_are_the_published_ones(published):
    intrinsics, world_to_camera = (tensor[[0, 5]] for tensor in camera_tensors())
    origins, directions = pixel_rays(
        published["pixels_xy"], intrinsics, world_to_camera, PUBLISHED_PIXEL_OFFSET
    )
    assert_close(origins, published["rays_o"], atol=1e-6, rtol=0)
    assert_close(directions, published["rays_d"], atol=1e-6, rtol=0)
    near, far = depths_around_origin(origins, directions)
    assert_close(near, published["near"], atol=2e-6, rtol=0)
    assert_close(far, published["far"], atol=2e-6, rtol=0)


def test_rays_of_the_video_are_the_published_ones(published):
    intrinsics, world_to_camera = camera_tensors(num_views=180)
    origins, directions = pixel_rays(
        published["pixels_xy"], intrinsics, world_to_camera, PUBLISHED_PIXEL_OFFSET
    )
    assert_close(origins[:, 0], published["orbit_camera_centres"], atol=1e-6, rtol=0)
    expected = published["orbit_rays_d_frames_0_45_100"]
    assert_close(directions[[0, 45, 100]], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("offset", [PUBLISHED_PIXEL_OFFSET, PIXEL_CENTRE])
def test_every_point_of_a_ray_is_seen_in_its_pixel(offset):
    intrinsics, world_to_camera = camera_tensors(dtype=torch.float64)
    pixels = torch.tensor([[0.0, 0.0], [255.0, 3.0], [100.0, 200.0]], dtype=torch.float64)
    origins, directions = pixel_rays(pixels, intrinsics, world_to_camera, offset)
    points = points_on_rays(origins, directions, torch.tensor([0.5, 2.0], dtype=torch.float64))
    seen, _ = project(points.flatten(1, 2), intrinsics[:, 0], world_to_camera[:, 0])
    expected = (pixels + offset).repeat_interleave(2, dim=0).expand_as(seen)
    assert_close(seen, expected, atol=1e-9, rtol=0)
    assert_close(directions.norm(dim=-1), torch.ones(16, 3, dtype=torch.float64))


def test_a_camera_for_each_ray_gives_the_same_as_all_pixels_of_all_cameras():
    intrinsics, world_to_camera = camera_tensors()
    pixels = torch.rand(5, 2) * 255
    together = pixel_rays(pixels, intrinsics, world_to_camera, 0.5)
    view = torch.tensor([3, 0, 15, 7, 7])
    single = pixel_rays(pixels, intrinsics[view, 0], world_to_camera[view, 0], 0.5)
    for all_rays, rays in zip(together, single, strict=True):
        assert_close(rays, all_rays[view, torch.arange(5)])


def test_rays_enter_and_leave_the_cube_at_its_faces():
    origins = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 2.0, 0.0]])
    diagonal = -math.sqrt(0.5)
    directions = torch.tensor(
        [[-1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [diagonal, diagonal, 0.0]]
    )
    near, far = depths_in_cube(origins, directions, half_size=0.6, min_near=0.2)
    root = math.sqrt(2.0)
    assert_close(near, torch.tensor([1.4, 1.4, 0.2, 1.4 * root]))
    assert_close(far, torch.tensor([2.6, 2.6, 0.6, 2.6 * root]))


def test_rays_that_miss_the_cube_or_leave_it_behind_have_no_length():
    origins = torch.tensor([[2.0, 0.7, 0.0], [2.0, 0.0, 0.0], [2.0, 0.6, 0.0]])
    directions = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    near, far = depths_in_cube(origins, directions)
    assert torch.isfinite(near).all()
    assert torch.equal(near, far)
    points = torch.tensor([[0.6, -0.6, 0.6], [0.61, 0.0, 0.0], [0.0, 0.0, -0.61]])
    assert inside_object_cube(points).tolist() == [True, False, False]  # it is closed
