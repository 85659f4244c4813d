"""glTF files as Blender's importer needs them: one scene near the origin, UTF-8, decodable parts.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from blender.corners import check_finite
from blender.gltf_frame import bring_near

DRACO, INSTANCES = "KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing"
WEBP, BASIS = "EXT_texture_webp", "KHR_texture_basisu"
ADVICE = "decode it first, for example with gltf-transform"
HARMLESS = (
    "KHR_materials_", "KHR_texture_", "KHR_lights_", "KHR_xmp", "KHR_animation_", "KHR_audio",
    "KHR_mesh_quantization", WEBP, DRACO,
)  # fmt: skip
"""Beginnings of the names of extensions that Blender reads or a rendering does not need.

Textures that cannot be decoded are found after the import."""


def repair_gltf(path: Path, folder: Path) -> tuple[Path, list[str], str]:
    """Write a copy of a glTF file without what Blender's importer cannot read, if necessary.

    Only the default scene keeps its meshes, which are brought near the origin; Draco is dropped
    where the file has the data without it; textures of other formats are put where the importer
    looks.

    Returns the file to import (`path` or a file in `folder`), problems that the rendering will
    show, and what to add to the importer's error, if it fails.
    ValueError if the file would be rendered incompletely, or has corners that are not finite.
    """
    try:
        text, binary = _split(path.read_bytes())
        content = json.loads(text)  # also UTF-16
    except (ValueError, IndexError, struct.error, RecursionError):
        return path, [], ""  # the importer's error says what is wrong
    before = json.dumps(content)
    try:
        problems, hint = _repair(content, binary, path.parent)
    except (KeyError, IndexError, TypeError, AttributeError):
        return path, [], ""
    if json.dumps(content) == before and json.detect_encoding(text) == "utf-8":
        return path, problems, hint
    for part in (*_list(content, "buffers"), *_list(content, "images")):
        if "uri" in part and not part["uri"].startswith("data:"):
            part["uri"] = quote(str(path.parent.resolve() / unquote(part["uri"])))
    copy = folder / f"model{path.suffix}"
    copy.write_bytes(_join(json.dumps(content).encode(), binary))
    return copy, problems, hint


def _repair(content: dict[str, Any], binary: bytes | None, folder: Path) -> tuple[list[str], str]:
    """Change the JSON content in place; return problems and what to add to an error."""
    nodes, used = _list(content, "nodes"), list(_list(content, "extensionsUsed"))
    _check_tree(nodes)
    shown = _shown_nodes(content)
    if any(INSTANCES in nodes[index].get("extensions", {}) for index in shown):
        raise ValueError(f"it uses {INSTANCES}, of which one copy would be drawn; {ADVICE}")
    for index in set(range(len(nodes))) - shown:
        for name in ("mesh", "skin", "camera", "extensions"):
            nodes[index].pop(name, None)
    _drop_draco(content)
    _place_textures(content)
    bring_near(content, shown, _read_corners(content, binary, folder))
    unknown = sorted(name for name in used if not name.startswith(HARMLESS))
    problems = [f"it uses {name}, which is not rendered" for name in unknown]
    hard = dict.fromkeys(
        name
        for name in (*_list(content, "extensionsUsed"), *_list(content, "extensionsRequired"))
        if name in (DRACO, *unknown, *_list(content, "extensionsRequired"))
    )
    hint = f"; it uses {', '.join(hard)}, which this Blender cannot read: {ADVICE}" if hard else ""
    return problems, hint


def _list(content: dict[str, Any], name: str) -> list[Any]:
    value: list[Any] = content.get(name, [])
    return value


def _split(raw: bytes) -> tuple[bytes, bytes | None]:
    """JSON text and binary chunk of a .glb or .gltf file."""
    if not raw.startswith(b"glTF"):
        return raw, None
    chunks: list[bytes] = []
    position = 12
    while position + 8 <= len(raw) and len(chunks) < 2:
        (length,) = struct.unpack_from("<I", raw, position)
        if position + 8 + length > len(raw):
            raise ValueError("cut off")
        chunks.append(raw[position + 8 : position + 8 + length])
        position += 8 + length
    return chunks[0], chunks[1] if len(chunks) > 1 else None


def _join(text: bytes, binary: bytes | None) -> bytes:
    if binary is None:
        return text
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = ((text, b"JSON"), (binary, b"BIN\0"))
    body = b"".join(struct.pack("<I4s", len(part), kind) + part for part, kind in chunks)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def _check_tree(nodes: list[Any]) -> None:
    """Check that no node has two parents or is its own ancestor; ValueError otherwise."""
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", []):
            if not 0 <= child < len(nodes) or parents[child] >= 0:
                raise ValueError(f"its nodes are no tree: node {child} has two parents or is none")
            parents[child] = index
    roots = [index for index, parent in enumerate(parents) if parent < 0]
    if len(_below(nodes, roots)) < len(nodes):
        raise ValueError("its nodes are no tree: some are their own ancestors")


def _below(nodes: list[Any], roots: list[int]) -> set[int]:
    """Indices of these nodes and of all below them."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += nodes[index].get("children", [])
    return found


