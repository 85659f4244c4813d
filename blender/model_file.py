"""Model files as Blender's importers need them: what they misread is repaired in a copy.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np

from blender.gltf import check_finite, repair_gltf
from blender.ply import repair_ply
from common.files import check_content

FAR, LARGE, SMALL = 100.0, 1e5, 1e-4
"""Distance from the origin in sizes of the object, and sizes, from which on single precision, in
which Blender computes, is not enough."""


def repair_model(path: Path, folder: Path) -> tuple[Path, list[str], str]:
    """Find what Blender's importer would misread, and write a repaired copy if necessary.

    Returns the file to import (`path` or a file in `folder`), problems that the rendering will
    show, and what to add to the importer's error. ValueError that names the file if it is not a
    whole model; says why.
    """
    check_content(path, "a 3D model")
    suffix = path.suffix.lower()
    try:
        if suffix in (".glb", ".gltf"):
            return repair_gltf(path, folder)
        problems: list[str] = []
        raw = path.read_bytes()
        copy: bytes | None = None
        if suffix == ".stl":
            copy = repair_stl(raw)
        elif suffix == ".obj":
            copy = repair_obj(raw, path.parent, folder)
        elif suffix == ".ply":
            copy, problems = repair_ply(raw, centre_and_scale)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if copy is None:
        return path, problems, ""
    file = folder / f"model{suffix}"
    file.write_bytes(copy)
    return file, problems, ""


def centre_and_scale(corners: np.ndarray) -> np.ndarray | None:
    """Move corners, (P, 3), to the origin and scale them to 1, if single precision needs it.

    ValueError if some are not finite.
    """
    check_finite(corners)
    if not len(corners):
        return None
    corners = corners.astype(np.float64)
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    centre, size = (lower + upper) / 2, float((upper - lower).max())
    if size == 0 or (SMALL < size < LARGE and np.abs(centre).max() < FAR * size):
        return None
    return (corners - centre) / size


def repair_stl(raw: bytes) -> bytes | None:
    """A binary STL if the file is one of another size, or text with capitals; None to keep it.

    ValueError if it is cut off.
    """
    head = raw[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()
    (count,) = struct.unpack("<I", raw[80:84].ljust(4, b"\0"))
    expected = 84 + 50 * count
    is_text = len(raw) != expected and head[:5].lower() == b"solid" and b"\0" not in head
    if is_text:
        text = raw.lower()
        found = re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", text)
        if len(found) % 3 or b"endsolid" not in text:
            raise ValueError(f"cut off after {len(found)} corners; download or write it again")
        corners = np.array(found, dtype=np.float64).reshape(-1, 3)
    else:
        if len(raw) < expected:
            whole = max(len(raw) - 84, 0) // 50
            raise ValueError(f"cut off: it announces {count} triangles and has {whole}")
        kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", 9), ("rest", "<u2")])
        corners = np.frombuffer(raw, kind, count, 84)["corners"].reshape(-1, 3)
    moved = centre_and_scale(corners)
    if moved is None and _is_plain(raw, is_text, expected):
        return None
    corners = corners if moved is None else moved
    triangles = np.zeros((len(corners) // 3, 50), np.uint8)
    triangles[:, 12:48] = corners.astype("<f4").reshape(-1, 9).view(np.uint8)
    return bytes(80) + struct.pack("<I", len(triangles)) + triangles.tobytes()


def _is_plain(raw: bytes, is_text: bool, expected: int) -> bool:
    """Whether Blender's importer reads an STL file as it is."""
    return raw.startswith(b"solid") and b"vertex" in raw if is_text else len(raw) == expected


def repair_obj(raw: bytes, parent: Path, folder: Path) -> bytes | None:
    """An OBJ with line feeds, corners near the origin and colours to 1; None to keep it."""
    lines = re.split(rb"\r\n|\r|\n", raw.removeprefix(b"\xef\xbb\xbf"))
    where = [index for index, line in enumerate(lines) if line.lstrip()[:2] in (b"v ", b"v\t")]
    values = [lines[index].split(b"#")[0].split()[1:] for index in where]
    try:
        corners = np.array([value[:3] for value in values], dtype=np.float64).reshape(-1, 3)
        colours = [np.array(value[3:6], dtype=np.float64) for value in values if len(value) >= 6]
    except ValueError:
        return None  # the importer's error says what is wrong
    moved = centre_and_scale(corners)
    largest = float(np.max(colours)) if colours else 0.0
    if moved is None and largest <= 1 and (b"\n" in raw or b"\r" not in raw):
        return None
    corners = corners if moved is None else moved
    for index, value, corner in zip(where, values, corners, strict=True):
        rest = value[3:]
        if len(value) >= 6 and largest > 1:
            rest = [b"%.6f" % (float(part) / 255) for part in value[3:6]]
        lines[index] = b" ".join([b"v", *(b"%.9g" % axis for axis in corner), *rest])
    for index, line in enumerate(lines):
        kind, _, name = line.strip().partition(b" ")
        if kind == b"mtllib":  # is looked for beside the copy
            lines[index] = b"mtllib " + os.fsencode(
                os.path.relpath(parent.resolve() / os.fsdecode(name.strip()), folder.resolve())
            )
    return b"\n".join(lines)
