"""What the page makes: views and a mesh of a visitor's object, by the steps of the pipeline."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from common.files import atomic_write
from common.records import Workplace
from ldm.config import SamplerConfig
from ldm.generate_views import DrawingStep, Watch
from multiview.images import read_image
from multiview.matting import save_rgba
from multiview.segmentation import SegmentationUnavailableError, Segmenter, open_segmenter
from pipeline.image_to_3d import Run, Settings, Tools
from pipeline.paths import BEST, EXPORTED, SAMPLES
from pipeline.selection.elevation_drafts import draft_sampler
from pipeline.selection.ranking import SCORES
from pipeline.view_generator import Drawer
from webapp.job import Tell, Update
from webapp.mask_editor import MaskEditor, read_upload
from webapp.sessions import Visit

log = logging.getLogger(__name__)

ELEVATIONS = (-10.0, 40.0)
"""Degrees that a visitor may choose."""
LOOKS = 0.25
"""Share of the drawing's time that goes into looking at it."""
VIEWS_SHARE, TRAINED_SHARE, MESH_SHARE = 0.55, 0.85, 0.92
"""Where the progress bar is when the views are drawn, the training is done, the mesh is there."""
WORK = "work"
NO_NETWORK = (
    "There is no network on this server that finds objects: what is white counts as background. "
    "Adjust the mask by clicks, or send a picture with a transparent background."
)


class MakingError(Exception):
    """It cannot be made; the message is for the visitor."""


@dataclass(frozen=True)
class Wishes:
    """What a visitor may choose.

    Attributes:
        elevation: degrees that the camera looked down, or "auto".
        samples: to draw, and choose from.
        seed: of the first.
    """

    elevation: float | Literal["auto"]
    samples: int
    seed: int


@dataclass(frozen=True)
class Sample:
    """A sample of the views.

    Attributes:
        path: strip.
        rank: 1 is the best one.
        score: how well its views fit together, and to the picture.
    """

    path: Path
    rank: int
    score: float

    @property
    def number(self) -> int:
        """From 1, in the order in which they were drawn."""
        return int(self.path.stem) + 1


@dataclass(frozen=True)
class Mesh:
    """Files of a mesh, as they are handed out."""

    glb: Path
    ply: Path
    video: Path
    strip: Path


class Maker:
    """Does the work for all visitors.

    Args:
        drawer: of views.
        settings: whatever visitors do not choose; `sample_num` is the most that they may ask for.
    """

    def __init__(self, drawer: Drawer, settings: Settings) -> None:
        self.drawer, self.settings = drawer, settings
        self.note = ""
        """What visitors should know about the masks."""
        self._segment = self._open_segmenter()

    def _open_segmenter(self) -> Segmenter:
        try:
            return open_segmenter(self.settings.backend, str(self.settings.device))
        except SegmentationUnavailableError as error:
            if self.settings.backend != "auto":
                raise
            log.warning("masks of pictures on white only: %s", error)
            self.note = NO_NETWORK
            return open_segmenter("white")

    def open_picture(self, visit: Visit, path: Path) -> MaskEditor:
        """Take a picture and find the object in it.

        Raises:
            webapp.mask_editor.PictureError: it cannot be used.
        """
        image = read_upload(path)
        given = image.mode == "RGBA"
        visit.editor = MaskEditor(image, self._segment, self.settings.backend)
        if self.note and not given and not visit.editor.found:
            visit.editor.found = self.note
        return visit.editor

    def wishes(self, auto: Any, elevation: Any, samples: Any, seed: Any) -> Wishes:
        """Bring what the page sends into its limits; pages can be made to send anything.

        Raises:
            MakingError: it is no number.
        """
        try:
            degrees, number, first = float(elevation), int(samples), int(seed)
        except (TypeError, ValueError, OverflowError) as error:
            raise MakingError("Elevation, samples and seed must be numbers.") from error
        low, high = ELEVATIONS
        if degrees != degrees:
            raise MakingError("Elevation, samples and seed must be numbers.")
        return Wishes(
            "auto" if auto else min(max(degrees, low), high),
            min(max(number, 1), self.settings.sample_num),
            min(max(first, 0), 2**31),
        )

    def make_views(self, visit: Visit, picture: Image.Image, wishes: Wishes, tell: Tell) -> None:
        """Draw the samples and order them; what was drawn before of the same is kept.

        Raises:
            MakingError: for the visitor.
            webapp.job.Stopped: nobody waits any more.
        """
        folder = visit.folder / WORK
        folder.mkdir(exist_ok=True)
        source = visit.folder / "object.png"
        save_rgba(source, picture)
        run = self._run(visit, wishes, tell)
        with run.place.open():
            tell(Update(0.0, "Bringing the object into the frame"))
            try:
                run.segment()
                run.frame()
            except ValueError as error:
                raise MakingError(f"The object cannot be framed: {error}.") from error
            try:
                elevation = run.find_elevation()
            except ValueError as error:
                log.warning("no elevation: %s", error)
                raise MakingError(
                    "The camera's elevation cannot be estimated from this picture. Choose it "
                    "under More settings."
                ) from error
            samples = run.generate(elevation)
            tell(Update(VIEWS_SHARE, "Comparing the samples"))
            run.rank(samples, elevation)

    def samples(self, visit: Visit) -> list[Sample]:
        """The samples that there are, the best one first."""
        folder = visit.folder / WORK
        rows = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        found = [
            Sample(folder / SAMPLES / row["name"], int(row["rank"]), float(row["score"]))
            for row in rows
        ]
        return sorted(found, key=lambda sample: sample.rank)

    def make_mesh(self, visit: Visit, sample: Sample, wishes: Wishes, tell: Tell) -> Mesh:
        """Build the mesh of a sample; it is kept where it is there already.

        Raises:
            MakingError: for the visitor.
            webapp.job.Stopped: nobody waits any more.
        """
        run = self._run(visit, wishes, tell)
        with run.place.open():
            strip = np.asarray(read_image(sample.path).convert("RGB"))
            title = f"Sample {sample.number}: 16 views"
            tell(Update(VIEWS_SHARE, "Building the mesh", strip, title))
            with atomic_write(run.folder / BEST) as temporary:
                shutil.copyfile(sample.path, temporary)
            try:
                run.reconstruct()
            except (ValueError, FloatingPointError) as error:
                log.warning("no mesh: %s", error)
                raise MakingError(
                    "No mesh can be built of this sample: its views do not show one object. Try "
                    "another sample, or another seed."
                ) from error
            run.export()
        named = Mesh(
            visit.file("model", ".glb"),
            visit.file("model", ".ply"),
            visit.file("turning", ".mp4"),
            visit.file("views", ".png"),
        )
        sources = [*(run.folder / name for name in EXPORTED), sample.path]
        for source, path in zip(
            sources, (named.glb, named.ply, named.video, named.strip), strict=True
        ):
            with atomic_write(path) as temporary:
                shutil.copyfile(source, temporary)
        return named

    def _run(self, visit: Visit, wishes: Wishes, tell: Tell) -> Run:
        settings = replace(
            self.settings,
            elevation=wishes.elevation,
            sample_num=wishes.samples,
            seed=wishes.seed,
            overwrite=False,
        )
        place = Workplace(visit.folder / WORK)
        drawer = WatchedDrawer(self.drawer, settings, place, tell)
        tools = Tools(drawer, self._segment, reconstruction_report(tell))
        return Run(visit.folder / "object.png", place, settings, tools)


