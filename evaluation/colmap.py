"""How many 3D points COLMAP finds in the 16 views: a measure of their consistency (paper Sec. 4.1).

SIFT features, exhaustive matching and triangulation with the known cameras give the sparse points;
where there is CUDA, patch-match stereo and fusion follow, and the fused points are what the paper
counts.
"""

from __future__ import annotations

import re
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.files import check_free_space, file_lock
from evaluation.colmap_engines import Engine, Workspace
from multiview.cameras import Cameras, orbit_cameras
from multiview.images import view_names

Form = Literal["sparse", "dense"]
Mode = Literal["auto", "sparse", "dense"]

MANIFEST = "made_by_eval_colmap.txt"
UNFINISHED = "unfinished"
"""The manifest of a run that goes on, or was killed: all under `OWN_NAMES` is its own."""
OWN_NAMES = ("images", "poses", "sparse", "dense", "database.db", "colmap.log")
DATABASE_BYTES = 2**25
"""About the size of the database of 16 views full of features."""


@dataclass(frozen=True)
class Points:
    """The points that COLMAP reconstructed.

    Attributes:
        count: how many.
        form: "sparse" (triangulated features) or "dense" (fused depth maps, the paper's).
    """

    count: int
    form: Form


def choose_form(mode: Mode, engine: Engine) -> Form:
    """Find out which points to count; "auto" is dense where that is possible.

    Raises:
        ValueError: dense points are asked for and there is no CUDA.
    """
    if mode == "sparse":
        return "sparse"
    problem = _without_cuda(engine)
    if problem and mode == "dense":
        raise ValueError(
            f"dense points need CUDA: {problem}; use --mode sparse, or a COLMAP with CUDA (the "
            f"package pycolmap-cuda12 in place of pycolmap, or a program for --colmap)"
        )
    return "sparse" if problem else "dense"


def _without_cuda(engine: Engine) -> str | None:
    if not engine.has_cuda:
        return f"{engine.name} was built without it"
    import torch

    return None if torch.cuda.is_available() else "this machine has no CUDA device"


def count_points(views: np.ndarray, project: Path, engine: Engine, form: Form) -> Points:
    """Reconstruct an object from its views with the known cameras, and count the points.

    Args:
        views: the views of `orbit_cameras`, RGB in [0, 1], (N, S, S, 3).
        project: folder for COLMAP's files, see `project_folder`.
        engine: what runs COLMAP.
        form: "sparse" or "dense".

    Returns:
        the number of points; 0 where nothing matches or nothing can be triangulated.

    Raises:
        ValueError: `views` has another shape.
        RuntimeError: COLMAP fails.
        OSError: the folder cannot be written, or its disk is full.
    """
    if views.ndim != 4 or views.shape[1] != views.shape[2] or views.shape[3] != 3:
        raise ValueError(f"expected square RGB views, (N, S, S, 3), got {views.shape}")
    work = Workspace(project)
    floats_of_maps = 16 if form == "dense" else 0  # depth and normals, before and after the check
    check_free_space(project, DATABASE_BYTES + views[..., 0].size * (3 + 4 * floats_of_maps))
    steps = 3 if form == "sparse" else 6
    with tqdm(desc="COLMAP", total=steps, disable=None, leave=False) as bar:
        count = _sparse_points(work, views, engine, bar.update)
        if form == "dense" and count:
            count = _dense_points(work, engine, bar.update)
    return Points(count, form)


def _sparse_points(
    work: Workspace, views: np.ndarray, engine: Engine, done: Callable[[], object]
) -> int:
    cameras = orbit_cameras(num_views=len(views), image_size=views.shape[1])
    names = view_names(len(views))
    write_images(work.images, names, views)
    engine.extract(work, ",".join(_pinhole(cameras.intrinsics[0])))
    done()
    ids = _image_ids(work, names, engine)
    if not _are_filled(work, "keypoints", engine):  # pycolmap 3.12 would end the whole process
        return 0
    engine.match(work)
    done()
    if not _are_filled(work, "two_view_geometries", engine):
        return 0
    write_poses(work.poses, names, ids, cameras, views.shape[1])
    engine.triangulate(work)
    done()
    return _count_in_model(work.sparse, engine)


def _dense_points(work: Workspace, engine: Engine, done: Callable[[], object]) -> int:
    for step in (engine.undistort, engine.stereo, engine.fuse):
        step(work)
        done()
    return _count_in_ply(work.fused, engine)


def write_images(folder: Path, names: Sequence[str], views: np.ndarray) -> None:
    """Write views in [0, 1], (N, S, S, 3), as PNG files of 8 bits."""
    folder.mkdir(exist_ok=True)
    levels = np.round(np.clip(views, 0, 1) * 255).astype(np.uint8)
    for name, view in zip(names, levels, strict=True):
        Image.fromarray(view).save(folder / name)


def _pinhole(intrinsics: np.ndarray) -> list[str]:
    """COLMAP's PINHOLE parameters fx, fy, cx, cy of K, (3, 3).

    COLMAP's first pixel has its centre at (0.5, 0.5), as K with its principal point at half the
    image size means it.
    """
    values = intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
    return [repr(float(value)) for value in values]


