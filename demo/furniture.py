"""Load the furniture of Sweet Home 3D, as real objects for training.

    apt-get download sweethome3d-furniture && dpkg-deb -x sweethome3d-furniture_*.deb furniture
    python -m demo.furniture --furniture furniture --credits credits.csv

writes a table of the models that are suitable for training, with their authors and licences.

The archives need not be trusted: they are read in memory, with limits, and nothing is unpacked to
disk.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from common.cli import run_script
from common.files import atomic_write
from common.optional import import_optional
from demo.raycast.textures import srgb_to_linear
from multiview.image_file import FORMATS, MAX_INPUT_PIXELS

if TYPE_CHECKING:
    from trimesh import Scene

CATALOGUE = "PluginFurnitureCatalog.properties"
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}
"""Licence by archive name; other archives state it in their catalogue."""
MAX_MEMBER_BYTES = 2**26
"""Larger files of an archive are refused."""
BLOCK_BYTES = 2**20
"""Bytes that are decompressed at a time."""


@dataclass(frozen=True)
class FurnitureModel:
    """A 3D model in an archive."""

    uid: str  # its name in a training set
    archive: Path
    member: str  # path of the OBJ file in the archive
    name: str  # in English
    category: str  # e.g. "Kitchen"
    creator: str  # the author to credit
    licence: str  # SPDX identifier or text
    rotation: tuple[float, ...] = ()  # from the catalogue, row by row; empty for none


def list_models(folder: Path) -> list[FurnitureModel]:
    """List the models of all archives (*.sh3f) in a folder or below it.

    Archives that cannot be read are logged and skipped; without any, FileNotFoundError.
    """
    archives = sorted(folder.rglob("*.sh3f"))
    if not archives:
        raise FileNotFoundError(f"{folder}: contains no .sh3f archive")
    models: dict[str, FurnitureModel] = {}
    for archive in archives:
        try:
            for model in _read_catalogue(archive):
                if model.uid in models:
                    log.warning("%s: duplicate model %s", archive, model.uid)
                models.setdefault(model.uid, model)
        except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            log.warning("%s: cannot be read (%s)", archive, error)
    return list(models.values())


def _read_catalogue(archive: Path) -> Iterator[FurnitureModel]:
    with zipfile.ZipFile(archive) as file:
        text = read_member(file, CATALOGUE).decode("latin-1")
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            entries[key.strip()] = _unescape(value.strip())
    licence = LICENCES.get(archive.stem, entries.get("license", ""))
    for key in entries:
        field, _, number = key.partition("#")
        if field != "model" or not number.isdigit():
            continue
        member = entries[key].lstrip("/")
        uid = re.sub(r"[^a-z0-9-]+", "-", f"{archive.stem}-{Path(member).stem}".lower())[:100]
        name, category, creator, turn = (
            entries.get(f"{field}#{number}", "")
            for field in ("name", "category", "creator", "modelRotation")
        )
        try:
            rotation = tuple(float(value) for value in turn.split())
        except ValueError:
            rotation = ()
        valid = len(rotation) == 9 and np.isfinite(rotation).all()
        rotation = rotation if valid else ()
        yield FurnitureModel(uid, archive, member, name, category, creator, licence, rotation)


def _unescape(text: str) -> str:
    units = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
    # joins surrogate pairs
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_member(file: zipfile.ZipFile, member: str) -> bytes:
    """Read a file of an archive.

    Raises:
        KeyError: the file does not exist.
        ValueError: it is too large, damaged, or compressed by another method than deflate.
    """
    info = file.getinfo(member)
    if info.file_size > MAX_MEMBER_BYTES:
        raise ValueError(f"{member}: {info.file_size} bytes, more than {MAX_MEMBER_BYTES}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member}: compression method {info.compress_type}, expected deflate")
    try:
        with file.open(info) as stream:  # in blocks: the stated size may be wrong
            return b"".join(iter(lambda: stream.read(BLOCK_BYTES), b""))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{member}: damaged ({error})") from error


class ArchiveResolver:
    """Resolves the files that an OBJ refers to, within its archive; for trimesh."""

    def __init__(self, file: zipfile.ZipFile, folder: str) -> None:
        self.file, self.folder = file, folder
        self.names = {name.lower(): name for name in file.namelist()}
        self.missing: set[str] = set()  # files that could not be read, for the log

    def __getitem__(self, name: str) -> bytes:
        return self.get(name)

    def get(self, name: str) -> bytes:
        """Read a file by the name that the OBJ or its materials use."""
        requested = str(name).strip().replace("\\", "/")
        # some names have a folder of the author's machine in front
        for candidate in (requested, posixpath.basename(requested)):
            path = posixpath.normpath(posixpath.join(self.folder, candidate)).lower()
            if path in self.names:
                break
        else:
            self.missing.add(requested)
            raise FileNotFoundError(requested)
        try:  # trimesh ignores files that it cannot open without a message
            content = read_member(self.file, self.names[path])
            if not path.endswith(".mtl"):
                Image.open(io.BytesIO(content)).close()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            self.missing.add(f"{requested} (damaged or too large)")
            raise
        return content


log = logging.getLogger(__name__)

MAX_FACES = 60_000
MIN_COLOURS = 3
MIN_THICKNESS = 0.04
"""Shortest side of the bounding box, relative to the longest."""
Y_UP_TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
ROUGHNESS = 0.7
"""Of all materials: OBJ files have no roughness."""


def load_furniture(model: FurnitureModel) -> Scene:
    """Load a model, z up, with `PBRMaterial`s; ValueError: it cannot be read, or has no faces.

    Missing textures are logged. Colours are taken as sRGB; a texture replaces the colour.
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
    visual = import_optional("trimesh", "Reading furniture").visual
    material: Any = getattr(mesh.visual, "material", None)
    uv = getattr(mesh.visual, "uv", None)
    values = getattr(material, "kwargs", {})
    texture = None
    kd = np.asarray(values.get("kd", [0.6, 0.6, 0.6]), dtype=np.float64)
    colour = np.resize(kd, 3).clip(0, 1)
    if uv is not None and getattr(material, "image", None) is not None:
        texture = _decode_texture(material.image, model)
    alpha = _opacity(values)
    transparent = alpha < 1
    if texture is not None:
        colour = np.ones(3)
        transparent |= texture.mode == "RGBA"
    pbr = visual.material.PBRMaterial(
        name=getattr(material, "name", None),
        baseColorFactor=np.array([*srgb_to_linear(colour), alpha]),
        baseColorTexture=texture,
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        alphaMode="BLEND" if transparent else "OPAQUE",
        doubleSided=True,
    )
    return visual.TextureVisuals(uv=uv, material=pbr)


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
