"""Reading of textured meshes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from common.files import check_suffix
from common.optional import import_optional
from multiview.cameras import Z_UP_TO_Y_UP
from renderer.texture import textured, turned

if TYPE_CHECKING:
    from trimesh import Trimesh

SUFFIXES = (".glb", ".ply", ".stl")


def read_textured(path: Path) -> Trimesh:
    """Read a mesh with its texture, or else its vertex colours; the result has z up.

    A .glb, which has y up, is turned; all its parts become one mesh.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another format, unreadable, without faces, or with invalid numbers.
    """
    trimesh = import_optional("trimesh", "reading meshes")
    suffix = check_suffix(path, "mesh", SUFFIXES)
    try:  # from a stream, so that no other file is opened
        content, flags = io.BytesIO(path.read_bytes()), {"force": "mesh", "process": False}
        mesh = trimesh.load(content, file_type=suffix[1:], **flags)
    except Exception as error:
        reason = str(error) or type(error).__name__
        advice = "it is damaged or cut off; write or download it again"
        raise ValueError(f"{path}: the mesh cannot be read ({reason}): {advice}") from error
    if not len(getattr(mesh, "faces", ())):
        raise ValueError(f"{path}: the mesh is empty; expected triangles")
    if not np.isfinite(mesh.vertices).all() or not mesh.area > 0:
        raise ValueError(f"{path}: the mesh has coordinates that are no numbers, or no area")
    return _with_one_image(turned(mesh, Z_UP_TO_Y_UP.T) if suffix == ".glb" else mesh)


def _with_one_image(mesh: Trimesh) -> Trimesh:
    """A mesh whose material, if it has texture coordinates, is one matte image of colours."""
    visual: Any = mesh.visual
    uv = getattr(visual, "uv", None)
    if visual.kind != "texture" or uv is None:
        return mesh
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        image = Image.new("RGB", (8, 8), tuple(int(level) for level in material.main_color[:3]))
    down = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)
    return textured(mesh.vertices, mesh.faces, mesh.vertex_normals, down, image)
