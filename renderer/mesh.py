"""Triangle meshes: extraction from signed distances, cleaning, simplification.

In closed meshes every edge belongs to exactly two faces, even if vertices at equal positions are
merged.
"""

from __future__ import annotations

import logging
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from common.files import atomic_write
from common.optional import import_optional
from renderer.hygiene import without_debris

if TYPE_CHECKING:
    from trimesh import Trimesh

log = logging.getLogger(__name__)


TAUBIN_FACTORS = (0.5, -0.53)
"""Shares of the way to the neighbours' mean; bends longer than about 15 edges stay."""


def extract(sdf: np.ndarray, first: float, spacing: float) -> Trimesh:
    """Extract a closed mesh, with outward faces, of the zero level set by marching cubes.

    Distances (V, V, V) are negative inside, indexed x, y, z; `first` is the coordinate of index 0
    on all axes. Everything beyond the samples is outside.

    Raises:
        ValueError: the distances are not finite, or negative nowhere.
    """
    trimesh = import_optional("trimesh", "making meshes")
    measure = import_optional("skimage.measure", "making meshes")
    if not np.isfinite(sdf).all():
        raise ValueError("the signed distances contain nan or infinite numbers")
    if not (sdf < 0).any():
        raise ValueError("the signed distance is negative nowhere: there is no surface")
    padded = np.pad(sdf.astype(np.float32), 1, constant_values=spacing)
    # Samples on the surface would give coincident vertices, and faces without area.
    closest = np.float32(1e-3 * spacing)
    padded = np.where(np.abs(padded) < closest, np.where(padded < 0, -closest, closest), padded)
    vertices, faces, _, _ = measure.marching_cubes(padded, 0.0)
    vertices = (vertices.astype(np.float64) - 1) * spacing + first
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.volume > 0, "marching cubes turned the faces inwards"
    return mesh


