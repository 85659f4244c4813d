"""Files of results: which there are to be, which are kept, how they are written.

A strip of views `<k>.png` has a record `<k>.json` beside it: all settings that its pixels depend
on, and a checksum of the strip. A strip whose record fits is kept; one that was made otherwise is
replaced only when that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.files import atomic_write, check_free_space
from multiview.images import save_animation, strip_to_views, view_names

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True, eq=False)
class Source:
    """An input image and where its results go.

    Attributes:
        path: the file.
        elevation_deg: of its camera, degrees.
        folder: of its results.
    """

    path: Path
    elevation_deg: float
    folder: Path


@dataclass(frozen=True, eq=False)
class Sample:
    """One strip of views that is to be made or kept.

    Attributes:
        source: its input.
        path: of the strip; what is written beside it has the same name.
        seed: of its noise.
        settings: all that its pixels depend on.
    """

    source: Source
    path: Path
    seed: int
    settings: dict[str, Any]

    @property
    def record(self) -> Path:
        """The file with the settings."""
        return self.path.with_suffix(".json")

    @property
    def views(self) -> Path:
        """The folder of single views."""
        return self.path.with_suffix("")

    @property
    def preview(self) -> Path:
        """The animation."""
        return self.path.with_suffix(".gif")

    def is_done(self) -> bool:
        """Whether the strip is there, whole, made from the same input with the same settings."""
        recorded = self._recorded()
        return (
            recorded is not None
            and recorded["settings"] == self.settings
            and recorded["sha256"] == _checksum(self.path)
        )

    def remove(self) -> None:
        """Remove the strip and what was made of it; the record stays, and so do others' files."""
        for view in self.single_views():
            view.unlink()
        with suppress(OSError):  # not there, or not empty
            self.views.rmdir()
        self.preview.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def single_views(self) -> list[Path]:
        """Files of single views that are there."""
        return sorted(self.views.glob("[0-9][0-9][0-9].png"))

    def was_made(self) -> bool:
        """Whether a record says that it was made with these settings, if it is there or not."""
        recorded = self._recorded()
        return recorded is not None and recorded["settings"] == self.settings

    def is_recorded(self) -> bool:
        """Whether a record is there that this command wrote."""
        return self._recorded() is not None

    def differences(self) -> str:
        """Say how the strip that is there differs from what is asked."""
        recorded = self._recorded()
        if recorded is None:
            return "nothing beside it says how it was made"
        was = recorded["settings"]
        changed = [
            f"{name} was {was.get(name)!r}, now {self.settings.get(name)!r}"
            for name in sorted(set(was) | set(self.settings))
            if was.get(name) != self.settings.get(name)
        ]
        return ", ".join(changed) or "it is not the file that was written then"

    def _recorded(self) -> dict[str, Any] | None:
        try:
            recorded = json.loads(self.record.read_text())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(recorded, dict) or not isinstance(recorded.get("settings"), dict):
            return None
        return recorded if "sha256" in recorded else None


