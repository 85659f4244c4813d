"""Hygiene of a mesh: what a program that prints, simulates or edits it needs.

Counted as surveys of generated meshes do: closed, manifold, consistently oriented, without floating
debris.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.optional import import_optional

if TYPE_CHECKING:
    from trimesh import Trimesh

DEBRIS_AREA = 0.01
"""Connected parts with less than this share of the surface are debris."""
PROPERTIES = ("watertight", "manifold", "consistent_normals", "clean")
"""What a mesh is or is not."""


def without_debris(mesh: Trimesh) -> Trimesh:
    """The mesh without its debris: parts, connected through edges, of less than `DEBRIS_AREA`."""
    trimesh = import_optional("trimesh", "the hygiene of meshes")
    parts = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces))
    areas = np.bincount(parts, weights=mesh.area_faces)
    kept = mesh.copy()
    kept.update_faces((areas >= DEBRIS_AREA * areas.sum())[parts])
    kept.remove_unreferenced_vertices()
    return kept


def merge_equal_vertices(mesh: Trimesh) -> Trimesh:
    """The shape of a mesh, each position being one vertex; faces of equal corners are left out."""
    trimesh = import_optional("trimesh", "the hygiene of meshes")
    vertices, same = np.unique(mesh.vertices, axis=0, return_inverse=True)
    faces = same.reshape(-1)[mesh.faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return trimesh.Trimesh(vertices, faces, process=False)


def edge_uses(mesh: Trimesh) -> np.ndarray:
    """Number of faces at each edge, after merging equal vertices, (E,)."""
    _, same = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners = same.reshape(-1)[mesh.faces]  # (F, 3)
    edges = np.sort(corners[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    return np.unique(edges, axis=0, return_counts=True)[1]


def measure_hygiene(mesh: Trimesh) -> dict[str, int | bool]:
    """Measure a mesh, after merging its equal vertices.

    Returns:
        watertight, manifold, consistent_normals (outwards, if it is watertight), clean (no debris);
        faces; parts (connected ones); debris, the number of small parts.
    """
    trimesh = import_optional("trimesh", "the hygiene of meshes")
    uses, merged = edge_uses(mesh), merge_equal_vertices(mesh)
    merged.update_faces(merged.nondegenerate_faces())
    labels = trimesh.graph.connected_component_labels(merged.face_adjacency, len(merged.faces))
    areas = np.bincount(labels, weights=merged.area_faces)
    debris = int((areas < DEBRIS_AREA * areas.sum()).sum())
    watertight = bool((uses == 2).all())
    outwards = merged.is_winding_consistent and (not watertight or merged.volume > 0)
    return {
        "watertight": watertight,
        "manifold": bool((uses <= 2).all()),
        "consistent_normals": bool(outwards),
        "clean": debris == 0,
        "faces": len(mesh.faces),
        "parts": len(areas),
        "debris": debris,
    }
