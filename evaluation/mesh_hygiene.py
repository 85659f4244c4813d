"""Hygiene of a mesh file, see `renderer.hygiene`, and whether it has texture coordinates."""

from __future__ import annotations

from pathlib import Path

from evaluation.meshes import read_mesh
from renderer import hygiene
from renderer.formats.read import read_textured

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

    Returns:
        `PROPERTIES`; faces; parts (connected ones); debris, the number of small parts.

    Raises:
        FileNotFoundError, ValueError: see `read_mesh`.
    """
    return {**hygiene.measure_hygiene(read_mesh(path)), "uvs": _has_uvs(path)}


def _has_uvs(path: Path) -> bool:
    textured = path.with_suffix(".glb")
    if not textured.is_file():
        return path.suffix.lower() == ".obj" and "\nvt " in path.read_text(errors="replace")
    return getattr(read_textured(textured).visual, "uv", None) is not None
