"""Chamfer distance and normal consistency of visible surfaces, and volume IoU, of two meshes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from common.files import atomic_write
from common.optional import EVALUATION, import_optional
from evaluation.depth import depth_maps, depth_to_points, read_depth_maps
from evaluation.frames import warn_if_other_frame_fits
from evaluation.meshes import (
    read_mesh,
    to_render_frame,
    warn_if_not_normalised,
    warn_if_not_watertight,
)
from multiview.cameras import NUM_VIEWS, REFERENCE_IMAGE_SIZE, orbit_cameras

if TYPE_CHECKING:
    from trimesh import Trimesh

log = logging.getLogger(__name__)

VOXEL_SIZE = 0.01
"""Side of the voxels in which the points of a surface are averaged."""
NORMAL_SAMPLES = 100_000
"""Random points of a mesh that give its visible points their normals."""
GRID_SIZE = 64
"""Samples along a side of the cube [-1, 1]^3 at which volumes are compared."""
MIN_SILHOUETTE_IOU = 0.9
"""Least expected IoU of the silhouettes of the true mesh and of its depth maps."""

REQUIRED_PACKAGES = (("mesh2sdf", "the IoU", EVALUATION), ("scipy.spatial", "the Chamfer distance"))


@dataclass(frozen=True)
class MeshScores:
    """Scores of a predicted mesh, see `chamfer`, `volume_iou` and `normal_consistency`."""

    chamfer: float
    iou: float
    normals: float
    points: np.ndarray  # on the visible surface, (P, 3)
    true_points: np.ndarray


def evaluate_mesh(
    predicted: Path, true: Path, true_depth: Path, rotation_deg: float, device: torch.device
) -> MeshScores:
    """Compare a reconstructed mesh with the true mesh by the paper's protocol.

    `predicted` is in the frame of the views, `true` in its original one: the object was rendered
    with this rotation about z. `true_depth` is the folder of the true depth maps; if it has none,
    they are rendered from `true`. The true mesh can be its own prediction: both are turned then.

    Raises:
        FileNotFoundError, ValueError, ImportError: see `read_mesh`, `read_depth_maps`,
            `depth_maps` and `volume_iou`.
    """
    for package in REQUIRED_PACKAGES:
        import_optional(*package)
    true_mesh = read_mesh(true)
    warn_if_not_watertight(true, true_mesh)
    true_mesh = to_render_frame(true_mesh, rotation_deg)
    mesh = true_mesh if predicted == true else read_mesh(predicted)
    if predicted != true:
        warn_if_not_normalised(predicted, mesh)
        warn_if_not_watertight(predicted, mesh)
    points = visible_points(mesh, device)
    if not len(points):
        raise ValueError(f"{predicted}: the mesh is not visible in any of the {NUM_VIEWS} views")
    true_points = true_visible_points(true_mesh, true_depth, device)
    warn_if_other_frame_fits(predicted, points, true_points)
    iou = volume_iou(mesh, true_mesh)
    normals = normal_consistency(mesh, points, true_mesh, true_points)
    return MeshScores(chamfer(points, true_points), iou, normals, points, true_points)


def visible_points(mesh: Trimesh, device: torch.device) -> np.ndarray:
    """Sample what is visible in the 16 views of 256 x 256 pixels, (P, 3); P may be 0."""
    cameras = orbit_cameras(NUM_VIEWS)
    depth = depth_maps(mesh, cameras, REFERENCE_IMAGE_SIZE, device)
    return voxel_down_sample(depth_to_points(depth, np.isfinite(depth), cameras), VOXEL_SIZE)


def true_visible_points(true_mesh: Trimesh, folder: Path, device: torch.device) -> np.ndarray:
    """Sample the visible true surface, (P, 3), from a folder's depth maps; without any, the mesh's.

    Raises:
        ValueError: the depth maps contain only background; see also `read_depth_maps`.
    """
    depth = read_depth_maps(folder, NUM_VIEWS)
    if depth is None:
        log.info("%s has no depth maps: rendering them from the true mesh", folder)
        return visible_points(true_mesh, device)
    size = depth.shape[1]
    cameras = orbit_cameras(NUM_VIEWS, image_size=size)
    visible = np.isfinite(depth)
    if not visible.any():
        raise ValueError(f"{folder}: the depth maps contain only background")
    overlap = _iou(visible, np.isfinite(depth_maps(true_mesh, cameras, size, device)))
    if overlap < MIN_SILHOUETTE_IOU:
        log.warning(
            "the true mesh and its depth maps in %s do not agree: their silhouettes have an IoU of "
            "%.2f; probably the object was rendered with another rotation",
            folder,
            overlap,
        )
    return voxel_down_sample(depth_to_points(depth, visible, cameras), VOXEL_SIZE)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def voxel_down_sample(points: np.ndarray, voxel: float) -> np.ndarray:
    """Average the points in each voxel of a grid that starts half a voxel below their minimum.

    Compat: equals Open3D's, which computed the paper's numbers, up to the order of the points.
    """
    if not len(points):
        return points
    cells = np.floor((points - (points.min(axis=0) - voxel / 2)) / voxel).astype(np.int64)
    sides = cells.max(axis=0) + 1
    keys = (cells[:, 0] * sides[1] + cells[:, 1]) * sides[2] + cells[:, 2]
    _, voxel_of, count = np.unique(keys, return_inverse=True, return_counts=True)
    sums = [np.bincount(voxel_of.reshape(-1), weights=axis) for axis in points.T]
    return np.stack(sums, axis=-1) / count[:, None]


def chamfer(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of the two mean nearest-neighbour distances, not squared, of (P, 3) and (Q, 3)."""
    tree = import_optional(*REQUIRED_PACKAGES[1]).cKDTree
    to_b, _ = tree(b).query(a)
    to_a, _ = tree(a).query(b)
    return float((to_b.mean() + to_a.mean()) / 2)


