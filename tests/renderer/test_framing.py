from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from multiview.cameras import orbit_cameras
from multiview.colmap_model import quaternion
from multiview.views import write_views
from renderer.config import RendererConfig
from renderer.framing import Placement
from renderer.methods.base import Views
from renderer.methods.stereo import CameraTensors
from renderer.views import read_input
from tests.renderer.photos import (
    CENTRE,
    Photo,
    check_placement,
    check_projection,
    take_photos,
    write_photos,
)
from tests.renderer.small_runs import ellipsoid, write_strip

CONFIG = RendererConfig()


def read(folder: Path, cameras: Path, config: RendererConfig = CONFIG) -> Views:
    return read_input(folder, config, "cpu", cameras)[0]


def test_an_object_anywhere_is_found_and_cut_out_of_images_of_any_size(tmp_path):
    path = write_photos(tmp_path, take_photos())
    views = read(tmp_path, path)
    assert views.images.shape == (6, views.size, views.size, 3)
    assert views.size % 16 == 0
    check_placement(views)
    check_projection(views)
    assert (views.masks.max(axis=(1, 2)) > 0.99).all()


def test_a_colmap_model_is_turned_to_z_up(tmp_path):
    """The same photos in a world that lies on its side."""
    write_photos(tmp_path, photos := take_photos(8))
    turned = Rotation.from_euler("xyz", [100, 20, 30], degrees=True).as_matrix()
    lines, cameras = [], []
    for k, photo in enumerate(photos):
        world_to_camera = (photo.camera_to_world[:3, :3] * [1, -1, -1]).T @ turned.T
        t = -world_to_camera @ turned @ photo.camera_to_world[:3, 3]
        numbers = " ".join(map(str, (*quaternion(world_to_camera), *t)))
        lines += [f"{k} {numbers} {k} photo {k}.png", ""]
        h, w = photo.pixels.shape[:2]
        f, g = photo.intrinsics[[0, 1], [0, 1]]
        cx, cy = photo.intrinsics[:2, 2]
        cameras.append(f"{k} PINHOLE {w} {h} {f} {g} {cx} {cy}")
    (tmp_path / "cameras.txt").write_text("\n".join(cameras))
    (tmp_path / "images.txt").write_text("\n".join(lines))
    views = read(tmp_path / "images", tmp_path)
    up = views.to_given[:3, 2] / np.linalg.norm(views.to_given[:3, 2])
    assert up @ turned[:, 2] > 0.95  # as far as the cameras' own ups tell
    turned_back = np.eye(4)
    turned_back[:3, :3] = turned.T
    check_projection(replace(views, to_given=turned_back @ views.to_given))


def test_our_own_files_of_the_rig_give_the_views_of_the_strip(tmp_path):
    images = np.round(ellipsoid()[..., :3] * 255).astype(np.uint8)
    strip, digest = read_input(write_strip(tmp_path / "0.png"), CONFIG, "cpu")
    write_views(tmp_path / "0", images, orbit_cameras(16, image_size=32), colmap=True)
    for cameras in ("transforms.json", "sparse/0"):
        views, other = read_input(tmp_path / "0", CONFIG, "cpu", tmp_path / "0" / cameras)
        np.testing.assert_array_equal(views.images, strip.images)
        np.testing.assert_array_equal(views.masks, strip.masks)
        for name, values in vars(views.cameras).items():
            np.testing.assert_array_equal(values, getattr(strip.cameras, name))
        assert views.to_given is None
        assert other != digest  # a run with cameras is not the run without


def test_the_file_may_say_where_the_object_is(tmp_path):
    cube = {"centre": [10, -4, 2.5], "side": 8}
    views = read(tmp_path, write_photos(tmp_path, take_photos(), object_cube=cube))
    np.testing.assert_allclose(views.to_given[:3, 3], [10, -4, 2.5])
    np.testing.assert_allclose(views.to_given[:3, :3], np.eye(3) * 8 / 1.2, atol=1e-12)
    check_projection(views)


def test_without_masks_the_object_is_where_the_cameras_look(tmp_path):
    path = write_photos(tmp_path, take_photos())
    views = read(tmp_path, path, RendererConfig(use_mask=False))
    assert views.masks is None
    to_own = np.linalg.inv(views.to_given)
    assert np.abs(to_own @ [*CENTRE, 1])[:3].max() < 0.2


