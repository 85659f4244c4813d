"""The folder of an object's views: finding valid views, and adding new ones.

Each image stores its pose, intrinsics, settings and the hash of the 3D model in a PNG text chunk.
A view is valid only if these agree with `meta.pkl` and the current settings.
Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

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
"""Keyword of the PNG text chunk."""
_GENERATED = re.compile(r"\d{3}(-depth)?\.png|\.(\d{3}|\d{3}-depth|meta|view|depth)\..*")
"""File names that rendering writes, including temporary ones; other files are never removed."""


def view_name(index: int) -> str:
    """File name of a view: 000.png, 001.png, ..."""
    return f"{index:03d}.png"


@dataclass(frozen=True)
class ViewFolder:
    """The folder of an object's views in one set."""

    path: Path
    cameras: Cameras  # planned
    resolution: int  # pixels a side
    settings: dict[str, object]  # others that determine the images; JSON-serialisable
    depth: bool = False  # whether depth maps are rendered too

    def names(self, index: int) -> list[str]:
        """File names of a view and its depth map."""
        return [view_name(index), *([depth_name(index)] if self.depth else [])]

    def prepare(self) -> list[int]:
        """Create the folder, remove invalid views, write `meta.pkl`; return the missing indices.

        Views are removed before `meta.pkl` is written, so that after an interruption no view is
        next to a `meta.pkl` with another pose.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        missing = self.missing()
        valid = {
            name
            for index in range(len(self.cameras.elevations))
            if index not in missing
            for name in (view_name(index), depth_name(index))
        }
        for file in self.path.iterdir():
            if _GENERATED.fullmatch(file.name) and file.name not in valid:
                file.unlink()
        if not meta_matches(self.path / META, self.cameras):
            write_meta(self.path / META, self.cameras)
        return missing

    def missing(self) -> list[int]:
        """Indices of the views that are missing, damaged, or rendered with other settings."""
        return [i for i in range(len(self.cameras.elevations)) if not self._is_valid(i)]

    def is_complete(self) -> bool:
        """Whether all views are valid and `meta.pkl` has their cameras."""
        return meta_matches(self.path / META, self.cameras) and not self.missing()

    def _is_valid(self, index: int) -> bool:
        for name in self.names(index):
            path = self.path / name
            bits, colour_type = (8, RGBA) if name == view_name(index) else (16, GREY)
            try:
                text = read_text(path, KEYWORD, self.resolution, bits, colour_type)
                if text is None or not self._matches(index, json.loads(text)):
                    log.info("%s: rendered with other settings, rendering it again", path)
                    return False
            except FileNotFoundError:
                return False
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                log.warning("%s; rendering it again", error)
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
            **self.settings,
        }

    def add_view(self, index: int, image: Path, depth: np.ndarray | None) -> None:
        """Move a rendered PNG into the folder, with its settings in a text chunk.

        `depth` is camera-z, infinite for the background, (H, W); None without depth maps.
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

    def remove(self, indices: list[int]) -> None:
        """Remove these views, and the folder if nothing is left in it."""
        for index in indices:
            for name in self.names(index):
                (self.path / name).unlink(missing_ok=True)
        if [file.name for file in self.path.iterdir()] == [META]:
            (self.path / META).unlink()
            self.path.rmdir()
