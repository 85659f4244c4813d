"""Bringing the meshes of a glTF file to the origin in double precision.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from blender.corners import frame_of, needs_double


def bring_near(content: dict[str, Any], shown: set[int], corners: dict[int, np.ndarray]) -> None:
    """Move and scale the shown nodes to the origin and size 1 if single precision needs it.

    Changes the JSON content in place: every mesh gets new corners and one node with its matrix.
    `corners` are those of accessors, (P, 3). Meshes with skins or shapes stay where they are.
    """
    meshes, nodes = content.get("meshes", []), content.get("nodes", [])
    placed = {index: nodes[index]["mesh"] for index in shown if "mesh" in nodes[index]}
    parts = {mesh: meshes[mesh]["primitives"] for mesh in placed.values()}
    every = [part for of in parts.values() for part in of]
    if content.get("skins") or any("targets" in part for part in every):
        return
    if not every or any(part["attributes"]["POSITION"] not in corners for part in every):
        return
    local = {
        mesh: np.concatenate([corners[part["attributes"]["POSITION"]] for part in of])
        for mesh, of in parts.items()
    }
    try:
        world = _world_matrices(nodes, shown)
    except ValueError:
        return  # the importer's error says what is wrong
    moved = [local[mesh] @ world[i][:3, :3].T + world[i][:3, 3] for i, mesh in placed.items()]
    centre, size = frame_of(np.concatenate(moved))
    if not np.isfinite(size) or not needs_double(centre, size):
        return
    to_origin = _matrix(-centre / size, 1 / size)
    for mesh, of in parts.items():
        own_centre, own_size = frame_of(local[mesh])
        own_size = own_size or 1.0
        back = _matrix(own_centre, own_size)
        for part in of:
            values = (corners[part["attributes"]["POSITION"]] - own_centre) / own_size
            part["attributes"]["POSITION"] = _add_corners(content, values.astype("<f4"))
        for index in (index for index, other in placed.items() if other == mesh):
            matrix = to_origin @ world[index] @ back
            nodes[index] = {"mesh": mesh, "matrix": matrix.T.ravel().tolist()}
    for index in shown - placed.keys():
        nodes[index] = {}
    if content.get("scenes"):
        content["scenes"][content.get("scene", 0)]["nodes"] = sorted(shown)
    content.pop("animations", None)


def _world_matrices(nodes: list[Any], shown: set[int]) -> dict[int, np.ndarray]:
    """Transforms of nodes, which are a tree, to the world, (4, 4) each."""
    children = {child for index in shown for child in nodes[index].get("children", [])}
    world = {index: _local_matrix(nodes[index]) for index in shown - children}
    waiting = list(world)
    while waiting:
        index = waiting.pop()
        for child in nodes[index].get("children", []):
            world[child] = world[index] @ _local_matrix(nodes[child])
            waiting.append(child)
    return world


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    """Transform of a node to its parent, (4, 4)."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), dtype=np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def _matrix(translation: np.ndarray, scale: float) -> np.ndarray:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = translation
    return matrix


def _add_corners(content: dict[str, Any], corners: np.ndarray) -> int:
    """Add an accessor of corners, (P, 3) 32-bit floats, in a buffer of its own; its index."""
    raw = corners.tobytes()
    uri = "data:application/octet-stream;base64," + base64.b64encode(raw).decode()
    content.setdefault("buffers", []).append({"uri": uri, "byteLength": len(raw)})
    view = {"buffer": len(content["buffers"]) - 1, "byteLength": len(raw)}
    content["bufferViews"].append(view)
    ends = {"min": corners.min(axis=0).tolist(), "max": corners.max(axis=0).tolist()}
    accessor = {"componentType": 5126, "count": len(corners), "type": "VEC3", **ends}
    content["accessors"].append({"bufferView": len(content["bufferViews"]) - 1, **accessor})
    return len(content["accessors"]) - 1