def test_views_that_do_not_show_all_of_the_object_are_left_out(tmp_path, caplog):
    photos = take_photos(6)
    half = photos[2].pixels.shape[1] // 2
    photos[2] = replace(photos[2], pixels=photos[2].pixels[:, :half])
    nothing = np.zeros_like(photos[4].pixels)
    photos[4] = replace(photos[4], pixels=nothing)
    views = read(tmp_path, write_photos(tmp_path, photos))
    assert len(views.images) == 4
    assert "left out" in caplog.text
    assert "photo 2.png, images/photo 4.png" in caplog.text
    check_placement(views)


def test_one_wrong_mask_of_ten_does_not_move_the_object(tmp_path):
    photos = take_photos(12)
    photos[3] = replace(photos[3], pixels=np.roll(photos[3].pixels, 12, axis=1))
    check_placement(read(tmp_path, write_photos(tmp_path, photos)))


def looking_away(photos: list[Photo]) -> list[Photo]:
    """As with OpenCV's axes in place of OpenGL's."""
    turned = np.diag([1.0, -1.0, -1.0, 1.0])
    return [replace(p, camera_to_world=p.camera_to_world @ turned) for p in photos]


def moved_apart(photos: list[Photo]) -> list[Photo]:
    """Each further to its right, without turning."""
    steps = [np.outer(p.camera_to_world[:, 0], [0, 0, 0, 4 * k]) for k, p in enumerate(photos)]
    pairs = zip(photos, steps, strict=True)
    return [replace(p, camera_to_world=p.camera_to_world + step) for p, step in pairs]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (looking_away, "meet behind the camera of images/photo"),
        (moved_apart, "no volume in common"),
        (
            lambda photos: [replace(p, pixels=p.pixels[:, 30:50]) for p in photos],
            "by the masks, 0 of 6 images show all of the object, expected at least 3",
        ),
    ],
)
def test_cameras_that_do_not_fit_are_refused(tmp_path, change, message):
    path = write_photos(tmp_path, change(take_photos()))
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, path)
    assert str(caught.value).startswith(str(tmp_path))


def test_views_have_no_more_pixels_than_their_images_and_the_limit(tmp_path, monkeypatch):
    path = write_photos(tmp_path / "a", take_photos(3))
    assert read(tmp_path / "a", path).size == 32
    monkeypatch.setattr("renderer.framing.VIEW_PIXELS", 3 * 20**2)
    assert read(tmp_path / "a", path).size == 16


def test_a_placement_and_its_matrix_are_inverse():
    rotation = Rotation.from_euler("xyz", [0.3, -1, 2]).as_matrix()
    placement = Placement(rotation, np.array([1.0, -2, 3]), 0.4)
    pose = np.column_stack([Rotation.from_euler("xyz", [1, 2, 3]).as_matrix(), [0.1, 0.2, 5]])
    point = np.array([0.3, 0.1, -0.2, 1.0])
    (moved,) = placement.poses(pose[None])
    np.testing.assert_allclose(moved @ point, 0.4 * (pose @ placement.to_given() @ point))


def test_neighbours_are_the_nearest_views_by_angle():
    import torch

    cpu = torch.device("cpu")
    ring = CameraTensors.of(orbit_cameras(16), cpu).neighbours
    assert [set(order) for order in ring] == [
        {(k + step) % 16 for step in (-2, -1, 1, 2)} for k in range(16)
    ]
    wide = orbit_cameras(4, elevation_deg=0)
    assert CameraTensors.of(wide, cpu).neighbours == ((),) * 4
    dense = CameraTensors.of(orbit_cameras(180, elevation_deg=0), cpu).neighbours[0]
    assert sorted(dense) == [3, 4, 176, 177]  # 2 degrees apart: nearer ones show no depth


def test_an_image_without_object_is_refused(tmp_path):
    path = write_photos(tmp_path, photos := take_photos(3))
    for k in range(3):
        Image.new("RGB", photos[k].pixels.shape[1::-1], "white").save(
            tmp_path / "images" / f"photo {k}.png"
        )
    with pytest.raises(ValueError, match="all views are white"):
        read(tmp_path, path)