def remove_floaters(mesh: Trimesh, share: float = 0.01) -> Trimesh:
    """Remove connected pieces below a share of the largest volume, cavities, and inner pieces.

    The mesh consists of closed pieces with outward faces.

    Raises:
        ValueError: no piece encloses a positive volume.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges, count = mesh.edges, len(mesh.vertices)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, piece_of_vertex = connected_components(graph, directed=False)
    piece = piece_of_vertex[mesh.faces[:, 0]]
    corners = mesh.triangles.view(np.ndarray)
    signed = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    volumes = np.bincount(piece, weights=signed)
    if not volumes.max() > 0:
        raise ValueError("no part of the mesh encloses a positive volume")
    kept: list[int] = []
    for candidate in np.argsort(-volumes):
        if volumes[candidate] < share * volumes.max():
            break
        inner_point = corners[piece == candidate][0, 0]
        if not any(_encloses(corners[piece == other], inner_point) for other in kept):
            kept.append(candidate)
    part = mesh.copy()
    part.update_faces(np.isin(piece, kept))
    part.remove_unreferenced_vertices()
    return part


def _encloses(corners: np.ndarray, point: np.ndarray) -> bool:
    """Whether the winding number of a closed surface, triangles (F, 3, 3), at a point is not 0."""
    a, b, c = np.moveaxis(corners - point, 1, 0)
    la, lb, lc = (np.linalg.norm(side, axis=1) for side in (a, b, c))
    triple = np.einsum("fi,fi->f", a, np.cross(b, c))
    ab, bc, ca = ((x * y).sum(axis=1) for x, y in ((a, b), (b, c), (c, a)))
    solid_angle = 2 * np.arctan2(triple, la * lb * lc + ab * lc + bc * la + ca * lb)
    return bool(abs(solid_angle.sum()) > 2 * np.pi)


def smooth(mesh: Trimesh, reach: float, rounds: int = 20) -> Trimesh:
    """Smooth a mesh without shrinking it (Taubin 1995); vertices move by at most `reach`.

    Each round moves the vertices towards the mean of their neighbours, and then a little further
    back. The limit keeps thin parts and silhouettes. Faces keep their corners.
    """
    from scipy.sparse import coo_array, diags_array

    trimesh = import_optional("trimesh", "making meshes")
    start, count = np.asarray(mesh.vertices), len(mesh.vertices)
    pairs = np.concatenate([mesh.edges_unique, mesh.edges_unique[:, ::-1]])
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    mean = (diags_array(1 / graph.sum(axis=1).clip(1)) @ graph).tocsr()
    points = start
    for factor in TAUBIN_FACTORS * rounds:
        points = points + factor * (mean @ points - points)
    moved = points - start
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    kept = np.minimum(1.0, reach / length.clip(1e-12))
    return trimesh.Trimesh(start + moved * kept, mesh.faces, process=False)


def simplify(mesh: Trimesh, faces: int) -> Trimesh:
    """Simplify a mesh without colours to at most `faces` faces, or return it if it has no more.

    Fewer are left if so many break a closed surface. If fewer break it too, the result has cracks,
    and a warning is logged.
    """
    if len(mesh.faces) <= faces:
        return mesh
    fast = import_optional("fast_simplification", "making meshes")
    trimesh = import_optional("trimesh", "making meshes")
    points = np.asarray(mesh.vertices, dtype=np.float32)
    triangles = np.asarray(mesh.faces, dtype=np.int32)
    cracked: list[Trimesh] = []
    for target, aggressiveness in product((faces, faces * 4 // 5, faces * 3 // 5), (7, 5, 3)):
        vertices, kept = fast.simplify(points, triangles, target_count=target, agg=aggressiveness)
        if not mesh.is_watertight:
            return trimesh.Trimesh(vertices, kept)
        simpler = without_debris(trimesh.Trimesh(*_part_touching_sheets(vertices, kept)))
        oriented = simpler.is_winding_consistent and simpler.volume > 0
        if simpler.is_watertight and oriented and len(simpler.faces) <= faces:
            return simpler
        cracked.append(simpler)
    log.warning("the mesh has small cracks after simplification to %d faces", faces)
    return cracked[0]


def _part_touching_sheets(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repair what edge collapses leave: flat folds, and sheets that share an edge.

    Pairs of faces with the same corners are removed. Vertices of edges with more than two faces are
    duplicated, one for each sheet, and moved a little into their sheet.
    """
    while True:
        corners, copies = np.unique(np.sort(faces, axis=1), axis=0, return_counts=True)
        if (copies == 1).all():
            break
        folded = {tuple(face) for face in corners[copies > 1].tolist()}
        faces = faces[[tuple(sorted(face)) not in folded for face in faces.tolist()]]
    points, faces = list(vertices.astype(np.float64)), faces.copy()
    edges, uses = np.unique(
        np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True
    )
    torn = {tuple(edge) for edge in edges[uses > 2].tolist()}
    before = faces.copy()
    for vertex in sorted({corner for edge in torn for corner in edge}):
        around = np.flatnonzero((before == vertex).any(axis=1))
        sheets = _sheets(before[around].tolist(), vertex, torn)
        for sheet in set(sheets.tolist()):
            own = around[sheets == sheet]
            inward = vertices[before[own]].reshape(-1, 3).mean(axis=0) - vertices[vertex]
            faces[own] = np.where(before[own] == vertex, len(points), faces[own])
            points.append(vertices[vertex] + 0.01 * inward)
    used, renumbered = np.unique(faces, return_inverse=True)
    return np.asarray(points)[used], renumbered.reshape(-1, 3)


def _sheets(faces: list[list[int]], vertex: int, torn: set[tuple[int, ...]]) -> np.ndarray:
    """Label the faces around a vertex by their sheet; sheets end at torn edges."""
    sheet = np.arange(len(faces))
    first_at: dict[int, int] = {}
    for index, face in enumerate(faces):
        for corner in face:
            if corner != vertex and tuple(sorted((corner, vertex))) not in torn:
                other = first_at.setdefault(corner, index)
                sheet[sheet == sheet[index]] = sheet[other]
    return sheet


def with_vertex_colors(mesh: Trimesh, colors: np.ndarray) -> Trimesh:
    """Return a copy with vertex colours (V, 3), clipped to [0, 1]."""
    trimesh = import_optional("trimesh", "making meshes")
    levels = np.round(np.clip(colors, 0, 1) * 255).astype(np.uint8)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=levels, process=False)


def write_ply(path: Path, mesh: Trimesh) -> None:
    """Write a binary PLY, with 8-bit vertex colours if there are any."""
    content = mesh.export(file_type="ply", vertex_normal=False)
    assert isinstance(content, bytes)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def sample_bilinear(image: Tensor, positions: Tensor) -> Tensor:
    """Sample an image (C, H, W) bilinearly, clamped beyond the centres of its outer pixels, (P, C).

    Positions (P, 2) are x to the right, y downwards, from -1 to 1 between the image's edges.
    """
    sampled = F.grid_sample(
        image[None], positions[None, None], padding_mode="border", align_corners=False
    )
    return sampled[0, :, 0].T