def _shown_nodes(content: dict[str, Any]) -> set[int]:
    """Indices of the nodes of the default scene; of all nodes in a file without scenes."""
    nodes, scenes = _list(content, "nodes"), _list(content, "scenes")
    if not scenes:
        return set(range(len(nodes)))
    return _below(nodes, scenes[content.get("scene", 0)].get("nodes", []))


def _drop_draco(content: dict[str, Any]) -> None:
    """Remove Draco's copy of the meshes that the file also has uncompressed."""
    accessors = _list(content, "accessors")
    left = False
    for part in _primitives(content):
        used = [*part.get("attributes", {}).values(), *filter(None, [part.get("indices")])]
        if DRACO in part.get("extensions", {}):
            if all("bufferView" in accessors[index] for index in used):
                del part["extensions"][DRACO]
            else:
                left = True
    for name in ("extensionsUsed", "extensionsRequired"):
        if not left and DRACO in _list(content, name):
            content[name].remove(DRACO)


def _primitives(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for mesh in _list(content, "meshes") for part in mesh.get("primitives", [])]


def _place_textures(content: dict[str, Any]) -> None:
    """Put images of other formats where the importer looks; it can decode WebP."""
    for texture in _list(content, "textures"):
        for name in (WEBP, BASIS):
            if name in texture.get("extensions", {}):
                texture.setdefault("source", texture["extensions"][name]["source"])
    if WEBP in _list(content, "extensionsRequired"):
        content["extensionsRequired"].remove(WEBP)


def _read_corners(
    content: dict[str, Any], binary: bytes | None, folder: Path
) -> dict[int, np.ndarray]:
    """The corners, (P, 3), that are stored as 32-bit floats, by the numbers of their accessors.

    ValueError if some are not finite.
    """
    read: dict[int, np.ndarray] = {}
    accessors, views = _list(content, "accessors"), _list(content, "bufferViews")
    buffers: dict[int, bytes] = {}
    for part in _primitives(content):
        number = part["attributes"]["POSITION"]
        accessor = accessors[number]
        plain = "bufferView" in accessor and "sparse" not in accessor
        if number in read or not plain or accessor["componentType"] != 5126:
            continue
        view = views[accessor["bufferView"]]
        index = view["buffer"]
        if index not in buffers:
            buffers[index] = _buffer(content["buffers"][index], binary, folder)
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stride = view.get("byteStride", 12)
        count = min(accessor["count"], (len(buffers[index]) - start + stride - 12) // stride)
        if count > 0 and stride >= 12:
            raw = np.frombuffer(buffers[index], np.uint8, (count - 1) * stride + 12, start)
            corners = np.lib.stride_tricks.as_strided(raw, (count, 12), (stride, 1))
            found = np.ascontiguousarray(corners).view("<f4")
            check_finite(found)
            if count == accessor["count"]:
                read[number] = found
    return read


def _buffer(described: dict[str, Any], binary: bytes | None, folder: Path) -> bytes:
    uri = described.get("uri")
    if uri is None:
        return binary or b""
    if uri.startswith("data:"):
        return base64.b64decode(uri.split(",", 1)[1])
    file = folder / unquote(uri)
    return file.read_bytes() if file.is_file() else b""  # the importer names a missing one
