"""Real objects: the furniture of Sweet Home 3D, read out of its archives.

    apt-get download sweethome3d-furniture && dpkg-deb -x sweethome3d-furniture_*.deb furniture
    python -m demo.furniture --furniture furniture --credits credits.csv

writes a table of the models that can be rendered, with whom to credit for each. The archives need
not be trusted: they are read in memory, nothing is unpacked.
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
from multiview.images import FORMATS, MAX_INPUT_PIXELS

if TYPE_CHECKING:
    from trimesh import Scene

log = logging.getLogger(__name__)

CATALOGUE = "PluginFurnitureCatalog.properties"
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}
"""By archive; others say it in their catalogue."""
LARGEST_MEMBER = 2**26
"""Bytes of a file in an archive that are read at most."""
BLOCK = 2**20
"""Bytes that are unpacked at a time."""
MOST_FACES = 60_000
LEAST_COLOURS = 3
LEAST_THICKNESS = 0.04
"""Shortest side of the box, relative to the longest."""
TO_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
ROUGHNESS = 0.7


@dataclass(frozen=True)
class FurnitureModel:
    """A model of an archive.

    Attributes:
        uid: its name in a training tree.
        archive: file that it is in.
        member: the OBJ in there.
        name: what it is, in English.
        category: e.g. "Kitchen".
        creator: whom to credit.
        licence: SPDX identifier or text.
        turn: rotation that its catalogue asks for, row by row, empty for none.
    """

    uid: str
    archive: Path
    member: str
    name: str
    category: str
    creator: str
    licence: str
    turn: tuple[float, ...] = ()


def list_models(folder: Path) -> list[FurnitureModel]:
    """List the models of all archives in a folder or below it.

    Archives that cannot be read are reported and left out.

    Args:
        folder: holds *.sh3f.

    Raises:
        FileNotFoundError: there is no archive.
    """
    archives = sorted(folder.rglob("*.sh3f"))
    if not archives:
        raise FileNotFoundError(f"{folder}: no .sh3f archive in there")
    models: dict[str, FurnitureModel] = {}
    for archive in archives:
        try:
            for model in _read_catalogue(archive):
                if model.uid in models:
                    log.warning("%s: %s is there twice", archive, model.uid)
                models.setdefault(model.uid, model)
        except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            log.warning("%s: cannot be read (%s)", archive, error)
    return list(models.values())


def _read_catalogue(archive: Path) -> Iterator[FurnitureModel]:
    with zipfile.ZipFile(archive) as file:
        text = _read(file, CATALOGUE).decode("latin-1")
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
        own = {name: entries.get(f"{name}#{number}", "") for name in _FIELDS}
        member = own["model"].lstrip("/")
        uid = f"{archive.stem}-{Path(member).stem}".lower()
        try:
            turn = tuple(float(value) for value in own["modelRotation"].split())
        except ValueError:
            turn = ()
        yield FurnitureModel(
            uid=re.sub(r"[^a-z0-9-]+", "-", uid)[:100],
            archive=archive,
            member=member,
            name=own["name"],
            category=own["category"],
            creator=own["creator"],
            licence=licence,
            turn=turn if len(turn) == 9 and np.isfinite(turn).all() else (),
        )


_FIELDS = ("model", "name", "category", "creator", "modelRotation")


def _unescape(text: str) -> str:
    units = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins pairs


def _read(file: zipfile.ZipFile, member: str) -> bytes:
    """Read a file of an archive.

    Raises:
        KeyError: there is none.
        ValueError: it is too large, packed in an uncommon way, or damaged.
    """
    info = file.getinfo(member)
    if info.file_size > LARGEST_MEMBER:
        raise ValueError(f"{member}: {info.file_size} bytes, more than {LARGEST_MEMBER}")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member}: compressed otherwise than by deflate")
    try:
        with file.open(info) as stream:  # in blocks: the archive may lie about the size
            return b"".join(iter(lambda: stream.read(BLOCK), b""))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"{member}: damaged ({error})") from error


def load_furniture(model: FurnitureModel) -> Scene:
    """Read a model with its materials.

    What its materials lack is reported. Colours are taken as sRGB, as its authors saw them; a
    texture stands in for the colour.

    Returns:
        z up, with `PBRMaterial`s.

    Raises:
        ValueError: it cannot be read, or has no faces.
        ModuleNotFoundError: trimesh is not installed.
    """
    trimesh = import_optional("trimesh", "reading furniture")
    try:
        with zipfile.ZipFile(model.archive) as file:
            resolver = _Resolver(file, posixpath.dirname(model.member))
            content = _read(file, model.member)
            scene = trimesh.load(
                io.BytesIO(content), file_type="obj", resolver=resolver, force="scene"
            )
            meshes = [
                mesh
                for mesh in scene.geometry.values()
                if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)
            ]
            for mesh in meshes:
                mesh.visual = _visual(mesh, model)
        bad = [mesh for mesh in meshes if not np.isfinite(mesh.vertices).all()]
    except MemoryError:
        raise
    except Exception as error:  # whatever trimesh raises at a damaged file
        reason = str(error) or type(error).__name__
        raise ValueError(f"{model.uid}: cannot be read ({reason})") from error
    if resolver.missing:
        log.warning("%s: not to be had: %s", model.uid, ", ".join(sorted(resolver.missing)))
    if not meshes or bad:
        raise ValueError(f"{model.uid}: has no faces, or corners that are not finite")
    turn = np.eye(4)
    if model.turn:
        turn[:3, :3] = np.reshape(model.turn, (3, 3))
    upright = trimesh.Scene()
    for index, mesh in enumerate(meshes):
        upright.add_geometry(mesh, geom_name=f"part {index}", transform=TO_Z_UP @ turn)
    return upright


class _Resolver:
    """Gives trimesh the files beside a model, out of an archive."""

    def __init__(self, file: zipfile.ZipFile, folder: str) -> None:
        self.file, self.folder = file, folder
        self.names = {name.lower(): name for name in file.namelist()}
        self.missing: set[str] = set()

    def __getitem__(self, name: str) -> bytes:
        return self.get(name)

    def get(self, name: str) -> bytes:
        """Read a file by the name that the model uses for it."""
        asked = str(name).strip().replace("\\", "/")
        # authors' own folders stand before some names
        for candidate in (asked, posixpath.basename(asked)):
            path = posixpath.normpath(posixpath.join(self.folder, candidate)).lower()
            if path in self.names:
                break
        else:
            self.missing.add(asked)
            raise FileNotFoundError(asked)
        try:  # trimesh says nothing of what it cannot open
            content = _read(self.file, self.names[path])
            if not path.endswith(".mtl"):
                Image.open(io.BytesIO(content)).close()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            self.missing.add(f"{asked} (damaged or too large)")
            raise
        return content


def _visual(mesh: Any, model: FurnitureModel) -> Any:
    """The looks of a part of a model, as `PBRMaterial`."""
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material: Any = getattr(mesh.visual, "material", None)
    uv = getattr(mesh.visual, "uv", None)
    values = getattr(material, "kwargs", {})
    colour, texture = np.array([0.6, 0.6, 0.6]), None
    if "kd" in values:
        colour = np.resize(np.asarray(values["kd"], dtype=np.float64), 3).clip(0, 1)
    if uv is not None and getattr(material, "image", None) is not None:
        texture = _checked(material.image, model)
    alpha = _opacity(values)
    transparent = alpha < 1
    if texture is not None:
        colour = np.ones(3)
        transparent |= texture.mode == "RGBA"
    look = PBRMaterial(
        name=getattr(material, "name", None),
        baseColorFactor=np.array([*srgb_to_linear(colour), alpha]),
        baseColorTexture=texture,
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
        alphaMode="BLEND" if transparent else "OPAQUE",
        doubleSided=True,
    )
    return TextureVisuals(uv=uv, material=look)


def _opacity(values: dict[str, Any]) -> float:
    try:
        alpha = float(values["d"][-1])
    except (KeyError, ValueError, TypeError, IndexError):
        return 1.0
    return alpha if 0 < alpha < 1 else 1.0  # 0 is what some exporters write for "not set"


def _checked(image: Image.Image, model: FurnitureModel) -> Image.Image | None:
    """Decode a texture, as RGB, or as RGBA if something of it is transparent."""
    try:
        if image.width * image.height > MAX_INPUT_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels")
        if image.format not in (*FORMATS, "MPO"):  # MPO: JPEG, of some cameras
            raise ValueError(f"of the format {image.format}")
        picture = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        log.warning("%s: a texture cannot be read (%s)", model.uid, error)
        return None
    opaque = picture.getchannel("A").getextrema() == (255, 255)
    return picture.convert("RGB") if opaque else picture


def why_unsuitable(scene: Scene) -> str:
    """Say why a model is no good for training, in a few words; nothing if it is.

    Args:
        scene: see `load_furniture`.
    """
    faces = sum(len(mesh.faces) for mesh in scene.geometry.values())
    if faces > MOST_FACES:
        return f"{faces} faces"
    extents = scene.extents
    if extents is None or not extents.max() > 0 or extents.min() < LEAST_THICKNESS * extents.max():
        return "flat"
    materials = [mesh.visual.material for mesh in scene.geometry.values()]
    textured = any(material.baseColorTexture is not None for material in materials)
    colours = {tuple(np.asarray(material.baseColorFactor)) for material in materials}
    if not textured and len(colours) < LEAST_COLOURS:
        return f"{len(colours)} colours"
    return ""


def suitable(models: Iterable[FurnitureModel]) -> Iterator[FurnitureModel]:
    """Those models that can be read and are good for training; others are reported."""
    for model in models:
        try:
            reason = why_unsuitable(load_furniture(model))
        except ValueError as error:
            log.warning("%s", error)
            continue
        if reason:
            log.info("%s: left out: %s", model.uid, reason)
        else:
            yield model


def write_credits(path: Path, models: Iterable[FurnitureModel]) -> None:
    """Write a table of models with their authors and licences."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["uid", "name", "category", "creator", "licence", "archive", "model"])
        for model in models:
            table.writerow([
                model.uid, model.name, model.category, model.creator, model.licence,
                model.archive.name, model.member,
            ])  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.furniture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--furniture", type=Path, required=True, help="folder of .sh3f archives")
    parser.add_argument("--credits", type=Path, required=True, help="table to write, .csv")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Write the table of models."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.credits.is_dir() or not args.credits.absolute().parent.is_dir():  # before all the work
        parser.error(f"--credits {args.credits}: expected a file in a folder that is there")
    found = list_models(args.furniture)
    chosen = list(suitable(found))
    write_credits(args.credits, chosen)
    log.info("%s: %d of %d models", args.credits, len(chosen), len(found))


if __name__ == "__main__":
    run_script(main)
