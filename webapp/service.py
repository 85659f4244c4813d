"""Pipeline runs of the page: segmentation, views and mesh of a visitor's image."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from common.files import copy_file
from common.records import RunDirectory
from multiview.image_file import read_image
from multiview.matting import save_rgba
from multiview.segmentation import SegmentationUnavailableError, open_segmenter
from pipeline.config import Context, PipelineConfig
from pipeline.image_to_3d import Run
from pipeline.inputs import InputImage
from pipeline.paths import BEST, EXPORTED, RECONSTRUCTION, SAMPLES
from pipeline.selection.ranking import SCORES
from pipeline.view_generator import ViewGenerator
from renderer.formats.convert import convert
from renderer.formats.options import (
    FORMATS,
    PACKAGES,
    PRINT_REPORT,
    PRINTED,
    SIZES_MM,
    ExportOptions,
)
from renderer.formats.printing import NotPrintableError
from renderer.output_dir import CHECKPOINT, VIDEO_FILE
from webapp.job import Progress, ProgressCallback
from webapp.mask_editor import MaskEditor, UserError, read_upload
from webapp.progress import VIEWS_DONE, ProgressGenerator, reconstruction_progress
from webapp.sessions import Session

log = logging.getLogger(__name__)

ELEVATIONS = (-10.0, 40.0)
"""Range of elevations on the page, degrees."""
SEEDS = (0, 2**31)
"""Range of seeds."""
MODEL = FORMATS["glb"]
WORK = "work"
"""Folder of the views in a session's folder."""
FAILED = "Internal server error; details are in the server's log. Try again."
NO_NETWORK = (
    "This server has no segmentation network: white pixels count as background. Correct the mask "
    "by clicks, or upload an image with a transparent background."
)


class Sample(NamedTuple):
    """A generated and ranked sample: rank 1 is the best; `score` is that of `SampleScore`."""

    path: Path
    rank: int
    score: float

    @property
    def number(self) -> int:
        """Number on the page, from 1, in order of generation."""
        return int(self.path.stem) + 1

    @property
    def title(self) -> str:
        """Caption of its views."""
        return f"Sample {self.number}: 16 views"

    def strip(self) -> np.ndarray:
        """Read the strip, uint8 (H, 16 H, 3)."""
        return np.asarray(read_image(self.path).convert("RGB"))


