"""Training objects in the published folder layout, and the validation images.

Pickles are read without running code in them. For items and batches see `ldm.data.samples` and
`ldm.data.loader`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from common.files import check_file_name
from common.safe_pickle import read_pickle
from ldm.data.samples import MAX_FILE_BYTES, EncodedFile, ObjectFiles, check_elevations
from multiview.images import prepare_image, view_names

VALIDATION_CROP_SIZE = 200
"""Longer side of the object, as pixels of 256."""
META_FIELDS = ("K", "azimuths", "elevations", "distances", "poses")
"""Entries of the list in `meta.pkl`."""


def read_meta(path: Path, num_views: int) -> dict[str, Any]:
    """Read an object's `meta.pkl`, by the names in `META_FIELDS`; the elevations are checked.

    Raises:
        FileNotFoundError, ValueError: naming the file.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are too many for a meta.pkl")
    entries = read_pickle(path)
    if not isinstance(entries, list | tuple) or len(entries) != len(META_FIELDS):
        raise ValueError(f"{path}: expected a list of {', '.join(META_FIELDS)}")
    meta = dict(zip(META_FIELDS, entries, strict=True))
    try:
        meta["elevations"] = check_elevations(meta["elevations"], num_views)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return meta


def read_uids(path: Path) -> list[str]:
    """Read `uid_set.pkl`, the list of object names.

    Raises:
        FileNotFoundError, ValueError: naming the file, which is empty, or an invalid name.
    """
    uids = read_pickle(path)
    if isinstance(uids, set | frozenset):
        uids = sorted(uids, key=str)
    if not isinstance(uids, list | tuple) or not all(isinstance(uid, str) for uid in uids):
        raise ValueError(f"{path}: expected a list of names of objects")
    if not uids:
        raise ValueError(f"{path}: the training set is empty")
    seen: set[str] = set()
    for uid in uids:
        try:
            check_file_name(uid)
        except ValueError as error:
            raise ValueError(f"{path}: object {uid!r}: {error}") from error
        if uid in seen:
            raise ValueError(f"{path}: object {uid} is listed twice")
        seen.add(uid)
    return list(uids)


class FolderDataset:
    """Objects in the published layout, see `samples.ObjectDataset`.

    Files: `uid_set.pkl`, `target/<uid>/NNN.png`, `input/<uid>/NNN.png`, `input/<uid>/meta.pkl`.
    """

    def __init__(self, root: Path) -> None:
        """List the objects and check their folders; files are checked when they are first read.

        Raises:
            FileNotFoundError, ValueError: naming the list, or the first uid without a folder.
        """
        self.root = root
        uids = read_uids(root / "uid_set.pkl")
        for kind in ("target", "input"):
            if not (root / kind).is_dir():
                raise FileNotFoundError(f"{root / kind}: no such folder")
            folders = {entry.name for entry in (root / kind).iterdir()}
            missing = [uid for uid in uids if uid not in folders]
            if missing:
                raise FileNotFoundError(
                    f"object {missing[0]}: it is in {root / 'uid_set.pkl'}, but "
                    f"{root / kind / missing[0]} does not exist; {len(missing)} of {len(uids)} "
                    f"objects have no {kind} folder"
                )
        self.uids = np.array([uid.encode() for uid in uids])
        self.group_sizes: Sequence[int] = [len(uids)]
        self.complete = np.zeros(len(uids), bool)

    def view_paths(self, uid: str, kind: str, num_views: int) -> list[Path]:
        """List the paths of an object's views, kind "target" or "input".

        Raises:
            FileNotFoundError: naming the uid and the first view that is missing.
        """
        folder = self.root / kind / uid
        present: set[str] = set()
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            present.update(entry.name for entry in entries if entry.is_file())
        names = view_names(num_views)
        missing = [name for name in names if name not in present]
        if missing:
            raise FileNotFoundError(
                f"object {uid}: {folder / missing[0]} is missing; the folder has "
                f"{num_views - len(missing)} of {num_views} views"
            )
        return [folder / name for name in names]

    def read_meta(self, uid: str, num_views: int) -> dict[str, Any]:
        """Read an object's `meta.pkl`, see `read_meta`; errors name the uid."""
        try:
            return read_meta(self.root / "input" / uid / "meta.pkl", num_views)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"object {uid}: {error}") from error
        except ValueError as error:
            raise ValueError(f"object {uid}: {error}") from error

    def read(self, index: int, view: int, num_views: int) -> ObjectFiles:
        """Read the files of an item; see `samples.ObjectDataset`.

        The first read lists both folders to see that all N views exist; later ones (of this
        process) touch only the files that are needed.
        """
        uid = self.uids[index].decode()
        elevation = float(self.read_meta(uid, num_views)["elevations"][view])
        if not self.complete[index]:
            for kind in ("target", "input"):
                self.view_paths(uid, kind, num_views)
            self.complete[index] = True
        names = view_names(num_views)
        targets = [read_file(uid, self.root / "target" / uid / name) for name in names]
        input_file = read_file(uid, self.root / "input" / uid / names[view])
        return ObjectFiles(uid, tuple(targets), input_file, elevation)


def read_file(uid: str, path: Path) -> EncodedFile:
    """Read a file of at most `MAX_FILE_BYTES` of an object.

    Raises:
        ValueError, OSError: naming the uid and the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise OSError(f"object {uid}: {path}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"object {uid}: {path}: larger than {MAX_FILE_BYTES} bytes")
    return EncodedFile(str(path), content)


@dataclass(frozen=True)
class ValidationImage:
    """An input image whose views are generated during training, to watch the progress.

    Attributes:
        name: of the file, without the elevation.
        image: float32 in [-1, 1], (3, H, W).
        elevation: radians.
    """

    name: str
    image: Tensor
    elevation: float


def read_validation_set(folder: Path, image_size: int) -> list[ValidationImage]:
    """Read a folder of RGBA images `<anything>-<elevation in degrees>.png`, sorted by name.

    `a-30.png` is 30 degrees above the horizon, `a--10.png` 10 below. The object's longer side is
    scaled to `VALIDATION_CROP_SIZE`.

    Raises:
        FileNotFoundError, ValueError: naming the folder without images, or the image without an
            elevation or object.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the folder of validation images does not exist")
    images = []
    for path in sorted(folder.glob("*.png")):
        match = re.fullmatch(r"(.+?)-(-?\d{1,2}(?:\.\d+)?)", path.stem, flags=re.ASCII)
        if match is None or abs(float(match[2])) > 90:
            raise ValueError(
                f"{path}: the name must end in the elevation in degrees, -90 to 90: <name>-30.png"
            )
        pixels = prepare_image(path, VALIDATION_CROP_SIZE, image_size)
        image = rearrange(torch.from_numpy(pixels), "h w c -> c h w").contiguous()
        images.append(ValidationImage(match[1], image, math.radians(float(match[2]))))
    if not images:
        raise ValueError(f"{folder}: the folder has no PNG images")
    return images
