r"""Convert a mesh to another format.

    python -m renderer.export output/photo/mesh.glb --to stl --size_mm 80 --flat_base -o part.stl

Reads .glb (y up), .ply and .stl (z up). Writes glb, obj (in a .zip with its texture) and usdz with
y up; ply, stl and 3mf with z up; splat, a .ply of flat 3D Gaussians, with y down. stl and 3mf are
in millimetres, need a closed mesh, and get a report beside them: part.print.json.
"""

from __future__ import annotations

import argparse
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.cli import HelpFormatter
from common.files import atomic_write
from common.optional import import_optional
from common.records import write_json
from multiview.cameras import Z_UP_TO_Y_UP
from multiview.rasterise import Fragments
from renderer.formats.options import FORMATS, PACKAGES, PRINTED, ExportOptions, add_size_flags
from renderer.formats.printing import NotPrintableError, measure_print, printable
from renderer.formats.read import read_textured
from renderer.formats.splat import write_splat
from renderer.formats.usdz import write_usdz
from renderer.hygiene import merge_equal_vertices
from renderer.mesh import with_vertex_colors, write_ply
from renderer.texture import turned, write_glb
from renderer.video import surface_colors

if TYPE_CHECKING:
    from trimesh import Trimesh

log = logging.getLogger(__name__)


def convert(source: Path, targets: dict[str, Path], options: ExportOptions) -> None:
    """Write a mesh file in other formats, each to its path; prints come last, with a report.

    Raises:
        FileNotFoundError, ValueError: the mesh cannot be read, see `read_textured`, or printed.
        OSError: a file cannot be written.
    """
    mesh = read_textured(source)
    for name, path in targets.items():
        match name:
            case "glb":
                write_glb(path, mesh)
            case "ply":
                write_ply(path, _vertex_coloured(mesh))
            case "obj":
                write_obj(path, mesh)
            case "usdz":
                write_usdz(path, mesh, options.size_mm)
            case "splat":
                write_splat(path, mesh)
    if prints := {name: path for name, path in targets.items() if name in PRINTED}:
        try:
            _write_prints(mesh, prints, options)
        except NotPrintableError as error:
            raise NotPrintableError(f"{source}: {error}") from error


def export_formats(source: Path, folder: Path, options: ExportOptions) -> None:
    """Write the formats beyond those that every reconstruction has, see `convert`."""
    if options.more:
        targets = {name: folder / file for name, file in options.more.items()}
        convert(source, targets, options)


def _vertex_coloured(mesh: Trimesh) -> Trimesh:
    """The shape with the colours of its vertices, without the seams of the texture.

    They are those near the corners of the faces around, by area: a chart of few texels counts less.
    """
    _, same = np.unique(mesh.vertices, axis=0, return_inverse=True)
    corners, faces = same.reshape(-1)[mesh.faces].reshape(-1), np.repeat(range(len(mesh.faces)), 3)
    near = np.tile(0.7 * np.eye(3) + 0.1, (len(mesh.faces), 1))  # barycentric
    colors = surface_colors(mesh)(Fragments(faces, faces, near, np.zeros(len(faces))))
    area = mesh.area_faces[faces] + 1e-12
    whole = np.bincount(corners, area)
    means = np.stack([np.bincount(corners, area * c) / whole for c in colors.T], axis=1)
    return with_vertex_colors(merge_equal_vertices(mesh), means)


def write_obj(path: Path, mesh: Trimesh) -> None:
    """Write a .zip with mesh.obj, y up, and, if the mesh has a texture, its material and image."""
    trimesh = import_optional("trimesh", "making meshes")
    upright = turned(mesh, Z_UP_TO_Y_UP)
    visual: Any = mesh.visual
    if visual.kind == "texture":
        image = visual.material.baseColorTexture.copy()  # which is written as PNG
        given = {"image": image, "diffuse": [255, 255, 255, 255], "name": "texture"}
        material = trimesh.visual.material.SimpleMaterial(**given)
        upright.visual = trimesh.visual.TextureVisuals(uv=visual.uv, material=material)
    flags = {"include_normals": True, "return_texture": True, "header": None}
    text, others = trimesh.exchange.obj.export_obj(upright, mtl_name="mesh.mtl", **flags)
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", 8) as archive:
        for name, content in {"mesh.obj": text, **others}.items():
            archive.writestr(name, content)


def _write_prints(mesh: Trimesh, targets: dict[str, Path], options: ExportOptions) -> None:
    solid = printable(mesh, options.size_mm, options.flat_base)
    for name, path in targets.items():
        if name == "3mf":  # trimesh knows it only with both
            import_optional("lxml.etree", "3MF", PACKAGES)
            import_optional("networkx", "3MF", PACKAGES)
        content = solid.export(file_type=name)
        assert isinstance(content, bytes)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    report = measure_print(solid)
    log.info("print: %s", ", ".join(f"{key} {value}" for key, value in report.items()))
    write_json(next(iter(targets.values())).with_suffix(".print.json"), report)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("mesh", type=Path, help="the mesh: .glb, .ply or .stl")
    add("--to", choices=list(FORMATS), required=True, help="format to write")
    add("-o", "--output", type=Path, help="file to write (default: beside the mesh)")
    add_size_flags(parser)
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = build_parser()
    args = parser.parse_args(argv)
    suffix = Path(FORMATS[args.to]).suffix
    output = args.output or args.mesh.with_name(FORMATS[args.to])
    if output.suffix.lower() != suffix:
        parser.error(f"--output {output}: expected a name that ends in {suffix}")
    if output.exists() and output.samefile(args.mesh):
        parser.error(f"--output {output}: is the mesh itself; choose another name")
    options = ExportOptions((args.to,), args.size_mm, args.flat_base)
    convert(args.mesh, {args.to: output}, options)
    log.info("%s", output)