def _checksum(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _images_in(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not file.name.startswith(".")
        and file.is_file()
    )
    if not found:
        raise ValueError(f"{path}: there are no images in this folder")
    return found


def collect_inputs(
    paths: Sequence[Path], elevations_deg: Sequence[float], output: Path
) -> list[Source]:
    """Pair every image with its elevation and its folder of results.

    Args:
        paths: image files and folders of them; a folder's images are taken by name.
        elevations_deg: one for all images, or one for each.
        output: a single image's results go here, several images' into a folder each.

    Raises:
        FileNotFoundError, ValueError: no images, or names or elevations that do not match.
    """
    images = [image for path in paths for image in _images_in(path)]
    if len(elevations_deg) not in (1, len(images)):
        raise ValueError(
            f"--elevation needs one value for all images or one for each: got "
            f"{len(elevations_deg)} values for {len(images)} images"
        )
    if len(elevations_deg) == 1:
        elevations_deg = list(elevations_deg) * len(images)
    if len(images) == 1 and not paths[0].is_dir():
        return [Source(images[0], elevations_deg[0], output)]
    for path in images:
        if path.stem in (".", ".."):
            raise ValueError(f"{path}: cannot name a folder of results after this file; rename it")
    folders = [output / path.stem for path in images]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        same = [str(path) for path in images if path.stem == twice.name]
        raise ValueError(
            f"two inputs are called '{twice.name}': their results would mix; rename one of "
            f"{' and '.join(same)}"
        )
    return [
        Source(path, elevation, folder)
        for path, elevation, folder in zip(images, elevations_deg, folders, strict=True)
    ]


def plan_samples(
    sources: Sequence[Source], settings: dict[str, Any], sample_num: int, seed: int
) -> list[Sample]:
    """List all samples in order.

    Args:
        sources: the inputs.
        settings: what all pixels depend on, beside the input, its elevation and the seed.
        sample_num: samples of each input.
        seed: of sample 0; sample k has seed + k.
    """
    samples = []
    for source in sources:
        of_this = {
            "input": hashlib.sha256(source.path.read_bytes()).hexdigest(),
            "elevation_deg": source.elevation_deg,
            **settings,
        }
        samples += [
            Sample(source, source.folder / f"{k}.png", seed + k, {**of_this, "seed": seed + k})
            for k in range(sample_num)
        ]
    return samples


def check_replaceable(sample: Sample) -> None:
    """Raise FileExistsError where a result, or a file of its name, was made in another way."""
    if sample.path.exists() and not sample.is_done():
        raise FileExistsError(
            f"{sample.path}: was made with other settings ({sample.differences()}); choose "
            f"another --output, or replace it with --overwrite"
        )
    beside = [sample.record, sample.preview, *sample.single_views()]
    foreign = [path for path in beside if path.exists()]
    if foreign and not sample.is_recorded():
        raise FileExistsError(
            f"{foreign[0]}: is there already and is not a result of this command; choose another "
            f"--output, or replace it with --overwrite"
        )


def check_conflicts(samples: Sequence[Sample]) -> None:
    """Raise FileExistsError where a result would take the place of an input or of a folder."""
    inputs = {sample.source.path.resolve() for sample in samples}
    for sample in samples:
        for path in (sample.path, sample.record, sample.preview):
            if path.is_dir():
                raise FileExistsError(f"{path}: is a folder, but a result is to be written there")
            if path.resolve() in inputs:
                raise FileExistsError(f"{path}: is an input; choose another --output")
        if sample.views.exists() and not sample.views.is_dir():
            raise FileExistsError(f"{sample.views}: is a file, but the views' folder has this name")
        if sample.views.resolve() in {path.parent for path in inputs}:
            raise FileExistsError(
                f"{sample.views}: the folder of an input; choose another --output"
            )


def prepare_output(samples: Sequence[Sample], bytes_each: int, save_views: bool) -> None:
    """Make the folders of results, and make sure that something can be written to them.

    Raises:
        OSError: naming the folder.
    """
    folders = sorted({sample.source.folder for sample in samples})
    folders += [sample.views for sample in samples if save_views]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{folder}: cannot be written to ({reason}); see --output") from error
    if folders:
        check_free_space(folders[0], len(samples) * bytes_each)


def write_sample(sample: Sample, strip: np.ndarray) -> None:
    """Write a strip (H, N H, 3) uint8 and its record, in the place of what was there."""
    replaces_ours = sample.is_recorded()
    with atomic_write(sample.path) as strip_path:
        Image.fromarray(strip).save(strip_path)
        record = {"settings": sample.settings, "sha256": _checksum(strip_path)}
        with atomic_write(sample.record) as record_path:
            record_path.write_text(json.dumps(record, indent=1) + "\n")
    if replaces_ours:  # then its views and its preview are out of date
        sample.preview.unlink(missing_ok=True)
        for view in sample.single_views():
            view.unlink()


def write_extras(sample: Sample, save_views: bool, preview: bool) -> None:
    """Write the single views and the animation of a strip that is there."""
    if not (save_views or preview):
        return
    with Image.open(sample.path) as image:
        views = strip_to_views(np.asarray(image))
    if save_views:
        sample.views.mkdir(exist_ok=True)
        for name, view in zip(view_names(len(views)), views, strict=True):
            with atomic_write(sample.views / name) as path:
                Image.fromarray(view).save(path)
    if preview:
        with atomic_write(sample.preview) as path:
            save_animation(path, list(views))
