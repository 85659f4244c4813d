from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiview.cameras import orbit_cameras
from multiview.images import view_names
from multiview.transforms_json import read_transforms, write_transforms

NAN = float("nan")


def look_at(eye: tuple[float, ...], target: tuple[float, ...] = (0, 0, 0)) -> np.ndarray:
    """Camera-to-world with OpenGL's axes, z up, (4, 4), from its definition."""
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([right, np.cross(right, forward), -forward, eye])
    return matrix


def content(count: int = 3, **shared: Any) -> dict[str, Any]:
    """A valid file of cameras around the origin."""
    angles = np.arange(count) / count * 2 * np.pi
    frames = [
        {
            "file_path": f"images/{k}.png",
            "transform_matrix": look_at((3 * math.cos(a), 3 * math.sin(a), 1)).tolist(),
        }
        for k, a in enumerate(angles)
    ]
    return {"w": 200, "h": 100, "fl_x": 250.0, "frames": frames, **shared}


def write(folder: Path, given: object) -> Path:
    path = folder / "transforms.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    return path


def test_the_rig_is_read_back_to_the_last_digits(tmp_path):
    rig = orbit_cameras(16, image_size=64)
    write_transforms(tmp_path / "transforms.json", view_names(16), rig, 64)
    read = read_transforms(tmp_path / "transforms.json")
    assert [image.name for image in read.images] == view_names(16)
    poses = np.stack([image.world_to_camera for image in read.images])
    np.testing.assert_allclose(poses, rig.world_to_camera, atol=1e-15)
    for image in read.images:
        np.testing.assert_array_equal(image.intrinsics, rig.intrinsics[0])
        assert image.size == (64, 64)
        assert not image.distortion.any()
    assert read.z_up
    assert read.cube is not None
    assert (read.cube.centre.tolist(), read.cube.side) == ([0, 0, 0], 1.2)


def test_a_camera_sees_what_is_right_of_and_above_the_middle_there(tmp_path):
    given = content()
    given["frames"][0]["transform_matrix"] = look_at((0, -3, 0)).tolist()  # looks along y
    image = read_transforms(write(tmp_path, given)).images[0]
    point = image.world_to_camera @ [0.3, 0.0, 0.6, 1.0]
    u, v, depth = image.intrinsics @ point
    assert depth == pytest.approx(3)
    assert (u / depth, v / depth) == pytest.approx((100 + 25, 50 - 50))


def test_blenders_scenes_have_an_angle_and_no_size(tmp_path):
    given = content(camera_angle_x=2 * math.atan(0.4))
    for key in ("w", "h", "fl_x"):
        del given[key]
    image = read_transforms(write(tmp_path, given)).images[0]
    assert image.size is None
    assert image.intrinsics[[0, 1], [0, 1]] == pytest.approx([1.25, 1.25])  # widths


def test_frames_have_their_own_intrinsics_and_distortion(tmp_path):
    given = content(k1=0.1, camera_model="OPENCV")
    own = {"fl_x": 50, "fl_y": 40, "cx": 30, "cy": 20, "w": 64, "h": 48, "k1": 0.0, "p2": 0.01}
    given["frames"][1].update(own)
    first, second, _ = read_transforms(write(tmp_path, given)).images
    assert (first.size, second.size) == ((200, 100), (64, 48))
    np.testing.assert_array_equal(second.intrinsics, [[50, 0, 30], [0, 40, 20], [0, 0, 1]])
    np.testing.assert_array_equal(first.intrinsics, [[250, 0, 100], [0, 250, 50], [0, 0, 1]])
    assert first.distortion.tolist() == [0.1, *[0] * 7]
    assert second.distortion.tolist() == [0, 0, 0, 0.01, *[0] * 4]


def changed(**keys: Any) -> dict[str, Any]:
    """A file whose second frame has other keys."""
    given = content()
    given["frames"][1].update(keys)
    return given


SCALED, SHEARED, MIRRORED = np.diag([2.0, 2, 2, 1]), np.eye(4), np.diag([-1.0, 1, 1, 1])
SHEARED[0, 1] = 0.1
WRONG: list[tuple[object, str]] = [
    ("{", "not JSON"),
    ("[" * 10**5, "not JSON"),
    ("9" * 5000, "not JSON"),
    ("[]", "no list of frames, expected nerfstudio's"),
    ({"frames": [1]}, "no list of frames"),
    (content(2), "the cameras of 2 images, expected 3 to 200"),
    (content(201), "201 images, expected 3 to 200; take every n-th"),
    (changed(file_path="images/0.png"), "images/0.png has two cameras"),
    (changed(file_path=""), "frame 1 has no file_path"),
    (changed(transform_matrix=[[1, 0], [0, 1]]), "transform_matrix is .*, expected 4 x 4 numbers"),
    (changed(transform_matrix="a"), "transform_matrix is .*, expected 4 x 4 numbers"),
    (changed(transform_matrix=np.full((4, 4), NAN).tolist()), "expected 4 x 4 numbers"),
    (changed(transform_matrix=np.ones((4, 4)).tolist()), "last row"),
    *((changed(transform_matrix=m.tolist()), "is no rotation") for m in (SCALED, SHEARED)),
    (changed(transform_matrix=MIRRORED.tolist()), "mirrors the axes"),
    (changed(camera_model="OPENCV_FISHEYE"), "'OPENCV_FISHEYE'; undistort the images"),
    (changed(is_fisheye=True), "a fisheye lens; undistort the images"),
    (changed(k4=0.1), "has k4, which is not known"),
    (changed(k1="a"), "k1 is 'a', expected a number"),
    (changed(fl_x=0), "focal lengths 0 and 0, expected positive"),
    *((changed(fl_x=n), "fl_x is .*, expected a number") for n in (NAN, 10**400, [], True, "7")),
    (changed(cx=500), r"principal point \(500, 50\) far from its 200 x 100"),
    (changed(w=0), "w 0 and h 100, expected whole pixels"),
    ({key: value for key, value in content().items() if key != "h"}, "has no h"),
    ({key: value for key, value in content().items() if key != "fl_x"}, "no focal length"),
    ({k: v for k, v in content().items() if k not in ("w", "h")}, "has no w and h"),
    (content(fl_x=None, camera_angle_x=4), "fl_x"),
    (content(object_cube=[1]), r"object_cube is \[1\], expected a centre and a side"),
    (content(object_cube={"centre": [0, 0, 0], "side": 0}), "a side of 0, expected a positive"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_a_wrong_file_is_refused_with_its_name_and_what_is_expected(given, message, tmp_path):
    path = write(tmp_path, given)
    with pytest.raises(ValueError, match=message) as caught:
        read_transforms(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