class Service:
    """Runs the pipeline for all sessions; `config.num_samples` limits the samples of visitors."""

    def __init__(self, view_generator: ViewGenerator, config: PipelineConfig) -> None:
        self.view_generator, self.config = view_generator, config
        self.notice = ""
        """Message for visitors whose image has no mask."""
        try:
            self._segment = open_segmenter(config.backend, str(config.device))
        except SegmentationUnavailableError as error:
            if config.backend != "auto":
                raise
            log.warning("only white backgrounds are segmented: %s", error)
            self.notice = NO_NETWORK
            self._segment = open_segmenter("white")

    def open_image(self, session: Session, path: Path) -> MaskEditor:
        """Read an image and segment its object; UserError if the image cannot be used."""
        image = read_upload(path)
        session.editor = MaskEditor(image, self._segment, self.config.backend)
        if image.mode != "RGBA":
            session.editor.notice = session.editor.notice or self.notice
        return session.editor

    def request(self, auto: Any, elevation: Any, num_samples: Any, seed: Any) -> PipelineConfig:
        """Settings of a visitor: the page's values, clipped, since clients can send anything.

        Raises:
            UserError: a value is not a number.
        """
        try:
            degrees, number, first = float(elevation), int(num_samples), int(seed)
            if math.isnan(degrees):
                raise ValueError("not a number")
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError("Elevation, samples and seed must be numbers.") from error
        low, high = ELEVATIONS
        return replace(
            self.config,
            elevation="auto" if auto else min(max(degrees, low), high),
            num_samples=min(max(number, 1), self.config.num_samples),
            seed=min(max(first, SEEDS[0]), SEEDS[1]),
            overwrite=False,
        )

    def generate_views(
        self,
        session: Session,
        image: Image.Image,
        wanted: PipelineConfig,
        on_progress: ProgressCallback,
    ) -> None:
        """Generate and rank the samples; unchanged ones of earlier calls are reused.

        Raises:
            UserError: the object cannot be framed, or its elevation not estimated.
        """
        folder = session.folder / WORK
        folder.mkdir(exist_ok=True)
        save_rgba(session.folder / "object.png", image)
        run = self._run(session, folder, wanted, on_progress)
        with run.directory.open():
            on_progress(Progress(0.0, "Preparing the image"))
            try:
                run.segment(InputImage.read(run.image))
                run.frame()
            except ValueError as error:
                raise UserError(f"The object cannot be framed: {error}.") from error
            try:
                elevation = run.find_elevation()
            except ValueError as error:
                log.warning("the elevation cannot be estimated: %s", error)
                raise UserError(
                    "The camera's elevation cannot be estimated from this image. Choose it under "
                    "More settings."
                ) from error
            samples = run.generate(elevation)
            on_progress(Progress(VIEWS_DONE, "Ranking the samples"))
            run.rank(samples, elevation)

    def samples(self, session: Session) -> list[Sample]:
        """The session's samples, the best one first."""
        folder = session.folder / WORK
        rows = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        return [Sample(folder / SAMPLES / row["name"], row["rank"], row["score"]) for row in rows]

    def build_mesh(
        self,
        session: Session,
        sample: Sample,
        wanted: PipelineConfig,
        on_progress: ProgressCallback,
    ) -> dict[str, Path]:
        """Reconstruct the mesh of a sample, or reuse that of an earlier call, in its own folder.

        Returns the files that the page serves by their names in the pipeline, best.png last.

        Raises:
            UserError: the views do not show one object.
        """
        folder = session.folder / f"mesh-{sample.number}"
        run = self._run(session, folder, wanted, on_progress)
        with run.directory.open():
            on_progress(Progress(VIEWS_DONE, "Building the mesh", sample.strip(), sample.title))
            copy_file(sample.path, folder / BEST)
            try:
                run.reconstruct()
            except (ValueError, FloatingPointError) as error:
                log.warning("the reconstruction failed: %s", error)
                raise UserError(
                    "No mesh can be built from this sample: its views are not consistent with one "
                    "object. Try another sample or another seed."
                ) from error
            (folder / RECONSTRUCTION / CHECKPOINT).unlink(missing_ok=True)  # 15 MB
        files = session.files = {}
        for name in (*EXPORTED, BEST):
            stem = {VIDEO_FILE: "turning", BEST: "views"}.get(name, "model")
            files[name] = session.file(stem, Path(name).suffix)
            copy_file(folder / (name if name == BEST else f"{RECONSTRUCTION}/{name}"), files[name])
        return files

    def convert(self, session: Session, name: Any, size_mm: Any, flat_base: Any) -> None:
        """Add another format of the latest mesh to the session's files, see `renderer.formats`.

        Raises:
            UserError: there is no mesh, a value is not one of the page's, or it cannot be printed.
        """
        low, high = SIZES_MM
        if not isinstance(size_mm, int | float) or not low <= size_mm <= high:
            raise UserError(f"The longest edge must be from {low:,} to {high:,} mm.")
        wanted, source = ExportOptions((name,), size_mm, bool(flat_base)), session.files.get(MODEL)
        if source is None or not wanted.more:
            raise UserError("Build a mesh first, and choose a format.")
        file = Path(wanted.more[name])
        target = session.file(file.stem.replace("mesh", "model"), file.suffix)
        try:
            convert(source, {name: target}, wanted)
        except NotPrintableError as error:
            raise UserError(f"{str(error).partition(': ')[2].capitalize()}.") from error
        except ModuleNotFoundError as error:
            raise UserError(
                f"This server cannot write {name}; {PACKAGES} lists what for."
            ) from error
        session.files[file.name] = target
        if name in PRINTED:
            session.files[PRINT_REPORT] = target.with_suffix(".print.json")

    def _run(
        self, session: Session, folder: Path, wanted: PipelineConfig, on_progress: ProgressCallback
    ) -> Run:
        directory = RunDirectory(folder)
        view_generator = ProgressGenerator(self.view_generator, wanted, directory, on_progress)
        context = Context(view_generator, self._segment, reconstruction_progress(on_progress))
        return Run(session.folder / "object.png", directory, wanted, context)
