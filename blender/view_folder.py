"""An object's folder of views: what of it is kept, and how a view gets into it.

Every image carries, as a text in the PNG, how it was rendered: the pose, the intrinsics, the
settings and the model's fingerprint. So a view is known to belong to `meta.pkl`, and is kept only
then. NumPy only, so that Blender's own Python can import this file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blender.plan import META, POSE_TOLERANCE, meta_matches, write_meta
from blender.png import GREY, RGBA, add_text, encode_grey16, read_text
from common.files import atomic_write
from multiview.cameras import Cameras
from multiview.depth_png import depth_name, depth_to_levels

log = logging.getLogger(__name__)

KEYWORD = "rendered-with"
_OWN = re.compile(r"\d{3}(-depth)?\.png|\.(\d{3}|\d{3}-depth|meta|view|depth)\..*")
"""Files that this writes, temporary ones too; no other is ever removed."""


def view_name(index: int) -> str:
    """File name of a view: 000.png, 001.png, ..."""
    return f"{index:03d}.png"


def fingerprint(model: Path) -> str:
    """Hash of a model's file."""
    digest = hashlib.sha256()
    with model.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class ViewFolder:
    """The folder of an object's views in one set.

    Attributes:
        path: the folder.
        cameras: planned, N.
        resolution: pixels a side.
        made_with: what else determines the images; JSON can hold it.
        depth: whether depth maps are made too.
    """

    path: Path
    cameras: Cameras
    resolution: int
    made_with: dict[str, object]
    depth: bool = False

    def names(self, index: int) -> list[str]:
        """Names of the files that a view consists of."""
        return [view_name(index), *([depth_name(index)] if self.depth else [])]

    def prepare(self) -> list[int]:
        """Make the folder ready: remove what is not kept, record the cameras.

        At no time does a view lie beside a `meta.pkl` with another pose, whenever this is
        interrupted: views go first.

        Returns:
            the views that are missing.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        missing = self.missing()
        kept = {
            name
            for index in range(len(self.cameras.elevations))
            if index not in missing
            for name in (view_name(index), depth_name(index))
        }
        for file in self.path.iterdir():
            if _OWN.fullmatch(file.name) and file.name not in kept:
                file.unlink()
        if not meta_matches(self.path / META, self.cameras):
            write_meta(self.path / META, self.cameras)
        return missing

    def missing(self) -> list[int]:
        """The views that are not there, not whole, or not what would be rendered now."""
        return [i for i in range(len(self.cameras.elevations)) if not self._is_kept(i)]

    def is_complete(self) -> bool:
        """Say whether all views are there and `meta.pkl` records their cameras."""
        return meta_matches(self.path / META, self.cameras) and not self.missing()

    def _is_kept(self, index: int) -> bool:
        for name in self.names(index):
            path = self.path / name
            bits, colour_type = (8, RGBA) if name == view_name(index) else (16, GREY)
            try:
                text = read_text(path, KEYWORD, self.resolution, bits, colour_type)
                if text is None or not self._matches(index, json.loads(text)):
                    log.info("%s: rendered otherwise, made anew", path)
                    return False
            except FileNotFoundError:
                return False
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("%s; made anew", error)
                return False
        return True

    def _matches(self, index: int, recorded: dict[str, object]) -> bool:
        planned = self._record(index)
        for name in ("pose", "intrinsics"):
            now, then = np.array(planned.pop(name)), np.array(recorded.pop(name), np.float64)
            if now.shape != then.shape or not np.allclose(now, then, 0, POSE_TOLERANCE):
                return False
        return planned == recorded

    def _record(self, index: int) -> dict[str, object]:
        return {
            "pose": self.cameras.world_to_camera[index].tolist(),
            "intrinsics": self.cameras.intrinsics[index].tolist(),
            **self.made_with,
        }

    def add_view(self, index: int, image: Path, depth: np.ndarray | None) -> None:
        """Put a rendered view into the folder, with its record in it.

        Args:
            index: of the view.
            image: the PNG as it was rendered; it is removed.
            depth: camera-z, infinite for the background, (H, W); None if not asked for.

        Raises:
            OSError: it cannot be written.
            ValueError: what was rendered is no PNG.
        """
        record = json.dumps(self._record(index))
        if depth is not None:
            path = self.path / depth_name(index)
            self._write(path, encode_grey16(depth_to_levels(depth)), record)
        self._write(self.path / view_name(index), image.read_bytes(), record)
        image.unlink()

    @staticmethod
    def _write(path: Path, raw: bytes, record: str) -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(add_text(raw, KEYWORD, record, path))
