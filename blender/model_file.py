"""Model files as Blender's importers need them: what they misread is repaired in a copy.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import codecs
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from blender.corners import centre_and_scale, check_finite
from blender.gltf import repair_gltf
from blender.ply import repair_ply
from common.files import check_content

COLOURED = 0x8000
"""Bit of a triangle of a binary STL that has a colour of 15 bits, as VisCAM and SolidView set it;
Materialise Magics names the colour in the header."""


def repair_model(path: Path, folder: Path) -> tuple[Path, list[str], str]:
    """Find what Blender's importer would misread, and write a repaired copy if necessary.

    Returns the file to import (`path` or a file in `folder`), problems that the rendering will
    show, and what to add to the importer's error. ValueError that names the file if it is not a
    whole model; says why.
    """
    check_content(path, "a 3D model")
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\3\4":
            raise ValueError(f"{path}: is a zip archive, not a 3D model; unpack it")
    suffix = path.suffix.lower()
    try:
        if suffix in (".glb", ".gltf"):
            return repair_gltf(path, folder)
        problems: list[str] = []
        raw = path.read_bytes()
        copy: bytes | None = None
        if suffix == ".fbx":
            check_fbx(raw)
        if suffix == ".stl":
            copy, problems = repair_stl(raw)
        elif suffix == ".obj":
            copy, problems = repair_obj(raw, path, folder)
        elif suffix == ".ply":
            copy, problems = repair_ply(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if copy is None:
        return path, problems, ""
    file = folder / f"model{suffix}"
    file.write_bytes(copy)
    return file, problems, ""


def check_fbx(raw: bytes) -> None:
    """ValueError if a file is no binary FBX, or some corners in it are not finite.

    Those would become 0 without a word.
    """
    if not raw.startswith(b"Kaydara FBX Binary"):
        raise ValueError("is no binary FBX file; save it as one, or as .glb")
    for found in re.finditer(rb"\x08Vertices([df])", raw):
        size = 8 if found[1] == b"d" else 4
        try:
            count, packed, length = struct.unpack_from("<III", raw, found.end())
            data = raw[found.end() + 12 : found.end() + 12 + length]
            if packed:
                data = zlib.decompressobj().decompress(data, size * count)
            corners = np.frombuffer(data, f"<f{size}", count // 3 * 3).reshape(-1, 3)
        except (struct.error, zlib.error, ValueError):
            return  # the importer's error says what is wrong
        check_finite(corners)


def repair_stl(raw: bytes) -> tuple[bytes | None, list[str]]:
    """A binary STL if the file is one of another size, or text with capitals; None to keep it.

    The list says if colours are not rendered. ValueError if the file is cut off.
    """
    if len(raw) < 84 and not raw[:5].lower() == b"solid":
        raise ValueError(f"cut off: it has {len(raw)} bytes, the header alone has 84")
    head, problems = raw[:1000].removeprefix(b"\xef\xbb\xbf").lstrip(), []
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
        table = np.frombuffer(raw, kind, count, 84)
        corners = table["corners"].reshape(-1, 3)
        if b"COLOR=" in raw[:80] or (count and (table["rest"] & COLOURED).all()):
            problems.append("its colours are not rendered; save it as .ply or .glb with them")
    moved = centre_and_scale(corners)
    if moved is None and _is_plain(raw, is_text, expected):
        return None, problems
    corners = corners if moved is None else moved
    triangles = np.zeros((len(corners) // 3, 50), np.uint8)
    triangles[:, 12:48] = corners.astype("<f4").reshape(-1, 9).view(np.uint8)
    return bytes(80) + struct.pack("<I", len(triangles)) + triangles.tobytes(), problems


def _is_plain(raw: bytes, is_text: bool, expected: int) -> bool:
    """Whether Blender's importer reads an STL file as it is."""
    return raw.startswith(b"solid") and b"vertex" in raw if is_text else len(raw) == expected


def repair_obj(raw: bytes, path: Path, folder: Path) -> tuple[bytes | None, list[str]]:
    """An OBJ with line feeds, corners near the origin and colours to 1; None to keep it.

    The list names files of materials that are missing.
    """
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = raw.decode("utf-16").encode() if wide else raw.removeprefix(codecs.BOM_UTF8)
    lines = re.split(rb"\r\n|\r|\n", text)
    where = [index for index, line in enumerate(lines) if line.lstrip()[:2] in (b"v ", b"v\t")]
    values = [lines[index].split(b"#")[0].split()[1:] for index in where]
    try:
        corners = np.array([value[:3] for value in values], dtype=np.float64).reshape(-1, 3)
        colours = [np.array(value[3:6], dtype=np.float64) for value in values if len(value) >= 6]
    except ValueError:
        return None, []  # the importer's error says what is wrong
    moved = centre_and_scale(corners)
    largest = float(np.max(colours)) if colours else 0.0
    lists = [k for k, line in enumerate(lines) if line.lstrip()[:7] in (b"mtllib ", b"mtllib\t")]
    named = [file for k in lists for file in _library_files(lines[k], path.absolute().parent)]
    found = {file: find_file(file) for file in (*named, path.absolute().with_suffix(".mtl"))}
    problems = [
        f"its materials {file} are missing, their faces will be grey"
        for file in named
        if not any(found.values()) and b"usemtl" in raw
    ]
    as_named = len(named) == len(lists) and all(found[file] in (None, file) for file in named)
    plain = text == raw and (b"\n" in raw or b"\r" not in raw) and as_named
    if moved is None and largest <= 1 and plain:
        return None, problems
    corners = corners if moved is None else moved
    for index, value, corner in zip(where, values, corners, strict=True):
        rest = value[3:]
        if len(value) >= 6 and largest > 1:
            rest = [b"%.6f" % (float(part) / 255) for part in value[3:6]]
        lines[index] = b" ".join([b"v", *(b"%.9g" % axis for axis in corner), *rest])
    for k in reversed(lists):
        del lines[k]
    for file in filter(None, dict.fromkeys(found.values())):  # looked for beside the copy
        beside = os.path.relpath(file.resolve(), folder.resolve())
        lines.insert(0, b"mtllib " + os.fsencode(beside))
    return b"\n".join(lines), problems


def _library_files(line: bytes, folder: Path) -> list[Path]:
    """Files of materials that a line of an OBJ names: one, or else several without spaces."""
    name = os.fsdecode(line.split(None, 1)[-1].strip().strip(b'"'))
    whole = folder / name
    return [whole] if find_file(whole) else [folder / part for part in name.split()] or [whole]


def find_file(path: Path) -> Path | None:
    """Find a file, also if its absolute path differs in capitals or has backslashes."""
    found = Path(path.anchor)
    try:
        if path.is_file():
            return path
        for part in re.split(r"[/\\]", str(path.relative_to(path.anchor))):
            names = sorted(found.iterdir()) if found.is_dir() else []
            same = [name for name in names if name.name.casefold() == part.casefold()]
            if part in ("", ".", "..") or (found / part).exists():
                found = found / part
            elif same:
                found = same[0]
            else:
                return None
        return found if found.is_file() else None
    except OSError:  # a name that is too long, or a folder that may not be read
        return None
