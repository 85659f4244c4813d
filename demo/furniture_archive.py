"""Sweet Home 3D's furniture archives: their catalogues and files.

The archives need not be trusted: they are read in memory, with limits, and nothing is unpacked to
disk.
"""

from __future__ import annotations

import io
import logging
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

log = logging.getLogger(__name__)

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
    """A 3D model in an archive.

    Attributes:
        uid: its name in a training set.
        archive: path of the archive.
        member: path of the OBJ file in the archive.
        name: in English.
        category: e.g. "Kitchen".
        creator: the author to credit.
        licence: SPDX identifier or text.
        rotation: from the catalogue, row by row; empty for none.
    """

    uid: str
    archive: Path
    member: str
    name: str
    category: str
    creator: str
    licence: str
    rotation: tuple[float, ...] = ()


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
        values = {name: entries.get(f"{name}#{number}", "") for name in _FIELDS}
        member = values["model"].lstrip("/")
        uid = f"{archive.stem}-{Path(member).stem}".lower()
        try:
            rotation = tuple(float(value) for value in values["modelRotation"].split())
        except ValueError:
            rotation = ()
        yield FurnitureModel(
            uid=re.sub(r"[^a-z0-9-]+", "-", uid)[:100],
            archive=archive,
            member=member,
            **{name: values[name] for name in ("name", "category", "creator")},
            licence=licence,
            rotation=rotation if len(rotation) == 9 and np.isfinite(rotation).all() else (),
        )


_FIELDS = ("model", "name", "category", "creator", "modelRotation")


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
    """Resolves the files that an OBJ refers to, within its archive; for trimesh.

    Attributes:
        missing: files that could not be read, for the log.
    """

    def __init__(self, file: zipfile.ZipFile, folder: str) -> None:
        self.file, self.folder = file, folder
        self.names = {name.lower(): name for name in file.namelist()}
        self.missing: set[str] = set()

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