def write_poses(
    folder: Path,
    names: Sequence[str],
    ids: Mapping[str, tuple[int, int]],
    cameras: Cameras,
    image_size: int,
) -> None:
    """Write the known cameras as COLMAP's text model without points.

    Args:
        folder: gets cameras.txt, images.txt and points3D.txt.
        names: of the images, N.
        ids: name -> image id and camera id in COLMAP's database.
        cameras: N cameras.
        image_size: pixels a side.
    """
    folder.mkdir(exist_ok=True)
    camera_lines, image_lines = [], []
    for index, name in enumerate(names):
        image_id, camera_id = ids[name]
        pose = cameras.world_to_camera[index]
        numbers = [repr(float(x)) for x in (*quaternion(pose[:, :3]), *pose[:, 3])]
        pinhole = " ".join(_pinhole(cameras.intrinsics[index]))
        camera_lines.append(f"{camera_id} PINHOLE {image_size} {image_size} {pinhole}\n")
        image_lines.append(f"{image_id} {' '.join(numbers)} {camera_id} {name}\n\n")
    (folder / "cameras.txt").write_text("".join(camera_lines), encoding="utf-8")
    (folder / "images.txt").write_text("".join(image_lines), encoding="utf-8")
    (folder / "points3D.txt").write_text("", encoding="utf-8")


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (3, 3).

    It is the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000),
    which is well conditioned for every rotation.
    """
    xx, yy, zz = np.diag(rotation)
    antisymmetric = rotation - rotation.T
    vector = np.array([antisymmetric[2, 1], antisymmetric[0, 2], antisymmetric[1, 0]])
    matrix = np.zeros((4, 4))
    matrix[0, 0] = xx + yy + zz
    matrix[0, 1:] = matrix[1:, 0] = vector
    matrix[1:, 1:] = rotation + rotation.T - np.eye(3) * (xx + yy + zz)
    _, vectors = np.linalg.eigh(matrix)
    largest = vectors[:, -1]
    return largest if largest[0] >= 0 else -largest


def _query(path: Path, engine: Engine, question: str) -> list[Any]:
    """The rows with which COLMAP's database answers."""
    if not path.is_file():
        raise RuntimeError(f"{engine.name}: wrote no database {path.name}")
    connection = sqlite3.connect(path)
    try:
        return connection.execute(question).fetchall()
    except sqlite3.Error as error:
        raise RuntimeError(
            f"{engine.name}: wrote a database that cannot be read ({error})"
        ) from error
    finally:
        connection.close()


def _image_ids(work: Workspace, names: Sequence[str], engine: Engine) -> dict[str, tuple[int, int]]:
    """Image and camera id of each image in the database."""
    rows = _query(work.database, engine, "SELECT name, image_id, camera_id FROM images")
    ids = {name: (image_id, camera_id) for name, image_id, camera_id in rows}
    lost = [name for name in names if name not in ids]
    if lost:
        raise RuntimeError(f"{engine.name}: did not read the views {', '.join(lost)}")
    return ids


def _are_filled(
    work: Workspace, table: Literal["keypoints", "two_view_geometries"], engine: Engine
) -> bool:
    """Whether any view has features, or any pair of views verified matches."""
    return bool(_query(work.database, engine, f"SELECT 1 FROM {table} WHERE rows > 0 LIMIT 1"))


def _count_in_model(folder: Path, engine: Engine) -> int:
    """Number of points in a binary model: the first 8 bytes of points3D.bin."""
    path = folder / "points3D.bin"
    head = path.read_bytes()[:8] if path.is_file() else b""
    if len(head) < 8:
        raise RuntimeError(f"{engine.name}: triangulated, but wrote no {path.name}")
    (count,) = struct.unpack("<Q", head)
    return int(count)


def _count_in_ply(path: Path, engine: Engine) -> int:
    """Number of points that the header of a PLY file tells."""
    head = path.read_bytes()[:4096] if path.is_file() else b""
    found = re.search(rb"element vertex (\d+)", head)
    if not found:
        raise RuntimeError(f"{engine.name}: fused the depth maps, but wrote no {path.name}")
    return int(found[1])


@contextmanager
def project_folder(path: Path | None) -> Iterator[Path]:
    """Yield a folder for COLMAP's files, free of those that a former run made there.

    Args:
        path: is made where it does not exist, and stays; None for a folder that is removed.

    Raises:
        FileExistsError: the folder has files that no former run made under the names that
            COLMAP's files will have; nothing is removed then.
        OSError: the folder cannot be made or written.
    """
    if path is None:
        with tempfile.TemporaryDirectory(prefix="eval_colmap-") as temporary:
            yield Path(temporary)
        return
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path, wait=False):
        _remove_former_run(path)
        path.mkdir(exist_ok=True)
        (path / MANIFEST).write_text(f"{UNFINISHED}\n", encoding="utf-8")
        try:
            yield path
        finally:
            (path / MANIFEST).write_text("\n".join(_own_files(path)) + "\n", encoding="utf-8")


def _own_files(folder: Path) -> list[str]:
    """All that is under our names, relative to the folder: files, and links of any kind."""
    tops = [folder / name for name in OWN_NAMES]
    below = [
        path for top in tops if top.is_dir() and not top.is_symlink() for path in top.rglob("*")
    ]
    return sorted(
        path.relative_to(folder).as_posix()
        for path in (*tops, *below)
        if path.is_symlink() or (path.exists() and not path.is_dir())
    )


def _remove_former_run(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: --project must be a folder, this is a file")
    manifest = folder / MANIFEST
    made = manifest.read_text(encoding="utf-8").splitlines() if manifest.is_file() else []
    found = _own_files(folder)
    foreign = [] if made == [UNFINISHED] else [name for name in found if name not in made]
    if foreign:
        raise FileExistsError(
            f"{folder}: has files that are not of a former run that {MANIFEST} tells of "
            f"({len(foreign)}, such as {foreign[0]}); choose another --project, or remove them"
        )
    for name in found:
        (folder / name).unlink()
