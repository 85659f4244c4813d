"""COLMAP's sparse models: the cameras of images as text or binary files.

Poses are world-to-camera with OpenCV's axes; which way is up is not known. 3D points are not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.files import atomic_write, read_text
from multiview.cameras import OBJECT_HALF_SIDE, Cameras
from multiview.posed_images import (
    ObjectCube,
    PosedImage,
    PosedImages,
    check_images,
    check_intrinsics,
)

MODEL = Path("sparse", "0")
"""Where COLMAP keeps its first model beside the images."""
MODEL_FILES = ("cameras.txt", "images.txt", "points3D.txt")
_OWN_CUBE = f"# object_cube 0 0 0 {2 * OBJECT_HALF_SIDE!r}"
"""Comment of our own models: the world is the renderer's, with z up; see `ObjectCube`."""
_MODELS = {
    "SIMPLE_PINHOLE": (0, "f cx cy"),
    "PINHOLE": (1, "fx fy cx cy"),
    "SIMPLE_RADIAL": (2, "f cx cy k1"),
    "RADIAL": (3, "f cx cy k1 k2"),
    "OPENCV": (4, "fx fy cx cy k1 k2 p1 p2"),
    "OPENCV_FISHEYE": (5, "fx fy cx cy k1 k2 k3 k4"),
    "FULL_OPENCV": (6, "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
}
"""Number in binary files and parameters of the camera models."""
_DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")


class _Camera(NamedTuple):
    """Size, intrinsics and distortion of a camera, see `PosedImage`."""

    size: tuple[int, int]
    intrinsics: np.ndarray
    distortion: np.ndarray


class _Image(NamedTuple):
    """Quaternion (w, x, y, z) and translation of an image, and the number of its camera."""

    pose: tuple[float, ...]
    camera: int
    name: str


def write_colmap(
    folder: Path,
    names: Sequence[str],
    cameras: Cameras,
    image_size: int,
    ids: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Write the N cameras of images with these names as a text model without points.

    `ids` has an image id and a camera id for each name; by default they are counted from 1. The
    cameras are in the renderer's coordinates.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = ids or {name: (number, number) for number, name in enumerate(names, start=1)}
    camera_lines, image_lines = [f"{_OWN_CUBE}\n"], []
    for index, name in enumerate(names):
        image_id, camera_id = ids[name]
        pose = cameras.world_to_camera[index]
        numbers = [repr(float(x)) for x in (*quaternion(pose[:, :3]), *pose[:, 3])]
        parameters = " ".join(pinhole(cameras.intrinsics[index]))
        camera_lines.append(f"{camera_id} PINHOLE {image_size} {image_size} {parameters}\n")
        image_lines.append(f"{image_id} {' '.join(numbers)} {camera_id} {name}\n\n")
    for name, lines in zip(MODEL_FILES, (camera_lines, image_lines, []), strict=True):
        with atomic_write(folder / name) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def pinhole(intrinsics: np.ndarray) -> list[str]:
    """COLMAP's PINHOLE parameters fx, fy, cx, cy of an intrinsic matrix (3, 3)."""
    return [repr(float(value)) for value in intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]]


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (3, 3)."""
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(rotation).as_quat(canonical=True), 1)


def model_folder(path: Path) -> Path | None:
    """The folder of a model: `path`, `path`/0 or `path`/sparse/0, or None if there is none."""
    for folder in (path, path / MODEL.name, path / MODEL):
        if any((folder / f"images.{kind}").is_file() for kind in ("bin", "txt")):
            return folder
    return None


def read_colmap(folder: Path) -> PosedImages:
    """Read cameras and images of a binary model, or else a text model.

    Raises:
        FileNotFoundError: there is no model, or half of one.
        ValueError: naming the file and what in it is damaged, or not known.
    """
    suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
    files = [folder / f"{name}{suffix}" for name in ("cameras", "images")]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a model has it beside the other one")
    if suffix == ".bin":
        cameras, images = _read_binary_cameras(files[0]), _read_binary_images(files[1])
        cube = None
    else:
        text = read_text(files[0])
        cameras, images = _read_text_cameras(files[0], text), _read_text_images(files[1])
        cube = ObjectCube(np.zeros(3), 2 * OBJECT_HALF_SIDE) if _OWN_CUBE in text else None
    posed = [_posed(files[1], image, cameras) for image in images]
    return PosedImages(check_images(files[1], posed), cube is not None, cube)


def _posed(path: Path, image: _Image, cameras: Mapping[int, _Camera]) -> PosedImage:
    from scipy.spatial.transform import Rotation

    where = f"{path}: image {image.name!r}"
    if image.camera not in cameras:
        lacks = f"which cameras{path.suffix} lacks"
        raise ValueError(f"{where} is of camera {image.camera}, {lacks}")
    possible = np.isfinite(image.pose).all() and np.abs(image.pose[:4]).max() < 2
    if not possible or abs(np.linalg.norm(image.pose[:4]) - 1) > 1e-3:
        raise ValueError(f"{where} has no unit quaternion and translation")
    w, x, y, z, *translation = image.pose
    pose = np.column_stack([Rotation.from_quat([x, y, z, w]).as_matrix(), translation])
    camera = cameras[image.camera]
    return PosedImage(image.name, camera.size, camera.intrinsics, pose, camera.distortion)


def _check_model(path: Path, number: int, model: str) -> list[str]:
    """Names of a camera model's parameters, or ValueError."""
    if model == "OPENCV_FISHEYE":
        advice = "run colmap image_undistorter first"
        raise ValueError(f"{path}: camera {number} is of model {model}; {advice}")
    if model not in _MODELS:
        known = ", ".join(name for name in _MODELS if name != "OPENCV_FISHEYE")
        raise ValueError(f"{path}: camera {number} is of model {model}, expected one of {known}")
    return _MODELS[model][1].split()


def _camera(
    path: Path, number: int, names: list[str], size: tuple[int, int], given: tuple[float, ...]
) -> _Camera:
    where = f"{path}: camera {number}"
    if len(given) != len(names):
        raise ValueError(f"{where} has {len(given)} parameters, expected {' '.join(names)}")
    if min(size) < 1:
        raise ValueError(f"{where} has {size[0]} x {size[1]} pixels")
    values = dict(zip(names, given, strict=True))
    fx, fy = (values.get(key, values.get("f", 0.0)) for key in ("fx", "fy"))
    intrinsics = check_intrinsics(fx, fy, values["cx"], values["cy"], size, where)
    distortion = np.array([values.get(key, 0.0) for key in _DISTORTION])
    if not np.isfinite(distortion).all():
        raise ValueError(f"{where} has a distortion that is not finite")
    return _Camera(size, intrinsics, distortion)


def _read_text_cameras(path: Path, text: str) -> dict[int, _Camera]:
    cameras = {}
    for row, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            number, model = int(words[0]), words[1]
            size, parameters = (int(words[2]), int(words[3])), tuple(map(float, words[4:]))
        except (ValueError, IndexError) as error:
            expected = "expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS"
            raise ValueError(f"{path}: line {row} is {line.strip()[:60]!r}, {expected}") from error
        cameras[number] = _camera(path, number, _check_model(path, number, model), size, parameters)
    return cameras


def _read_text_images(path: Path) -> Iterator[_Image]:
    """Yield the images; each has a second line, of its 2D points, which may be empty."""
    lines = iter(enumerate(read_text(path).splitlines(), start=1))
    for row, line in lines:
        words = line.split(maxsplit=9)
        if not words or words[0].startswith("#"):
            continue
        try:
            int(words[0])
            pose, camera, name = tuple(map(float, words[1:8])), int(words[8]), words[9].strip()
        except (ValueError, IndexError) as error:
            expected = "expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise ValueError(f"{path}: line {row} is {line.strip()[:60]!r}, {expected}") from error
        yield _Image(pose, camera, name)
        next(lines, None)


class _Bytes:
    """The content of a binary file, read in order."""

    def __init__(self, path: Path) -> None:
        self.path, self.content, self.at = path, path.read_bytes(), 0

    def take(self, form: str) -> tuple[float, ...]:
        """Read little-endian numbers, see `struct`."""
        form = f"<{form}"
        self.skip(struct.calcsize(form))
        return struct.unpack_from(form, self.content, self.at - struct.calcsize(form))

    def skip(self, size: int) -> None:
        """Go on by some bytes, which must be there."""
        self.at += size
        if self.at > len(self.content):
            raise ValueError(f"{self.path}: is cut off at {len(self.content)} bytes")

    def text(self) -> str:
        """Read text that a zero byte ends."""
        end = self.content.find(b"\0", self.at)
        raw = self.content[self.at : max(end, self.at)]
        self.skip(len(raw) + 1)
        return raw.decode("utf-8", errors="replace")

    def check_end(self) -> None:
        """Raise ValueError if anything is left."""
        left = len(self.content) - self.at
        if left:
            raise ValueError(f"{self.path}: {left} bytes follow its content: not COLMAP's, or cut")


def _read_binary_cameras(path: Path) -> dict[int, _Camera]:
    content, cameras = _Bytes(path), {}
    names = {number: name for name, (number, _) in _MODELS.items()}
    for _ in range(int(content.take("Q")[0])):
        number, model, *size = map(int, content.take("iiQQ"))
        parameters = _check_model(path, number, names.get(model, f"number {model}"))
        values = content.take(f"{len(parameters)}d")
        cameras[number] = _camera(path, number, parameters, (size[0], size[1]), values)
    content.check_end()
    return cameras


def _read_binary_images(path: Path) -> Iterator[_Image]:
    content = _Bytes(path)
    for _ in range(int(content.take("Q")[0])):
        _, *pose, camera = content.take("i7di")
        name = content.text()
        content.skip(24 * int(content.take("Q")[0]))  # of 2D points
        yield _Image(tuple(pose), int(camera), name)
    content.check_end()
