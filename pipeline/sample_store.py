"""Strips on disk: which samples are up to date, which may be replaced, and how they are written.

A strip `<k>.png` has a record `<k>.json`: all settings that its pixels depend on, and its checksum.
A strip whose record matches is kept; another one is replaced only on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.files import atomic_write, check_free_space, sha256
from common.records import Record, ReplaceError, make_writable, write_json
from ldm.config import SamplerConfig
from multiview.cameras import NUM_VIEWS, orbit_cameras
from multiview.colmap_model import MODEL
from multiview.images import save_animation, strip_to_views
from multiview.views import CAMERA_FILES, write_views
from pipeline.inputs import PreparedInput
from pipeline.view_generator import ViewGenerator


@dataclass(frozen=True, eq=False)
class StripFiles:
    """A strip and the files beside it, which have its name."""

    path: Path

    @property
    def record(self) -> Record:
        """The settings, in a file."""
        return Record(self.path.with_suffix(".json"), "sha256", on_change="refuse")

    @property
    def views(self) -> Path:
        """The folder of single views."""
        return self.path.with_suffix("")

    @property
    def preview(self) -> Path:
        """The animation."""
        return self.path.with_suffix(".gif")

    def view_files(self) -> list[Path]:
        """Existing files of single views and their cameras."""
        cameras = [self.views / name for name in CAMERA_FILES]
        views = sorted(self.views.glob("[0-9][0-9][0-9].png"))
        return views + [path for path in cameras if path.exists()]

    def check_foreign(self) -> None:
        """Raise ReplaceError if files of these names exist and have no record."""
        if self.record.read() is not None:
            return
        if self.path.exists():
            unknown = "nothing beside it says how it was made"
            raise ReplaceError(f"{self.path}: was made with other settings ({unknown})")
        for path in (self.record.path, self.preview, *self.view_files()):
            if path.exists():
                raise ReplaceError(f"{path}: exists and is not a result of this command")


@dataclass(frozen=True, eq=False)
class Sample(StripFiles):
    """One strip of views to be generated or kept."""

    source: PreparedInput
    elevation_deg: float
    seed: int
    sampler: SamplerConfig
    view_generator: ViewGenerator

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that its pixels depend on."""
        return {
            "input": self.source.sha256,
            "elevation_deg": self.elevation_deg,
            "crop_size": self.source.crop_size,
            **self.view_generator.settings(self.sampler),
            "seed": self.seed,
        }

    def write(self, strip: np.ndarray, overwrite: bool) -> None:
        """Write the generated strip; an existing one is replaced only if `overwrite`."""
        if not overwrite:
            self.check_replaceable()  # another process may have written it in the meantime
        replaces_ours = self.record.read() is not None
        with atomic_write(self.path) as strip_path:
            Image.fromarray(strip).save(strip_path)
            write_json(self.record.path, {"settings": self.settings, "sha256": sha256(strip_path)})
        if replaces_ours:
            self._remove_extras()

    def was_generated(self) -> bool:
        """Whether the record has these settings, whether or not the strip still exists."""
        return (self.record.read() or {}).get("settings") == self.settings

    def check_replaceable(self) -> bool:
        """Whether the strip exists and is up to date.

        Raises:
            ReplaceError: a strip of other settings, or a file of its name, exists.
        """
        self.check_foreign()
        origin = {"settings": self.settings}
        return self.record.current([self.path], origin, lambda: sha256(self.path)) is not None

    def write_extras(self, save_views: bool, preview: bool, colmap: bool = False) -> None:
        """Write the single views, see `write_views`, and the animation of the existing strip."""
        if not (save_views or preview):
            return
        with Image.open(self.path) as image:
            views = strip_to_views(np.asarray(image))
        if save_views:
            cameras = orbit_cameras(len(views), image_size=views.shape[1])
            write_views(self.views, views, cameras, colmap)
        if preview:
            with atomic_write(self.preview) as path:
                save_animation(path, list(views))

    def remove(self) -> None:
        """Remove the strip, its views and its preview; the record and other files stay."""
        self._remove_extras()
        with suppress(OSError):  # does not exist, or is not empty
            self.views.rmdir()
        self.path.unlink(missing_ok=True)

    def _remove_extras(self) -> None:
        self.preview.unlink(missing_ok=True)
        for path in self.view_files():
            path.unlink()
        for folder in (self.views / MODEL, self.views / MODEL.parent):
            with suppress(OSError):
                folder.rmdir()


def check_conflicts(
    strips: Iterable[StripFiles], inputs: Iterable[Path], others: Iterable[Path] = ()
) -> None:
    """Raise FileExistsError where a strip or another result would replace an input or a folder."""
    resolved = {path.resolve() for path in inputs}
    for path in others:
        if path.resolve() in resolved:
            raise FileExistsError(f"{path}: is an input")
    for strip in strips:
        for path in (strip.path, strip.record.path, strip.preview):
            if path.is_dir():
                raise FileExistsError(f"{path}: is a folder, but a result is to be written there")
            if path.resolve() in resolved:
                raise FileExistsError(f"{path}: is an input")
        if strip.views.exists() and not strip.views.is_dir():
            raise FileExistsError(f"{strip.views}: is a file, but the views' folder has this name")
        if strip.views.resolve() in {path.parent for path in resolved}:
            raise FileExistsError(f"{strip.views}: is the folder of an input")


def prepare_output(
    samples: Sequence[Sample], save_views: bool = False, preview: bool = False
) -> None:
    """Create the folders of results; raise OSError if they take no files or the disk is full."""
    folders = sorted({sample.path.parent for sample in samples})
    folders += [sample.views for sample in samples if save_views]
    for folder in folders:
        make_writable(folder, folder)
    if folders:
        of_strip = NUM_VIEWS * samples[0].view_generator.size ** 2 * 3
        check_free_space(folders[0], len(samples) * of_strip * (1 + save_views + preview))
