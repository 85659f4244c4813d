"""Number of 3D points that COLMAP reconstructs from the 16 views (paper Sec. 4.1).

It measures the consistency of the views. SIFT features, exhaustive matching and triangulation with
the known cameras give the sparse points. With CUDA, patch-match stereo and fusion follow, which
give the dense points that the paper counts.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.files import check_free_space
from evaluation.colmap.engine import Engine, Workspace
from multiview.cameras import orbit_cameras
from multiview.colmap_model import pinhole, write_colmap
from multiview.images import view_names

PointsForm = Literal["sparse", "dense"]
"""Triangulated features, or fused depth maps (the paper's)."""
Mode = Literal["auto", "sparse", "dense"]

DATABASE_BYTES = 2**25
"""Approximate size of COLMAP's database for 16 views with many features."""


@dataclass(frozen=True)
class Points:
    """Number of points that COLMAP reconstructed, and their form."""

    count: int
    form: PointsForm


def choose_points_form(mode: Mode, engine: Engine) -> PointsForm:
    """Resolve "auto" to dense points if CUDA is there; ValueError for "dense" if it is not."""
    if mode == "sparse":
        return "sparse"
    import torch

    problem = "" if torch.cuda.is_available() else "this machine has no CUDA device"
    if not engine.has_cuda:
        problem = f"{engine.name} was built without CUDA"
    if problem and mode == "dense":
        raise ValueError(f"dense points need CUDA: {problem}")
    return "sparse" if problem else "dense"


def count_points(views: np.ndarray, project: Path, engine: Engine, form: PointsForm) -> Points:
    """Reconstruct an object from the views of `orbit_cameras` and count the points, maybe 0.

    Views are RGB in [0, 1], (N, S, S, 3); `project` is the folder of COLMAP's files, see
    `project_folder`.

    Raises:
        ValueError: `views` has another shape.
        RuntimeError: COLMAP fails.
        OSError: the folder is not writable, or its disk is full.
    """
    if views.ndim != 4 or views.shape[1] != views.shape[2] or views.shape[3] != 3:
        raise ValueError(f"expected square RGB views, (N, S, S, 3), got {views.shape}")
    work = Workspace(project)
    # dense: at most the depth and normal maps before and after the consistency check
    floats_per_pixel = 16 if form == "dense" else 0
    check_free_space(project, DATABASE_BYTES + views[..., 0].size * (3 + 4 * floats_per_pixel))
    steps = 3 if form == "sparse" else 6
    with tqdm(desc="COLMAP", total=steps, disable=None, leave=False) as bar:
        count = _sparse_points(work, views, engine, bar.update)
        if form == "dense" and count:
            count = _dense_points(work, engine, bar.update)
    return Points(count, form)


def _sparse_points(
    work: Workspace, views: np.ndarray, engine: Engine, on_step: Callable[[], object]
) -> int:
    cameras = orbit_cameras(num_views=len(views), image_size=views.shape[1])
    names = view_names(len(views))
    work.images.mkdir(exist_ok=True)
    levels = np.round(np.clip(views, 0, 1) * 255).astype(np.uint8)
    for name, view in zip(names, levels, strict=True):
        Image.fromarray(view).save(work.images / name)
    engine.extract(work, ",".join(pinhole(cameras.intrinsics[0])))
    on_step()
    ids = _image_ids(work, names, engine)
    if not _has_rows(work, "keypoints", engine):
        return 0
    engine.match(work)
    on_step()
    if not _has_rows(work, "two_view_geometries", engine):
        return 0
    write_colmap(work.poses, names, cameras, views.shape[1], ids)
    engine.triangulate(work)
    on_step()
    return _count_in_model(work.sparse, engine)


def _dense_points(work: Workspace, engine: Engine, on_step: Callable[[], object]) -> int:
    for step in (engine.undistort, engine.stereo, engine.fuse):
        step(work)
        on_step()
    return _count_in_ply(work.fused, engine)


def _query(path: Path, engine: Engine, sql: str) -> list[Any]:
    """The rows that a query of COLMAP's database returns."""
    if not path.is_file():
        raise RuntimeError(f"{engine.name} wrote no database {path.name}")
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        problem = f"{engine.name} wrote a database that cannot be read ({error})"
        raise RuntimeError(problem) from error
    finally:
        connection.close()


def _image_ids(work: Workspace, names: Sequence[str], engine: Engine) -> dict[str, tuple[int, int]]:
    """Image id and camera id of each image in COLMAP's database."""
    rows = _query(work.database, engine, "SELECT name, image_id, camera_id FROM images")
    ids = {name: (image_id, camera_id) for name, image_id, camera_id in rows}
    missing = [name for name in names if name not in ids]
    if missing:
        raise RuntimeError(f"{engine.name} did not read the views {', '.join(missing)}")
    return ids


def _has_rows(work: Workspace, table: str, engine: Engine) -> bool:
    """Whether any view has features ("keypoints"), or any pair matches ("two_view_geometries")."""
    return bool(_query(work.database, engine, f"SELECT 1 FROM {table} WHERE rows > 0 LIMIT 1"))


def _count_in_model(folder: Path, engine: Engine) -> int:
    """Number of points in a binary model, the first 8 bytes of points3D.bin."""
    path = folder / "points3D.bin"
    head = path.read_bytes()[:8] if path.is_file() else b""
    if len(head) < 8:
        raise RuntimeError(f"{engine.name} triangulated, but wrote no {path.name}")
    return int.from_bytes(head, "little")


def _count_in_ply(path: Path, engine: Engine) -> int:
    """Number of points according to the header of a PLY file."""
    head = path.read_bytes()[:4096] if path.is_file() else b""
    found = re.search(rb"element vertex (\d+)", head)
    if not found:
        raise RuntimeError(f"{engine.name} fused the depth maps, but wrote no {path.name}")
    return int(found[1])
