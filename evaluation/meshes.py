"""Reading, validation and normalisation of the meshes to be evaluated."""

from __future__ import annotations

import io
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.files import check_suffix
from common.optional import import_optional
from common.ply import PLY_TYPES
from multiview.cameras import Z_UP_TO_Y_UP
from renderer.hygiene import edge_uses

if TYPE_CHECKING:
    from trimesh import Trimesh

log = logging.getLogger(__name__)

FORMATS = (".ply", ".obj", ".glb", ".stl")
LARGEST_COORDINATE = 1e4
"""Objects have size 1; single precision is too coarse for coordinates beyond this."""
OBJECT_BOX = np.array([0.71, 0.71, 0.6])
"""Bounds of |x|, |y| and |z|. Objects have a longest side of 1, with some tolerance; rotated about
z they extend to at most sqrt(1/2)."""
LARGEST_SIDE = 4.0
"""Longest side above which a mesh is not compared: that takes minutes, and means nothing."""
SMALLEST_SIDE = 0.5
"""Longest side below which a mesh is probably in another frame."""

GSO_ROTATIONS_DEG: dict[str, float] = {
    "sofa": -90.0,
    **dict.fromkeys(
        ("alarm", "backpack", "blocks", "chicken", "grandfather", "grandmother", "lion",
         "lunch_bag", "mario", "oil", "soap"), 270.0,
    ),
    **dict.fromkeys(("elephant", "school_bus1"), 180.0),
    **dict.fromkeys(("school_bus2", "shoe", "train", "turtle"), 225.0),
    "sorter": 112.5,
}  # fmt: skip
"""Rotation about z in degrees with which the paper's objects were rendered."""


def read_mesh(path: Path) -> Trimesh:
    """Read a .ply, .obj, .glb or .stl mesh without materials; polygons become triangles.

    A .glb file, which has y up, is turned to z up: (x, y, z) becomes (x, -z, y).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another format, unreadable, truncated, without faces, or with invalid numbers.
    """
    trimesh = import_optional("trimesh", "reading meshes")
    suffix = check_suffix(path, "mesh", FORMATS)
    try:
        if suffix == ".obj":
            vertices, faces = _read_obj(path.read_text(encoding="utf-8-sig", errors="replace"))
            mesh = trimesh.Trimesh(vertices, faces, process=False)
        else:
            content = path.read_bytes()
            if suffix == ".ply":
                content = _without_trailing_bytes(content)
            flags = {"force": "mesh", "process": False, "skip_materials": True}
            # from a stream, so that no other file is opened
            mesh = trimesh.load(io.BytesIO(content), file_type=suffix[1:], **flags)
        if suffix == ".ply":
            _check_complete(content, mesh)
        elif suffix == ".glb":
            mesh.vertices = mesh.vertices @ Z_UP_TO_Y_UP
    except Exception as error:
        reason = str(error) or type(error).__name__
        advice = "it is damaged or cut off; write or download it again"
        raise ValueError(f"{path}: the mesh cannot be read ({reason}): {advice}") from error
    _check_readable(path, mesh)
    return mesh


def _without_trailing_bytes(content: bytes) -> bytes:
    """Cut a binary PLY file after its last element, if all lists of an element are equally long."""
    head = re.match(rb"ply\s.*?end_header[ \t]*(\r\n|\n|\r)", content, re.S)
    order = (
        re.search(rb"^format binary_(little|big)", content[: head.end()], re.M) if head else None
    )
    if head is None or order is None:
        return content
    endian = "<" if order[1] == b"little" else ">"
    position = head.end()
    for element in re.split(r"^element ", head[0].decode("latin-1"), flags=re.M)[1:]:
        row = position  # of the first one
        for words in (line.split() for line in element.splitlines()[1:]):
            if words[:2] == ["property", "list"]:
                kind = np.dtype(endian + PLY_TYPES[words[2]])
                (count,) = np.frombuffer(content, kind, 1, row)
                row += kind.itemsize + int(count) * np.dtype(PLY_TYPES[words[3]]).itemsize
            elif words[:1] == ["property"]:
                row += np.dtype(PLY_TYPES[words[1]]).itemsize
        position += int(element.split()[1]) * (row - position)
    return content[:position]


