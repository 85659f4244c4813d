"""transforms.json: cameras as nerfstudio, Instant-NGP and Blender's NeRF scenes keep them.

Poses are camera-to-world with OpenGL's axes (x right, y up, z out of the scene), +z is up in the
world. The key `object_cube` is ours; other programs ignore it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.files import atomic_write, read_text
from multiview.cameras import OBJECT_HALF_SIDE, Cameras
from multiview.posed_images import (
    ObjectCube,
    PosedImage,
    PosedImages,
    check_images,
    check_intrinsics,
    check_rotation,
)

TRANSFORMS = "transforms.json"
_TO_OPENCV = np.diag([1.0, -1.0, -1.0])
_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3")
_UNKNOWN_DISTORTION = ("k4", "k5", "k6")
"""Programs do not agree on their meaning."""


def write_transforms(path: Path, names: Sequence[str], cameras: Cameras, image_size: int) -> None:
    """Write the N cameras of images with these names, in the renderer's coordinates."""
    own = [_intrinsics_to_keys(matrix, image_size) for matrix in cameras.intrinsics]
    same = all(keys == own[0] for keys in own)
    frames = [
        {"file_path": name, "transform_matrix": _to_opengl(pose).tolist(), **({} if same else keys)}
        for name, pose, keys in zip(names, cameras.world_to_camera, own, strict=True)
    ]
    cube = {"centre": [0.0, 0.0, 0.0], "side": 2 * OBJECT_HALF_SIDE}
    content = {"camera_model": "PINHOLE", **own[0], "object_cube": cube, "frames": frames}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _intrinsics_to_keys(matrix: np.ndarray, size: int) -> dict[str, float]:
    fx, fy, cx, cy = map(float, matrix[[0, 1, 0, 1], [0, 1, 2, 2]])
    angle = {"camera_angle_x": 2 * math.atan(size / (2 * fx))}
    return {"w": size, "h": size, "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, **angle}


def _to_opengl(pose: np.ndarray) -> np.ndarray:
    """Camera-to-world with OpenGL's axes, (4, 4), of a pose, (3, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = pose[:, :3].T @ _TO_OPENCV
    matrix[:3, 3] = -pose[:, :3].T @ pose[:, 3]
    return matrix


def read_transforms(path: Path) -> PosedImages:
    """Read a transforms.json; the names of the images may lack their suffix.

    Raises:
        ValueError: naming what is missing, of a wrong kind, or not known.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{path}: has no list of frames, expected nerfstudio's transforms.json")
    shared = {key: value for key, value in content.items() if key != "frames"}
    images = [
        _read_frame({**shared, **frame}, f"{path}: frame {number}")
        for number, frame in enumerate(frames)
    ]
    return PosedImages(check_images(path, images), True, _read_cube(path, content))


def _read_cube(path: Path, content: dict[str, Any]) -> ObjectCube | None:
    given = content.get("object_cube")
    if given is None:
        return None
    where = f"{path}: object_cube"
    if not isinstance(given, dict):
        raise ValueError(f"{where} is {given!r}, expected a centre and a side")
    side, centre = _number(given, "side", where), _array(given, "centre", (3,), where)
    if side <= 0:
        raise ValueError(f"{where} has a side of {side:g}, expected a positive one")
    return ObjectCube(centre, side)


def _read_frame(keys: dict[str, Any], where: str) -> PosedImage:
    name = keys.get("file_path")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where} has no file_path")
    where = f"{where} ({name})"
    model = keys.get("camera_model", "PINHOLE")
    if model not in _MODELS or keys.get("is_fisheye"):
        found = "a fisheye lens" if keys.get("is_fisheye") else f"camera_model {model!r}"
        raise ValueError(f"{where} has {found}; undistort the images to pinhole cameras first")
    for key in _UNKNOWN_DISTORTION:
        if _number(keys, key, where, 0.0) != 0:
            raise ValueError(f"{where} has {key}, which is not known; undistort the images first")
    distortion = [_number(keys, key, where, 0.0) for key in _DISTORTION]

    matrix = _array(keys, "transform_matrix", (4, 4), where)
    if not np.allclose(matrix[3], [0, 0, 0, 1]):
        raise ValueError(f"{where}: the last row of transform_matrix is not 0 0 0 1")
    rotation = _TO_OPENCV @ check_rotation(matrix[:3, :3], f"{where}: transform_matrix").T
    pose = np.column_stack([rotation, -rotation @ matrix[:3, 3]])
    size, intrinsics = _read_intrinsics(keys, where)
    return PosedImage(name, size, intrinsics, pose, np.array([*distortion, 0.0, 0.0, 0.0]))


def _read_intrinsics(keys: dict[str, Any], where: str) -> tuple[tuple[int, int] | None, np.ndarray]:
    """Size and intrinsics of a frame, of width 1 where the file has no size."""
    sized = "w" in keys or "h" in keys
    width, height = (_number(keys, key, where) for key in "wh") if sized else (1.0, 1.0)
    if sized and not (width >= 1 and height >= 1 and width % 1 == height % 1 == 0):
        raise ValueError(f"{where} has w {width:g} and h {height:g}, expected whole pixels")
    if not sized and not {"fl_x", "fl_y", "cx", "cy"}.isdisjoint(keys):
        raise ValueError(f"{where} has no w and h, the size in pixels that its fl_x is for")
    focal = {}
    for axis, extent in (("x", width), ("y", height)):
        if f"fl_{axis}" in keys:
            focal[axis] = _number(keys, f"fl_{axis}", where)
        elif f"camera_angle_{axis}" in keys and (sized or axis == "x"):
            angle = _number(keys, f"camera_angle_{axis}", where)
            if not 0 < angle < math.pi:
                expected = "expected radians between 0 and pi"
                raise ValueError(f"{where} has camera_angle_{axis} {angle:g}, {expected}")
            focal[axis] = extent / (2 * math.tan(angle / 2))
    if not focal:
        raise ValueError(f"{where} has no focal length, expected fl_x or camera_angle_x")
    fx, fy = (focal.get(axis, next(iter(focal.values()))) for axis in "xy")
    cx, cy = (
        _number(keys, key, where, extent / 2) for key, extent in (("cx", width), ("cy", height))
    )
    intrinsics = check_intrinsics(fx, fy, cx, cy, (width, height), where)
    return (int(width), int(height)) if sized else None, intrinsics


def _number(keys: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = keys.get(key, default)
    if value is None:
        raise ValueError(f"{where} has no {key}")
    number = float(_array({key: value}, key, (), where))
    if isinstance(value, bool | str):
        raise ValueError(f"{where}: {key} is {value!r}, expected a number")
    return number


def _array(keys: dict[str, Any], key: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    if key not in keys:
        raise ValueError(f"{where} has no {key}")
    try:
        array = np.array(keys[key], dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        array = np.full(shape, np.nan)
    if array.shape != shape or not np.isfinite(array).all():
        expected = f"{' x '.join(map(str, shape))} numbers" if shape else "a number"
        raise ValueError(f"{where}: {key} is {str(keys[key])[:40]!r}, expected {expected}")
    return array
