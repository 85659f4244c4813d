"""Pipeline runs of the page: segmentation, views and mesh of a visitor's image."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from common.files import atomic_write
from common.records import RunDirectory
from multiview.images import read_image
from multiview.matting import save_rgba
from multiview.segmentation import SegmentationUnavailableError, Segmenter, open_segmenter
from pipeline.config import Context, PipelineConfig
from pipeline.image_to_3d import Run
from pipeline.inputs import InputImage
from pipeline.paths import BEST, EXPORTED, RECONSTRUCTION, SAMPLES
from pipeline.selection.ranking import SCORES
from pipeline.view_generator import ViewGenerator
from renderer.output_dir import CHECKPOINT, VIDEO_FILE
from webapp.errors import UserError
from webapp.job import Progress, ProgressCallback
from webapp.mask_editor import MaskEditor, read_upload
from webapp.progress import VIEWS_DONE, ProgressGenerator, reconstruction_progress
from webapp.sessions import Session

log = logging.getLogger(__name__)

ELEVATIONS = (-10.0, 40.0)
"""Range of elevations on the page, degrees."""
WORK = "work"
"""Folder of the views in a session's folder."""
NO_NETWORK = (
    "This server has no segmentation network: white pixels count as background. Correct the mask "
    "by clicks, or upload an image with a transparent background."
)


@dataclass(frozen=True)
class GenerationRequest:
    """The settings that a visitor chooses.

    Attributes:
        elevation: of the input image's camera, degrees, or "auto" to estimate it.
        num_samples: number of samples.
        seed: seed of the first sample.
    """

    elevation: float | Literal["auto"]
    num_samples: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """A generated and ranked sample.

    Attributes:
        path: PNG file of the strip.
        rank: 1 is the best.
        score: consistency of its views with each other and with the input image.
    """

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


@dataclass(frozen=True)
class Mesh:
    """The files of a reconstruction that the page serves.

    Attributes:
        files: paths by their names in the pipeline, see `pipeline.paths.EXPORTED`.
        strip: the views that it is made of.
    """

    files: dict[str, Path]
    strip: Path


class Service:
    """Runs the pipeline for all sessions.

    Args:
        view_generator: generates the views.
        config: settings that visitors do not choose; `num_samples` limits their samples.
    """

    def __init__(self, view_generator: ViewGenerator, config: PipelineConfig) -> None:
        self.view_generator, self.config = view_generator, config
        self.notice = ""
        """Message for visitors whose image has no mask."""
        self._segment = self._open_segmenter()

    def _open_segmenter(self) -> Segmenter:
        try:
            return open_segmenter(self.config.backend, str(self.config.device))
        except SegmentationUnavailableError as error:
            if self.config.backend != "auto":
                raise
            log.warning("only white backgrounds are segmented: %s", error)
            self.notice = NO_NETWORK
            return open_segmenter("white")

    def open_image(self, session: Session, path: Path) -> MaskEditor:
        """Read an image and segment its object.

        Raises:
            webapp.errors.UserError: the image cannot be used.
        """
        image = read_upload(path)
        has_alpha = image.mode == "RGBA"
        session.editor = MaskEditor(image, self._segment, self.config.backend)
        if self.notice and not has_alpha and not session.editor.notice:
            session.editor.notice = self.notice
        return session.editor

    def request(self, auto: Any, elevation: Any, num_samples: Any, seed: Any) -> GenerationRequest:
        """Clip the page's values to their limits, since clients can send anything.

        Raises:
            UserError: a value is not a number.
        """
        try:
            degrees, number, first = float(elevation), int(num_samples), int(seed)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError("Elevation, samples and seed must be numbers.") from error
        low, high = ELEVATIONS
        if degrees != degrees:
            raise UserError("Elevation, samples and seed must be numbers.")
        return GenerationRequest(
            "auto" if auto else min(max(degrees, low), high),
            min(max(number, 1), self.config.num_samples),
            min(max(first, 0), 2**31),
        )

    def generate_views(
        self,
        session: Session,
        image: Image.Image,
        request: GenerationRequest,
        on_progress: ProgressCallback,
    ) -> None:
        """Generate and rank the samples; unchanged ones of earlier calls are reused.

        Raises:
            UserError: the object cannot be framed, or its elevation not estimated.
            webapp.job.Stopped: the job was stopped.
        """
        folder = session.folder / WORK
        folder.mkdir(exist_ok=True)
        save_rgba(session.folder / "object.png", image)
        run = self._run(session, folder, request, on_progress)
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
        samples = [
            Sample(folder / SAMPLES / row["name"], int(row["rank"]), float(row["score"]))
            for row in rows
        ]
        return sorted(samples, key=lambda sample: sample.rank)

    def build_mesh(
        self,
        session: Session,
        sample: Sample,
        request: GenerationRequest,
        on_progress: ProgressCallback,
    ) -> Mesh:
        """Reconstruct the mesh of a sample, or reuse that of an earlier call.

        Each sample has its own folder, so building the mesh of another one keeps this one's.

        Raises:
            UserError: the views do not show one object.
            webapp.job.Stopped: the job was stopped.
        """
        folder = session.folder / f"mesh-{sample.number}"
        run = self._run(session, folder, request, on_progress)
        with run.directory.open():
            on_progress(Progress(VIEWS_DONE, "Building the mesh", sample.strip(), sample.title))
            _copy(sample.path, folder / BEST)
            try:
                run.reconstruct()
            except (ValueError, FloatingPointError) as error:
                log.warning("the reconstruction failed: %s", error)
                raise UserError(
                    "No mesh can be built from this sample: its views are not consistent with one "
                    "object. Try another sample or another seed."
                ) from error
            (folder / RECONSTRUCTION / CHECKPOINT).unlink(missing_ok=True)  # 15 MB
        names = {
            name: session.file("turning" if name == VIDEO_FILE else "model", Path(name).suffix)
            for name in EXPORTED
        }
        mesh = Mesh(names, session.file("views", ".png"))
        for name, path in mesh.files.items():
            _copy(folder / RECONSTRUCTION / name, path)
        _copy(sample.path, mesh.strip)
        return mesh

    def _run(
        self,
        session: Session,
        folder: Path,
        request: GenerationRequest,
        on_progress: ProgressCallback,
    ) -> Run:
        config = replace(
            self.config,
            elevation=request.elevation,
            num_samples=request.num_samples,
            seed=request.seed,
            overwrite=False,
        )
        directory = RunDirectory(folder)
        view_generator = ProgressGenerator(self.view_generator, config, directory, on_progress)
        context = Context(view_generator, self._segment, reconstruction_progress(on_progress))
        return Run(session.folder / "object.png", directory, config, context)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)