def normal_consistency(a: Trimesh, a_points: np.ndarray, b: Trimesh, b_points: np.ndarray) -> float:
    """Mean |cosine| of the normals at nearest points of two meshes, the mean of both directions.

    Points (P, 3) and (Q, 3) are on or near their mesh; each has the normal of the nearest of
    `NORMAL_SAMPLES` random points of it. As in occupancy networks (Mescheder et al. 2019), but on
    given, visible points. 1 is the best; surfaces in random directions have 0.5.
    """
    trimesh = import_optional("trimesh", "reading meshes")
    tree = import_optional(*REQUIRED_PACKAGES[1]).cKDTree
    normals = []
    for mesh, points in ((a, a_points), (b, b_points)):
        on_mesh, face = trimesh.sample.sample_surface(mesh, NORMAL_SAMPLES, seed=0)
        normals.append(mesh.face_normals[face][tree(on_mesh).query(points)[1]])
    _, nearest_b = tree(b_points).query(a_points)
    _, nearest_a = tree(a_points).query(b_points)
    cosines = [
        (normals[0] * normals[1][nearest_b]).sum(1),
        (normals[1] * normals[0][nearest_a]).sum(1),
    ]
    return float(np.mean([np.abs(each).mean() for each in cosines]))


def volume_iou(a: Trimesh, b: Trimesh) -> float:
    """Intersection over union of two closed surfaces' volumes; 0 if both are empty."""
    return _iou(inside(a), inside(b))


def inside(mesh: Trimesh) -> np.ndarray:
    """Sample a mesh's occupancy in [-1, 1]^3, at -1 + 2 i / 64 (mesh2sdf): bool, (64, 64, 64)."""
    mesh2sdf = import_optional(*REQUIRED_PACKAGES[0])
    distance = mesh2sdf.compute(np.asarray(mesh.vertices), np.asarray(mesh.faces), GRID_SIZE)
    return np.asarray(distance < 0)


def write_points(path: Path, points: np.ndarray) -> None:
    """Write points (P, 3) as a PLY point cloud."""
    cloud = import_optional("trimesh", "writing points").PointCloud(points)
    with atomic_write(path) as temporary:
        cloud.export(temporary, file_type="ply")
