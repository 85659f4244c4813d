from __future__ import annotations

import numpy as np
import pytest

from multiview.cameras import orbit_cameras, orbit_pose


def test_camera_centres_lie_on_the_ring_counter_clockwise_from_the_x_axis():
    cameras = orbit_cameras(num_views=16, elevation_deg=30.0, distance=1.5)
    rotation, translation = cameras.world_to_camera[:, :, :3], cameras.world_to_camera[:, :, 3]
    centres = -np.einsum("nij,ni->nj", rotation, translation)
    np.testing.assert_allclose(centres[:, 2], 1.5 * np.sin(np.deg2rad(30.0)))
    angles = np.arctan2(centres[:, 1], centres[:, 0])
    np.testing.assert_allclose(np.exp(1j * angles), np.exp(1j * np.arange(16) * np.pi / 8))
    np.testing.assert_allclose(np.exp(1j * angles), np.exp(1j * cameras.azimuths), atol=1e-12)
    assert (cameras.azimuths >= -np.pi).all()
    assert (cameras.azimuths < np.pi).all()


@pytest.mark.parametrize("elevation_deg", [-90, -10, 0, 40, 90])
def test_poses_are_right_handed_rotations(elevation_deg: float):
    rotation = orbit_pose(np.deg2rad(elevation_deg), 0.7, 1.5)[:, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_up_in_the_world_is_up_in_the_image():
    cameras = orbit_cameras(num_views=3, elevation_deg=30.0)
    top = cameras.world_to_camera @ np.array([0.0, 0.0, 0.3, 1.0])
    assert (top[:, 1] < 0).all()


def test_intrinsics_scale_with_the_image_but_for_the_last_row():
    small = orbit_cameras(image_size=64).intrinsics[0]
    np.testing.assert_allclose(small, [[70, 0, 32], [0, 70, 32], [0, 0, 1]])