class WatchedDrawer:
    """Draws, and lets somebody watch.

    Args:
        drawer: does the work.
        settings: tell how much there is to draw.
        place: tells what is being drawn.
        tell: whom to tell.
    """

    def __init__(self, drawer: Drawer, settings: Settings, place: Workplace, tell: Tell) -> None:
        self.drawer, self.place, self.tell, self.wanted = drawer, place, tell, settings
        self._drafts = [f"draft-{degrees:+.1f}" for degrees in settings.elevations.drafts_at]
        if settings.elevation != "auto":
            self._drafts = []

    @property
    def size(self) -> int:
        """Pixels a side of a view."""
        return self.drawer.size

    def settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        """All that a strip depends on, see `Drawer`."""
        return self.drawer.settings(sampler)

    def draw(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seed: int,
        sampler: SamplerConfig,
        watch: Watch | None = None,
    ) -> np.ndarray:
        """Draw the views, see `Drawer`, and tell of each step."""
        name = self.place.current
        began, looking = time.monotonic(), 0.0

        def told(step: DrawingStep) -> None:
            nonlocal looking
            if watch is not None:
                watch(step)
            words, title, share = self._words(name, step)
            before = time.monotonic()
            look = step.number == step.of or looking <= LOOKS * (before - began)
            strip = step.look() if look else None
            looking += time.monotonic() - before
            self.tell(Update(VIEWS_SHARE * share, words, strip, title))

        self.tell(Update(VIEWS_SHARE * self._share(name, 0.0), "Looking at the picture"))
        return self.drawer.draw(pixels, elevation_deg, seed, sampler, told)

    def _share(self, name: str, drawn: float) -> float:
        """Share of all the drawing that is done, when so much of one strip is."""
        drafts = draft_sampler(self.wanted.sampler, self.wanted.draft_steps)
        weights = [float(drafts.steps)] * len(self._drafts)
        weights += [float(self.wanted.sampler.steps)] * self.wanted.sample_num
        names = self._drafts + [f"sample-{k}" for k in range(self.wanted.sample_num)]
        place = names.index(name)
        return (sum(weights[:place]) + drawn * weights[place]) / sum(weights)

    def _words(self, name: str, step: DrawingStep) -> tuple[str, str, float]:
        share = self._share(name, step.number / step.of)
        count = f"step {step.number} of {step.of}"
        if name in self._drafts:
            draft = f"draft {self._drafts.index(name) + 1} of {len(self._drafts)}"
            return (
                f"Estimating the elevation: {draft}, {count}",
                "A quick draft of the views",
                share,
            )
        number = int(name.removeprefix("sample-")) + 1
        words = f"Drawing sample {number} of {self.wanted.sample_num}: {count}"
        return words, f"Sample {number}: 16 views", share


def reconstruction_report(tell: Tell) -> Callable[[str, float], None]:
    """What to call during a reconstruction, see `renderer.reconstruction.Options`."""

    def report(what: str, share: float) -> None:
        match what:
            case "training":
                done = VIEWS_SHARE + share * (TRAINED_SHARE - VIEWS_SHARE)
                words = f"Building the mesh: {round(100 * share)} %"
            case "mesh":
                done, words = TRAINED_SHARE, "Painting the mesh"
            case _:
                done, words = MESH_SHARE + share * (1.0 - MESH_SHARE), "Filming a full turn"
        tell(Update(done, words))

    return report
