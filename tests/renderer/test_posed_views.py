from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from multiview.cameras import orbit_cameras
from multiview.posed_images import PosedImage
from multiview.views import write_views
from renderer import posed_views
from renderer.posed_views import common_point, read_posed_views
from tests.multiview.test_transforms_json import content, look_at
from tests.renderer.photos import take_photos, write_photos


def test_images_are_found_by_path_by_name_and_without_suffix(tmp_path):
    given = content(w=20, h=20)
    names = ["./images/a", "../elsewhere/b.png", str(tmp_path / "no" / "c.png")]
    for frame, name in zip(given["frames"], names, strict=True):
        frame["file_path"] = name
    (tmp_path / "images").mkdir()
    for k, file in enumerate(("images/a.png", "b.png", "c.png")):
        Image.new("RGB", (20, 20), (k, 0, 0)).save(tmp_path / file)
    (tmp_path / "transforms.json").write_text(json.dumps(given))
    for cameras in (tmp_path / "transforms.json", tmp_path, "transforms.json"):
        views = read_posed_views(tmp_path, tmp_path / cameras).views
        assert [round(255 * view.image[0, 0, 0]) for view in views] == [0, 1, 2]


def test_no_image_is_read_outside_of_the_folder(tmp_path):
    given = content()
    Image.new("RGB", (200, 100)).save(tmp_path / "secret.png")
    for k, frame in enumerate(given["frames"]):
        frame["file_path"] = f"../secret.png{'' if k else '?'}"
    given["frames"][2]["file_path"] = str(tmp_path / "secret.png")
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    given["frames"][0]["file_path"] = "link.png"
    (tmp_path / "transforms.json").write_text(json.dumps(given))
    with pytest.raises(FileNotFoundError, match=r"are missing: link\.png, \.\./secret\.png, /"):
        read_posed_views(folder, tmp_path / "transforms.json")


def test_what_is_no_file_of_cameras_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json: no such file, nor a folder of a COLMAP"):
        read_posed_views(tmp_path, tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"has no cameras, expected transforms\.json, or"):
        read_posed_views(tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder of images"):
        read_posed_views(tmp_path / "a.png", tmp_path)


def test_smaller_images_of_the_same_shape_have_smaller_intrinsics_and_others_are_refused(tmp_path):
    path = write_photos(tmp_path, photos := take_photos(3))
    first = tmp_path / "images" / "photo 0.png"
    height, width = photos[0].pixels.shape[:2]
    with Image.open(first) as image:
        image.resize((2 * width, 2 * height)).save(first)
    view = read_posed_views(tmp_path, path).views[0]
    assert view.image.shape == (2 * height, 2 * width, 3)
    np.testing.assert_allclose(view.intrinsics[:2], 2 * photos[0].intrinsics[:2])
    Image.new("RGB", (width, height + 5)).save(first)
    found = f"has {width} x {height + 5} pixels, its camera {width} x {height}"
    with pytest.raises(ValueError, match=found):
        read_posed_views(tmp_path, path)


def test_large_images_are_reduced_and_most_of_many_left_out(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(posed_views, "READ_PIXELS", 4 * 32**2)
    monkeypatch.setattr(posed_views, "MOST_VIEWS", 4)
    path = write_photos(tmp_path, photos := take_photos(12))
    views = read_posed_views(tmp_path, path).views
    assert "4 of 12 images are used" in caplog.text
    assert all(max(view.image.shape) == 32 for view in views)
    forwards = np.stack([view.world_to_camera[2, :3] for view in views])
    angles = np.arccos(np.clip(forwards @ forwards.T, -1, 1)) + 9 * np.eye(4)
    assert angles.min() > 0.8
    which = int(views[1].name.split()[1].removesuffix(".png"))
    share = views[1].image.shape[1] / photos[which].pixels.shape[1]
    assert views[1].intrinsics[0, 0] == pytest.approx(share * photos[which].intrinsics[0, 0])


def test_the_distortion_of_a_lens_is_undone(tmp_path):
    """A pattern seen through a lens, by the inverse of the model, looks as through a pinhole."""
    size, distortion = 64, np.array([0.4, -0.05, 0.02, -0.03, 0.0, 0.0, 0.0, 0.0])
    intrinsics = np.array([[60.0, 0, 30], [0, 64, 34], [0, 0, 1]])
    pattern = 0.5 + 0.4 * np.sin(np.arange(size) / 4)[:, None] * np.cos(np.arange(size) / 5)
    rows, columns = np.mgrid[:size, :size] + 0.5
    bent = np.stack([(columns - 30) / 60, (rows - 34) / 64])
    straight = bent.copy()
    for _ in range(50):  # the published way to invert the model
        x, y = straight
        r = x * x + y * y
        radial = 1 + 0.4 * r - 0.05 * r * r
        shift = [
            2 * 0.02 * x * y - 0.03 * (r + 2 * x * x), -2 * 0.03 * x * y + 0.02 * (r + 2 * y * y)
        ]  # fmt: skip
        straight = (bent - shift) / radial
    at = [straight[1] * 64 + 34 - 0.5, straight[0] * 60 + 30 - 0.5]
    seen = map_coordinates(pattern, at, order=3, mode="nearest")
    Image.fromarray(np.round(seen * 255).astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
    posed = PosedImage("a.png", (size, size), intrinsics, np.eye(3, 4), distortion)
    view = posed_views._read_view(tmp_path / "a.png", posed, 1000)
    inner = np.s_[12:-12, 12:-12]
    assert np.abs(view.image[..., 0] - pattern)[inner].max() < 0.03
    plain = posed_views._read_view(tmp_path / "a.png", replace(posed, distortion=np.zeros(8)), 1000)
    assert np.abs(plain.image[..., 0] - pattern)[inner].max() > 0.1


def test_alpha_is_the_mask_only_if_all_images_have_one(tmp_path, caplog):
    path = write_photos(tmp_path / "a", photos := take_photos(3))
    masks = read_posed_views(tmp_path / "a", path).alphas()
    for mask, photo in zip(masks, photos, strict=True):
        np.testing.assert_allclose(mask * 255, photo.pixels[..., 3])
    photos[1] = replace(photos[1], pixels=photos[1].pixels[..., :3])
    path = write_photos(tmp_path / "b", photos)
    assert read_posed_views(tmp_path / "b", path).alphas() is None
    assert "some have none, such as images/photo 1.png" in caplog.text


@pytest.mark.parametrize("cameras", ["transforms.json", "sparse"])
def test_the_views_that_are_written_with_their_cameras_are_read_back(tmp_path, cameras):
    views = np.random.default_rng(0).integers(0, 255, (16, 24, 24, 3)).astype(np.uint8)
    rig = orbit_cameras(16, image_size=24)
    write_views(tmp_path, views, rig, colmap=True)
    read = read_posed_views(tmp_path, tmp_path / cameras)
    np.testing.assert_array_equal(np.stack([view.image for view in read.views]) * 255, views)
    poses = np.stack([view.world_to_camera for view in read.views])
    np.testing.assert_allclose(poses, rig.world_to_camera, atol=1e-12)
    assert read.alphas() is None


def test_lines_of_sight_meet_at_their_common_point():
    point, eyes = np.array([1.0, 2.0, 3.0]), np.array([[5.0, 1, 2], [0, 9, 1], [2, 2, -4]])
    forwards = -np.stack([look_at(eye, point)[:3, 2] for eye in eyes])
    np.testing.assert_allclose(common_point(eyes, forwards), point, atol=1e-12)
