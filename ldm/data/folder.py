"""Training objects in the published folder layout, and the validation images.

Pickles are read without running code in them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from common.safe_pickle import read_pickle
from common.uid_set import read_uid_set
from ldm.data.samples import MAX_FILE_BYTES, EncodedFile, ObjectFiles, check_elevations, located
from multiview.image_file import SUFFIXES
from multiview.images import prepare_image, view_names

VALIDATION_CROP_SIZE = 200
"""Longer side of the object, as pixels of 256."""
META_FIELDS = ("K", "azimuths", "elevations", "distances", "poses")
"""Entries of the list in `meta.pkl`."""


def read_meta(path: Path, num_views: int) -> dict[str, Any]:
    """Read an object's `meta.pkl`, by the names in `META_FIELDS`; the elevations are checked."""
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are too many for a meta.pkl")
    entries = read_pickle(path)
    if not isinstance(entries, list | tuple) or len(entries) != len(META_FIELDS):
        raise ValueError(f"{path}: expected a list of {', '.join(META_FIELDS)}")
    meta = dict(zip(META_FIELDS, entries, strict=True))
    with located(f"{path}"):
        meta["elevations"] = check_elevations(meta["elevations"], num_views)
    return meta


class FolderDataset:
    """Objects in the published layout, see `samples.ObjectDataset`.

    Files: `uid_set.pkl`, `target/<uid>/NNN.png`, `input/<uid>/NNN.png`, `input/<uid>/meta.pkl`.
    """

    def __init__(self, root: Path) -> None:
        """List the objects and check their folders; files are checked when they are first read."""
        self.root = root
        uids = read_uid_set(root / "uid_set.pkl")
        if not uids:
            raise ValueError(f"{root / 'uid_set.pkl'}: the training set is empty")
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
        """List an object's views, kind "target" or "input"; FileNotFoundError if one is missing."""
        paths = [self.root / kind / uid / name for name in view_names(num_views)]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"object {uid}: {missing[0]} is missing; the folder has "
                f"{num_views - len(missing)} of {num_views} views"
            )
        return paths

    def read_meta(self, uid: str, num_views: int) -> dict[str, Any]:
        """Read an object's `meta.pkl`, see `read_meta`; errors name the uid."""
        with located(f"object {uid}"):
            return read_meta(self.root / "input" / uid / "meta.pkl", num_views)

    def read(self, index: int, view: int, num_views: int) -> ObjectFiles:
        """Read the files of an item; see `samples.ObjectDataset`.

        The first read sees that all N views exist; later ones (of this process) touch only the
        files that are needed.
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
    """Read a file of at most `MAX_FILE_BYTES` of an object; errors name both."""
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
    """An input image whose views are generated during training, to watch the progress."""

    name: str  # of the file, without the elevation
    image: Tensor  # float32 in [-1, 1], (3, H, W)
    elevation: float  # radians


def read_validation_set(folder: Path, image_size: int) -> list[ValidationImage]:
    """Read a folder of RGBA images `<anything>-<elevation in degrees>.png`, sorted by name.

    `a-30.png` is 30 degrees above the horizon, `a--10.png` 10 below. The object's longer side is
    scaled to `VALIDATION_CROP_SIZE`. ValueError if there are no images, or one has no elevation.
    Other formats of images are read, too; what is no image is left out.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the folder of validation images does not exist")
    images = []
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        match = re.fullmatch(r"(.+?)-(-?\d{1,2}(?:\.\d+)?)", path.stem, flags=re.ASCII)
        if match is None or abs(float(match[2])) > 90:
            raise ValueError(
                f"{path}: the name must end in the elevation in degrees, -90 to 90: <name>-30.png"
            )
        pixels = prepare_image(path, VALIDATION_CROP_SIZE, image_size)
        image = rearrange(torch.from_numpy(pixels), "h w c -> c h w").contiguous()
        images.append(ValidationImage(match[1], image, math.radians(float(match[2]))))
    if not images:
        raise ValueError(f"{folder}: there are no images in this folder")
    return images
