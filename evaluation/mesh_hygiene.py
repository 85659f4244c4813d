"""Hygiene of a mesh: what a program that prints, simulates or edits it needs, and no truth.

Counted as surveys of generated meshes do: closed, manifold, consistently oriented, with texture
coordinates, without floating debris.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from common.optional import import_optional
from evaluation.meshes import edge_uses, read_mesh

DEBRIS_AREA = 0.01
"""Connected parts with less than this share of the surface are debris."""
PROPERTIES = {
    "watertight": "watertight",
    "manifold": "manifold",
    "consistent_normals": "consistent normals",
    "uvs": "texture coordinates",
    "clean": "no floating debris",
}
"""Properties that a mesh has or not, and their titles."""


def measure_hygiene(path: Path) -> dict[str, int | bool]:
    """Measure a mesh, .ply or .obj; texture coordinates are also looked for in a .glb beside it.

    Equal vertices are merged before.

    Returns:
        `PROPERTIES`; faces; parts (connected ones); debris, the number of small parts.

    Raises:
        FileNotFoundError, ValueError: see `read_mesh`.
    """
    trimesh = import_optional("trimesh", "the hygiene of meshes")
    mesh = read_mesh(path)
    faces, uses = len(mesh.faces), edge_uses(mesh)
    mesh.merge_vertices()
    mesh.update_faces(mesh.nondegenerate_faces())
    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, len(mesh.faces))
    areas = np.bincount(labels, weights=mesh.area_faces)
    debris = int((areas < DEBRIS_AREA * areas.sum()).sum())
    watertight = bool((uses == 2).all())
    outwards = mesh.is_winding_consistent and (not watertight or mesh.volume > 0)
    return {
        "watertight": watertight,
        "manifold": bool((uses <= 2).all()),
        "consistent_normals": bool(outwards),
        "uvs": _has_uvs(path),
        "clean": debris == 0,
        "faces": faces,
        "parts": len(areas),
        "debris": debris,
    }


def _has_uvs(path: Path) -> bool:
    textured = path.with_suffix(".glb")
    if not textured.is_file():
        return path.suffix.lower() == ".obj" and "\nvt " in path.read_text(errors="replace")
    trimesh = import_optional("trimesh", "reading meshes")
    try:  # from a stream, so that no other file is opened
        mesh = trimesh.load(io.BytesIO(textured.read_bytes()), file_type="glb", force="mesh")
    except Exception as error:
        raise ValueError(f"{textured}: the mesh cannot be read ({error})") from error
    return getattr(mesh.visual, "uv", None) is not None
