from __future__ import annotations

import dataclasses

import pytest
import torch

from ldm.config import VolumeConfig
from ldm.model import SyncDreamer
from ldm.spatial_volume import view_geometry
from multiview.cameras import orbit_cameras

SIZE = 16


@pytest.fixture(scope="module")
def geometry():
    cameras = orbit_cameras(num_views=4, image_size=SIZE)
    return view_geometry(
        VolumeConfig(voxels=8, depth_planes=8),
        torch.tensor(cameras.intrinsics, dtype=torch.float32),
        torch.tensor(cameras.world_to_camera, dtype=torch.float32),
        SIZE,
    )


def test_vertices_project_to_where_the_cameras_see_them(geometry):
    cameras = orbit_cameras(num_views=4, image_size=SIZE)
    line = torch.linspace(-0.5, 0.5, 8)
    z, y, x = 2, 5, 7  # the tensor's axes are (z, y, x)
    vertex = torch.tensor([line[x], line[y], line[z], 1.0], dtype=torch.float64)
    for n in range(4):
        u, v, depth = cameras.intrinsics[n] @ cameras.world_to_camera[n] @ vertex.numpy()
        expected = torch.tensor([u / depth, v / depth]) / ((SIZE - 1) / 2) - 1
        found = geometry.vertices_in_views[n, z, y, x].double()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rays_start_and_end_at_the_depth_range_and_pass_through_the_object(geometry):
    poses = torch.tensor(orbit_cameras(num_views=4).world_to_camera, dtype=torch.float32)
    points = geometry.rays_in_volume * 0.5  # the cube's half side
    depth = torch.einsum("nj,n...j->n...", poses[:, 2, :3], points)
    depth += poses[:, 2, 3, None, None, None]
    planes = torch.linspace(1.5 - 3**0.5 / 2, 1.5 + 3**0.5 / 2, 8)[:, None, None]
    torch.testing.assert_close(depth, planes.expand_as(depth), rtol=1e-4, atol=1e-4)
    centre = points[:, :, SIZE // 2, SIZE // 2]  # the principal point: rays through the origin
    assert centre.norm(dim=-1).min(dim=1).values.max() < 0.13


def test_looking_along_rays_reads_the_volume_where_the_rays_are(tiny_model: SyncDreamer):
    """A volume that holds its own coordinates must give the rays' coordinates back."""
    net, rays = tiny_model.spatial_volume, tiny_model.view_geometry().rays_in_volume[[3, 9]]
    line = torch.linspace(-1, 1, tiny_model.config.volume.voxels)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    seen = net.sample_along_rays(torch.stack([x, y, z])[None], rays).permute(0, 2, 3, 4, 1)
    inside = (rays.abs() < 1).all(dim=-1)
    torch.testing.assert_close(seen[inside], rays[inside], rtol=1e-4, atol=1e-4)
    outside = (rays.abs() > 1 + 2 / (tiny_model.config.volume.voxels - 1)).any(dim=-1)
    assert 0.3 < outside.float().mean() < 0.8
    assert seen[outside].abs().max() == 0


def test_views_are_read_in_order_view_by_view(tiny_model: SyncDreamer):
    config = tiny_model.config
    net, geometry = tiny_model.spatial_volume, tiny_model.view_geometry()
    latents = torch.randn(1, *config.latent_shape)
    time, views = torch.randn(1, config.volume.time_dim), torch.randn(1, 16, 4)
    whole = net.lift_views_to_volume(latents, time, views, geometry)
    one = dataclasses.replace(geometry, vertices_in_views=geometry.vertices_in_views[6:7])
    alone = net.lift_views_to_volume(latents[:, 6:7], time, views[:, 6:7], one)
    channels = config.volume.view_channels
    part = whole[:, 6 * channels : 7 * channels]
    torch.testing.assert_close(part, alone, rtol=1e-4, atol=1e-5)
