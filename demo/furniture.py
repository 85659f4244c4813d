"""Load the furniture of Sweet Home 3D, as real objects for training.

    apt-get download sweethome3d-furniture && dpkg-deb -x sweethome3d-furniture_*.deb furniture
    python -m demo.furniture --furniture furniture --credits credits.csv

writes a table of the models that are suitable for training, with their authors and licences.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from common.cli import run_script
from common.files import atomic_write
from common.optional import import_optional
from demo.furniture_archive import ArchiveResolver, FurnitureModel, list_models, read_member
from demo.raycast.textures import srgb_to_linear
from multiview.images import FORMATS, MAX_INPUT_PIXELS

if TYPE_CHECKING:
    from trimesh import Scene

log = logging.getLogger(__name__)

MAX_FACES = 60_000
MIN_COLOURS = 3
MIN_THICKNESS = 0.04
"""Shortest side of the bounding box, relative to the longest."""
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
ROUGHNESS = 0.7
"""Of all materials: OBJ files have no roughness."""


def load_furniture(model: FurnitureModel) -> Scene:
    """Load a model with its materials.

    Missing textures are logged. Colours are taken as sRGB, as the authors saw them; a texture
    replaces the colour. The scene has z up and `PBRMaterial`s.

    Raises:
        ValueError: the model cannot be read, or has no faces.
    """
    trimesh = import_optional("trimesh", "Reading furniture")
    try:
        with zipfile.ZipFile(model.archive) as file:
            resolver = ArchiveResolver(file, posixpath.dirname(model.member))
            content = read_member(file, model.member)
            options = {"file_type": "obj", "resolver": resolver, "force": "scene"}
            parts = trimesh.load(io.BytesIO(content), **options).geometry.values()
            meshes = [p for p in parts if isinstance(p, trimesh.Trimesh) and len(p.faces)]
            for mesh in meshes:
                mesh.visual = _visual(mesh, model)
        bad = [mesh for mesh in meshes if not np.isfinite(mesh.vertices).all()]
    except MemoryError:
        raise
    except Exception as error:  # whatever trimesh raises at a damaged file
        reason = str(error) or type(error).__name__
        raise ValueError(f"{model.uid}: cannot be read ({reason})") from error
    if resolver.missing:
        log.warning("%s: missing files: %s", model.uid, ", ".join(sorted(resolver.missing)))
    if not meshes or bad:
        raise ValueError(f"{model.uid}: has no faces, or vertices that are not finite")
    rotation = np.eye(4)
    if model.rotation:
        rotation[:3, :3] = np.reshape(model.rotation, (3, 3))
    upright = trimesh.Scene()
    for index, mesh in enumerate(meshes):
        upright.add_geometry(mesh, geom_name=f"part {index}", transform=Y_UP_TO_Z_UP @ rotation)
    return upright


def _visual(mesh: Any, model: FurnitureModel) -> Any:
    """Convert the material of a part to `PBRMaterial`, with its texture coordinates."""
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material: Any = getattr(mesh.visual, "material", None)
    uv = getattr(mesh.visual, "uv", None)
    values = getattr(material, "kwargs", {})
    colour, texture = np.array([0.6, 0.6, 0.6]), None
    if "kd" in values:
        colour = np.resize(np.asarray(values["kd"], dtype=np.float64), 3).clip(0, 1)
    if uv is not None and getattr(material, "image", None) is not None:
        texture = _decode_texture(material.image, model)
    alpha = _opacity(values)
    transparent = alpha < 1
    if texture is not None:
        colour = np.ones(3)
        transparent |= texture.mode == "RGBA"
    pbr = PBRMaterial(
        name=getattr(material, "name", None),
        baseColorFactor=np.array([*srgb_to_linear(colour), alpha]),
        baseColorTexture=texture,
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        alphaMode="BLEND" if transparent else "OPAQUE",
        doubleSided=True,
    )
    return TextureVisuals(uv=uv, material=pbr)


def _opacity(values: dict[str, Any]) -> float:
    try:
        alpha = float(values["d"][-1])
    except (KeyError, ValueError, TypeError, IndexError):
        return 1.0
    return alpha if 0 < alpha < 1 else 1.0  # 0 is what some exporters write for "not set"


def _decode_texture(image: Image.Image, model: FurnitureModel) -> Image.Image | None:
    """Decode a texture as RGBA if any of it is transparent, else as RGB; None if damaged."""
    try:
        if image.width * image.height > MAX_INPUT_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels")
        if image.format not in (*FORMATS, "MPO"):  # MPO: JPEG, of some cameras
            raise ValueError(f"format {image.format}")
        decoded = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s: texture cannot be read (%s)", model.uid, error)
        return None
    opaque = decoded.getchannel("A").getextrema() == (255, 255)
    return decoded.convert("RGB") if opaque else decoded


def rejection_reason(scene: Scene) -> str:
    """Return why a scene of `load_furniture` is unsuitable for training; empty if it is not."""
    faces = sum(len(mesh.faces) for mesh in scene.geometry.values())
    if faces > MAX_FACES:
        return f"{faces} faces"
    extents = scene.extents
    if extents is None or not extents.max() > 0 or extents.min() < MIN_THICKNESS * extents.max():
        return "flat"
    materials = [mesh.visual.material for mesh in scene.geometry.values()]
    textured = any(material.baseColorTexture is not None for material in materials)
    colours = {tuple(np.asarray(material.baseColorFactor)) for material in materials}
    if not textured and len(colours) < MIN_COLOURS:
        return f"{len(colours)} colours"
    return ""


def filter_models(models: Iterable[FurnitureModel]) -> Iterator[FurnitureModel]:
    """Yield the models that can be read and are suitable for training; log the others."""
    for model in models:
        try:
            reason = rejection_reason(load_furniture(model))
        except ValueError as error:
            log.warning("%s", error)
            continue
        if reason:
            log.info("%s: unsuitable: %s", model.uid, reason)
        else:
            yield model


def write_credits(path: Path, models: Iterable[FurnitureModel]) -> None:
    """Write a CSV table of models with their authors and licences."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["uid", "name", "category", "creator", "licence", "archive", "model"])
        for model in models:
            about = [model.uid, model.name, model.category, model.creator, model.licence]
            table.writerow([*about, model.archive.name, model.member])


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m demo.furniture", None, __doc__, formatter_class=raw)
    parser.add_argument("--furniture", type=Path, required=True, help="folder of .sh3f archives")
    parser.add_argument("--credits", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Write the table of suitable models."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.credits.is_dir() or not args.credits.absolute().parent.is_dir():  # before the slow part
        parser.error(f"--credits {args.credits}: must be a file in an existing folder")
    found = list_models(args.furniture)
    chosen = list(filter_models(found))
    write_credits(args.credits, chosen)
    log.info("%s: %d of %d models", args.credits, len(chosen), len(found))


if __name__ == "__main__":
    run_script(main)