def _check_complete(content: bytes, mesh: Trimesh) -> None:
    """Check that a mesh has all elements that the header of its PLY file announces."""
    header = content[: content.index(b"end_header")]
    elements = re.findall(rb"^element (vertex|face) (\d+)", header, re.M)
    announced = {name.decode(): int(number) for name, number in elements}
    if not announced.get("face"):
        return  # points: refused as a mesh without faces
    for name, found in (("vertex", len(mesh.vertices)), ("face", len(mesh.faces))):
        if found < announced.get(name, 0):
            expected = f"the header announces {announced[name]} elements of type {name}"
            raise ValueError(f"truncated: {expected}, the file has {found}")


def _read_obj(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the vertices (V, 3) and, as triangles, the faces (F, 3) of a Wavefront OBJ.

    trimesh counts relative indices from the end of the file instead of from their line.
    """
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), start=1):
        kind, *values = line.split("#")[0].split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind == "f":
            corners = [int(value.split("/")[0]) for value in values]
            corners = [c - 1 if c > 0 else len(vertices) + c for c in corners]
            if 0 in [int(value.split("/")[0]) for value in values] or min(corners, default=0) < 0:
                raise ValueError(f"line {number} refers to a missing vertex: {line.strip()}")
            faces += [[corners[0], *pair] for pair in pairwise(corners[1:])]
    return np.array(vertices).reshape(-1, 3), np.array(faces, dtype=np.int64).reshape(-1, 3)


def _check_readable(path: Path, mesh: Trimesh) -> None:
    faces = getattr(mesh, "faces", None)
    if faces is None or not len(faces):
        empty = f"{len(getattr(mesh, 'vertices', ()))} vertices and no faces; expected triangles"
        raise ValueError(f"{path}: the mesh is empty: {empty}")
    last, count = int(faces.max()), len(mesh.vertices)
    if faces.min() < 0 or last >= count:
        raise ValueError(f"{path}: faces refer to vertex {last} of {count}")
    largest = np.abs(mesh.vertices[faces]).max()
    if not largest < LARGEST_COORDINATE:
        raise ValueError(f"{path}: vertices have coordinates up to {largest:g}, expected about 1")
    if not mesh.area > 0:
        raise ValueError(f"{path}: all faces of the mesh have area 0")


def warn_if_not_normalised(path: Path, mesh: Trimesh) -> None:
    """Log a warning if a predicted mesh is probably not in the frame of the views.

    ValueError if it is so large that its unit must be another, such as centimetres.
    """
    low, high = mesh.bounds
    extent, longest = np.abs([low, high]).max(axis=0), float((high - low).max())
    frame = "probably it is in another frame (expected: z up, centred, longest side 1)"
    if longest > LARGEST_SIDE:
        size = f"the longest side of the mesh is {longest:.3g}, expected 1: its unit is another"
        raise ValueError(f"{path}: {size}; scale it to a longest side of 1, and centre it")
    if (extent > OBJECT_BOX).any():
        box = "outside |x|, |y| <= {1:g}, |z| <= {2:g}".format(*OBJECT_BOX)
        reach = ", ".join(f"{x:.3g}" for x in extent)
        log.warning("%s extends to %s, %s: %s", path, reach, box, frame)
    elif longest < SMALLEST_SIDE:
        log.warning("%s is small: its longest side is %.3g; %s", path, longest, frame)


def warn_if_not_watertight(path: Path, mesh: Trimesh) -> None:
    """Log a warning if a mesh is not a closed manifold, whose inside is not well defined."""
    open_edges = count_open_edges(mesh)
    if open_edges:
        problem = f"{open_edges} edges do not belong to two faces; its inside, and with it the IoU"
        log.warning("%s is not a closed manifold surface: %s, is not well defined", path, problem)


def count_open_edges(mesh: Trimesh) -> int:
    """Count the edges that do not belong to exactly two faces, see `edge_uses`."""
    return int((edge_uses(mesh) != 2).sum())


def gso_rotation(name: str) -> float:
    """Rotation in degrees with which an object of the paper's set was rendered; 0 if not listed."""
    return GSO_ROTATIONS_DEG.get(name, 0.0)


def to_render_frame(mesh: Trimesh, rotation_deg: float) -> Trimesh:
    """Transform a copy of a mesh to the frame in which its views were rendered.

    It is scaled to a longest side of 1, centred, and rotated about z by minus `rotation_deg`.
    """
    low, high = mesh.bounds
    scale = 1.0 / (high - low).max()
    cos, sin = np.cos(np.deg2rad(-rotation_deg)), np.sin(np.deg2rad(-rotation_deg))
    rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    moved = mesh.copy()
    moved.vertices = (mesh.vertices - (low + high) / 2) * scale @ rotation.T
    return moved
