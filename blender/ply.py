"""PLY files as Blender's importer needs them: 8-bit colours of vertices, small coordinates.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import io
import re

import numpy as np

from blender.corners import centre_and_scale
from common.ply import PLY_TYPES

NAMES = {
    **{f"diffuse_{name}": name for name in ("red", "green", "blue", "alpha")},
    **{name[0]: name for name in ("red", "green", "blue")},
}
"""Other names of colours, and those that Blender reads."""


def repair_ply(raw: bytes) -> tuple[bytes | None, list[str]]:
    """A PLY whose vertices Blender reads, or None to keep it; and what it will not show.

    ValueError if it is no PLY file, or corners are not finite.
    """
    end = re.search(rb"end_header[ \t]*(\r\n|\n|\r)", raw)
    if not raw.startswith(b"ply") or end is None:
        raise ValueError("is no PLY file: it begins with ply and a header")
    lines = raw[: end.start()].decode("latin-1").splitlines()
    problems = _colour_problems(lines)
    try:
        count, names, kinds = _vertex_properties(lines)
        values, rest = _read_vertices(raw[end.end() :], lines, count, names, kinds)
        corners = np.stack([values[axis] for axis in "xyz"], axis=-1)
    except (ValueError, KeyError, IndexError, StopIteration):
        return None, problems
    moved = centre_and_scale(corners)
    colours = (*NAMES, *NAMES.values())
    wide = [name for name in dict.fromkeys(colours) if kinds.get(name) == "u2"]
    if moved is None and not wide and not kinds.keys() & NAMES:
        return None, problems
    for k, axis in enumerate("xyz"):
        if moved is not None:
            values[axis], kinds[axis] = moved[:, k], "f4"
    for name in wide:
        values[name], kinds[name] = np.round(values[name] / 257), "u1"
    return _write(lines, values, kinds, rest), problems


def _colour_problems(lines: list[str]) -> list[str]:
    """Colours in the header that are not rendered."""
    faces = "\n".join(lines).partition("element face")[2].partition("element ")[0]
    problems = []
    texture = next((line.split(None, 2)[2] for line in lines if "TextureFile" in line), None)
    if texture:
        problems.append(f"its texture {texture} is not rendered; save it as .obj or .glb")
    if re.search(r"^property \w+ (diffuse_)?red", faces, re.MULTILINE):
        problems.append("the colours of its faces are not rendered; save it with vertex colours")
    return problems


def _vertex_properties(lines: list[str]) -> tuple[int, list[str], dict[str, str]]:
    """Number of vertices, and names and types of their properties; ValueError if not known."""
    elements = [index for index, line in enumerate(lines) if line.startswith("element ")]
    _, name, count = lines[elements[0]].split()
    last = elements[1] if len(elements) > 1 else len(lines)
    rows = [line.split() for line in lines[elements[0] + 1 : last] if line.startswith("property ")]
    if name != "vertex" or any(len(row) != 3 for row in rows):
        raise ValueError("the vertices are not first, or have lists")
    return int(count), [row[2] for row in rows], {row[2]: PLY_TYPES[row[1]] for row in rows}


def _read_vertices(
    body: bytes, lines: list[str], count: int, names: list[str], kinds: dict[str, str]
) -> tuple[dict[str, np.ndarray], bytes]:
    """Values of all properties, and the rest of the file; ValueError if it is cut off."""
    form = next(line.split()[1] for line in lines if line.startswith("format "))
    if form == "ascii":
        text = io.BytesIO(body)
        rows = [text.readline().split() for _ in range(count)]
        table = np.array(rows, dtype=np.float64).reshape(count, len(names))
        return dict(zip(names, table.T, strict=True)), text.read()
    order = "<" if "little" in form else ">"
    kind = np.dtype([(name, order + kinds[name]) for name in names])
    found = np.frombuffer(body, kind, count)
    return {name: found[name] for name in names}, body[kind.itemsize * count :]


def _write(
    lines: list[str], values: dict[str, np.ndarray], kinds: dict[str, str], rest: bytes
) -> bytes:
    """Put a file together; `lines` is its header, of which the vertices' types change."""
    form = next(line.split()[1] for line in lines if line.startswith("format "))
    names = {code: name for name, code in PLY_TYPES.items() if not name[-1].isdigit()}
    header, element = [], ""
    for line in lines:
        words = line.split()
        element = words[1] if words[:1] == ["element"] else element
        if element == "vertex" and words[:1] == ["property"]:
            words[1:] = [names[kinds[words[2]]], NAMES.get(words[2], words[2])]
        header.append(" ".join(words))
    start = "\n".join([*header, "end_header", ""]).encode("latin-1")
    if form == "ascii":
        rows = zip(*(values[name] for name in kinds), strict=True)
        text = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in rows)
        return start + text.encode() + rest
    order = "<" if "little" in form else ">"
    kind = np.dtype([(name, order + code) for name, code in kinds.items()])
    table = np.empty(len(values["x"]), kind)
    for name in kinds:
        table[name] = values[name]
    return start + table.tobytes() + rest
