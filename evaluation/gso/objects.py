"""Objects of an evaluation set: their true views and mesh, checked, with depth maps."""

from __future__ import annotations

import filecmp
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.benchmark.dataset import ObjectFiles
from evaluation.depth import depth_names
from evaluation.ground_truth import TRUE_MESH, write_ground_truth
from evaluation.meshes import gso_rotation, read_mesh, to_render_frame
from multiview.cameras import NUM_VIEWS
from multiview.images import view_names
from multiview.views import read_views_and_alpha

MESH = "model.obj"
MIN_SILHOUETTE_IOU = 0.98
"""Least IoU of the silhouettes of the renders and of the mesh; of eight objects it is 0.9999."""


@dataclass(frozen=True)
class ImportedObject:
    """An object that was copied to the evaluation set.

    Attributes:
        name: of its folder.
        mesh_problem: why it has no mesh and no depth maps, else empty.
        silhouette_iou: of its renders and its mesh; None without a mesh or masks.
    """

    name: str
    mesh_problem: str = ""
    silhouette_iou: float | None = None

    @property
    def warning(self) -> str:
        """What a user must know of the object, else empty."""
        if self.mesh_problem:
            return f"{self.name}: only its views can be evaluated: {self.mesh_problem}"
        if self.silhouette_iou is not None and self.silhouette_iou < MIN_SILHOUETTE_IOU:
            return (
                f"{self.name}: the renders and the mesh do not agree: their silhouettes have an "
                f"IoU of {self.silhouette_iou:.3f}, expected {MIN_SILHOUETTE_IOU} or more; do not "
                f"use the scores of its meshes"
            )
        return ""


def import_object(files: ObjectFiles, folder: Path, device: torch.device) -> ImportedObject:
    """Copy the true views and mesh of an object, and make its depth maps; all or nothing.

    A mesh that cannot be read is left out. An object that was imported before is checked again,
    and nothing is written.

    Raises:
        FileNotFoundError, ValueError: it has no 16 views that can be read.
        FileExistsError: the folder has other files.
    """
    if files.true is None:
        raise FileNotFoundError(f"{files.name}: no views (000.png, ...)")
    images, masks = read_views_and_alpha(files.true)
    mesh, problem = None, "no model.obj"
    if files.true_mesh is not None:
        try:
            mesh, problem = read_mesh(files.true_mesh), ""
        except ValueError as error:
            problem = str(error)
    sources = {name: files.true / name for name in view_names()}
    if mesh is not None and files.true_mesh is not None:
        sources[MESH] = files.true_mesh
    made = [] if mesh is None else [TRUE_MESH, *depth_names(NUM_VIEWS)]

    work = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    if folder.exists():
        _check_same(folder, sources, made)
    work.mkdir(parents=True)
    try:
        for name, source in sources.items():
            shutil.copyfile(source, work / name)
        overlap = None
        if mesh is not None:
            placed = to_render_frame(mesh, gso_rotation(files.name))
            depth = write_ground_truth(placed, work, images.shape[1], device)
            if masks is not None:
                true, rendered = masks >= 0.5, np.isfinite(depth)
                overlap = float((true & rendered).sum() / max((true | rendered).sum(), 1))
        if not folder.exists():
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ImportedObject(files.name, problem, overlap)


def _check_same(folder: Path, sources: dict[str, Path], made: list[str]) -> None:
    """Raise FileExistsError if a folder is not this object as it was imported before."""
    for name, source in sources.items():
        path = folder / name
        if not path.is_file() or not filecmp.cmp(path, source, shallow=False):
            raise FileExistsError(f"{path}: is missing or differs from {source}")
    for name in made:
        if not (folder / name).is_file():
            raise FileExistsError(f"{folder / name}: is missing")
