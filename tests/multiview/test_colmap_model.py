from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from multiview.cameras import orbit_cameras
from multiview.colmap_model import model_folder, quaternion, read_colmap, write_colmap
from multiview.images import view_names

CAMERAS = (
    "1 OPENCV 200 100 250 240 100 50 0.1 -0.02 0.001 0.002\n2 SIMPLE_RADIAL 64 48 50 32 24 0.3"
)
IMAGES = [(1, "a.png"), (2, "sub/b c.png"), (1, "d.png")]
RIG = orbit_cameras(16, image_size=64)


def write_text(folder: Path, cameras: str = CAMERAS, points: str = "1 2 -1 3 4 7") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cameras.txt").write_text(f"# a comment\n{cameras}\n")
    lines = ["# a comment"]
    for number, (camera, name) in enumerate(IMAGES):
        pose = RIG.world_to_camera[number]
        numbers = " ".join(map(repr, map(float, (*quaternion(pose[:, :3]), *pose[:, 3]))))
        lines += [f"{number + 5} {numbers} {camera} {name}", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_binary(folder: Path) -> Path:
    """The same model by hand, from COLMAP's documentation of the format."""
    folder.mkdir(exist_ok=True)
    cameras = struct.pack("<Q", 2)
    cameras += struct.pack("<iiQQ8d", 1, 4, 200, 100, 250, 240, 100, 50, 0.1, -0.02, 0.001, 0.002)
    cameras += struct.pack("<iiQQ4d", 2, 2, 64, 48, 50, 32, 24, 0.3)
    images = struct.pack("<Q", 3)
    for number, (camera, name) in enumerate(IMAGES):
        pose = RIG.world_to_camera[number]
        images += struct.pack("<i7di", number + 5, *quaternion(pose[:, :3]), *pose[:, 3], camera)
        images += name.encode() + b"\0" + struct.pack("<Qddqddq", 2, 1, 2, -1, 3, 4, 7)
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(images)
    return folder


@pytest.mark.parametrize("form", [write_text, write_binary])
def test_cameras_and_images_are_read(form, tmp_path):
    read = read_colmap(form(tmp_path / "model"))
    assert [image.name for image in read.images] == [name for _, name in IMAGES]
    poses = np.stack([image.world_to_camera for image in read.images])
    np.testing.assert_allclose(poses, RIG.world_to_camera[:3], atol=1e-15)
    first, second, third = read.images
    assert (first.size, second.size) == ((200, 100), (64, 48))
    np.testing.assert_array_equal(first.intrinsics, [[250, 0, 100], [0, 240, 50], [0, 0, 1]])
    np.testing.assert_array_equal(second.intrinsics, [[50, 0, 32], [0, 50, 24], [0, 0, 1]])
    assert first.distortion.tolist() == [0.1, -0.02, 0.001, 0.002, 0, 0, 0, 0]
    assert second.distortion.tolist() == [0.3, *[0] * 7]
    assert third.distortion.tolist() == first.distortion.tolist()
    assert (read.z_up, read.cube) == (False, None)


def test_lines_of_points_may_be_empty(tmp_path):
    assert len(read_colmap(write_text(tmp_path, points="")).images) == 3


def test_our_own_model_is_read_back_and_found_beside_the_views(tmp_path):
    write_colmap(tmp_path / "sparse" / "0", view_names(16), RIG, 64)
    assert model_folder(tmp_path) == tmp_path / "sparse" / "0"
    assert model_folder(tmp_path / "sparse") == tmp_path / "sparse" / "0"
    read = read_colmap(tmp_path / "sparse" / "0")
    assert [image.name for image in read.images] == view_names(16)
    poses = np.stack([image.world_to_camera for image in read.images])
    np.testing.assert_allclose(poses, RIG.world_to_camera, atol=1e-14)
    assert read.z_up
    assert read.cube is not None
    assert (read.cube.centre.tolist(), read.cube.side) == ([0, 0, 0], 1.2)


def test_colmap_reads_what_is_written_and_its_binary_files_are_read(tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="needs requirements/eval.txt")
    write_colmap(tmp_path, view_names(16), RIG, 64)
    (tmp_path / "binary").mkdir()
    pycolmap.Reconstruction(str(tmp_path)).write_binary(str(tmp_path / "binary"))
    text, binary = read_colmap(tmp_path), read_colmap(tmp_path / "binary")
    assert sorted(image.name for image in binary.images) == view_names(16)
    by_name = {image.name: image for image in binary.images}
    for image in text.images:
        other = by_name[image.name]
        np.testing.assert_allclose(other.world_to_camera, image.world_to_camera, atol=1e-14)
        np.testing.assert_array_equal(other.intrinsics, image.intrinsics)
        assert other.size == image.size


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ("1 OPENCV", "line 2 is '1 OPENCV', expected CAMERA_ID MODEL WIDTH HEIGHT"),
        ("1 PINHOLE 200 100 250 240 100", "camera 1 has 3 parameters, expected fx fy cx cy"),
        ("1 FOV 200 100 1 2 3 4 5", "model FOV, expected one of SIMPLE_PINHOLE"),
        ("1 OPENCV_FISHEYE 200 100 250 240 100 50 0 0 0 0", "run colmap image_undistorter"),
        ("1 PINHOLE 200 100 0 240 100 50", "focal lengths 0 and 240"),
        ("1 PINHOLE 200 100 nan 240 100 50", "focal lengths nan"),
        ("1 PINHOLE 200 100 250 240 100 500", "far from its 200 x 100"),
        ("1 PINHOLE 0 100 250 240 100 50", "0 x 100 pixels"),
        ("2 PINHOLE 200 100 250 240 100 50", r"\'a.png\' is of camera 1, which cameras\.txt lacks"),
    ],
)
def test_a_wrong_camera_is_refused(cameras, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read_colmap(write_text(tmp_path, cameras))
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("5 1 0 0 0 0 0 1.5 1", "line 2 is .*, expected IMAGE_ID QW QX"),
        ("a 1 0 0 0 0 0 1.5 1 a.png", "expected IMAGE_ID QW QX"),
        ("5 2 0 0 0 0 0 1.5 1 a.png", "no unit quaternion"),
        ("5 1 0 0 0 0 0 inf 1 a.png", "no unit quaternion"),
    ],
)
def test_a_wrong_image_is_refused(line, message, tmp_path):
    write_text(tmp_path)
    (tmp_path / "images.txt").write_text(f"#\n{line}\n\n")
    with pytest.raises(ValueError, match=message):
        read_colmap(tmp_path)


def test_damaged_and_missing_binary_files_are_refused(tmp_path):
    folder = write_binary(tmp_path)
    for name in ("cameras.bin", "images.bin"):
        content = (folder / name).read_bytes()
        for damaged, message in (
            (content[:-5], "is cut off at"),
            (content + b"0", "1 bytes follow"),
        ):
            (folder / name).write_bytes(damaged)
            with pytest.raises(ValueError, match=rf"{name}: {message}"):
                read_colmap(folder)
        (folder / name).write_bytes(content)
    (folder / "cameras.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"cameras\.bin: no such file; a model has it"):
        read_colmap(folder)
