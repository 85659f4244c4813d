"""From one picture to a mesh: the work of `image_to_3d.py`, step by step.

    segment -> frame -> drafts, elevation -> samples -> rank -> reconstruct -> export -> report

Each step is a file or some, and a record (`common.records`).
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.files import atomic_write
from common.records import Facts, Step, Workplace
from ldm.config import SamplerConfig
from multiview.images import (
    auto_crop_size,
    crop_and_pad,
    prepare_image,
    read_image,
    save_animation,
    strip_to_views,
)
from multiview.matting import WHOLE_IMAGE, has_mask, mask_area, remove_background, save_rgba
from multiview.segmentation import open_segmenter
from multiview.views import NUM_VIEWS, read_views
from pipeline.paths import (
    BEST,
    CURVE,
    ELEVATION,
    EXPORTED,
    FRAMED,
    METRICS,
    OBJECT,
    RECONSTRUCTION,
    REPORT,
    SAMPLES,
    TURNING,
)  # fmt: skip
from pipeline.report import write_page
from pipeline.selection.elevation_drafts import (
    draft_path,
    draft_sampler,
    find_elevation,
    write_estimate,
)
from pipeline.selection.ranking import SCORES, Weights, order, score_sample, write_scores
from pipeline.settings import Settings, Tools
from pipeline.view_generator import ModelError
from renderer.output_dir import CHECKPOINT
from renderer.reconstruction import ReconstructionOptions, reconstruct

log = logging.getLogger(__name__)


class StepError(Exception):
    """A step failed; the message says of which picture, which step, and why."""


def image_to_3d(image: Path, folder: Path, settings: Settings, tools: Tools) -> Workplace:
    """Make a mesh of the object in a picture; steps that were done before are kept.

    Args:
        image: the picture.
        folder: of all results, made if it is not there.
        settings: what to do.
        tools: of all pictures.

    Returns:
        which steps there were, and which of them were done now.

    Raises:
        FileNotFoundError, ValueError: the picture is not there, or is none.
        FileExistsError, NotADirectoryError, OSError: the folder is not this command's to write to,
            or holds results of another picture.
        StepError: what went wrong in which step.
        pipeline.view_generator.ModelError: the model cannot be loaded.
    """
    read_image(image)  # before anything is written
    if image.resolve().is_relative_to(folder.resolve()):
        raise FileExistsError(f"{image}: is in the folder of the results; choose another --output")
    place = Workplace(folder, settings.overwrite, summary=REPORT)
    run = Run(image, place, settings, tools)
    with place.open():
        place.refuse_other_input("segment", image)
        with _named(image, place):
            run.segment()
            run.frame()
            elevation = run.find_elevation()
            samples = run.generate(elevation)
            run.rank(samples, elevation)
            run.reconstruct()
            run.export()
            run.report(samples)
    log.info("%s: %s", image, folder / REPORT)
    return place


@contextmanager
def _named(image: Path, place: Workplace) -> Iterator[None]:
    """Say of every failure which picture and which step it was."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise StepError(f"{image}: {place.current or 'folder'}: {reason}") from error


@dataclass
class Run:
    """The steps of one picture."""

    image: Path
    place: Workplace
    settings: Settings
    tools: Tools

    @property
    def folder(self) -> Path:
        """Of all results."""
        return self.place.folder

    def segment(self) -> None:
        """object.png: the picture with its object's mask as alpha."""
        result = self.folder / OBJECT
        image = read_image(self.image)
        given = has_mask(image)
        backend = None if given else self.settings.backend

        def work() -> Facts:
            found = image
            if backend is not None:
                if self.tools.segmenter is None:
                    self.tools.segmenter = open_segmenter(backend, str(self.settings.device))
                found = remove_background(image, self.tools.segmenter, backend)
            if mask_area(found) > WHOLE_IMAGE:
                log.warning("%s: the mask covers the whole picture", self.image)
            save_rgba(result, found)
            return {"mask": "given" if given else "found", "covered": round(mask_area(found), 4),
                    "width": image.width, "height": image.height}  # fmt: skip

        self.place.do(Step("segment", {"backend": backend}, [self.image], [result]), work)

    def frame(self) -> None:
        """framed.png: the object brought into the picture as the model wants it."""
        source, result = self.folder / OBJECT, self.folder / FRAMED
        size = self.tools.drawer.size

        def work() -> Facts:
            image, crop_size = read_image(source), self.settings.crop_size
            chosen = auto_crop_size(image) if crop_size == "auto" else crop_size
            with atomic_write(result) as temporary:
                crop_and_pad(image, chosen, size).save(temporary)
            return {"crop_size": chosen}

        settings = {"crop_size": self.settings.crop_size, "size": size}
        self.place.do(Step("frame", settings, [source], [result]), work)

    def find_elevation(self) -> float:
        """elevation.json, elevation.png: from how high the picture was taken, degrees."""
        framed, result, curve = (self.folder / name for name in (FRAMED, ELEVATION, CURVE))
        asked = self.settings.elevation
        if asked != "auto":
            for path in (result, curve):  # the drafts stay, for another try
                path.unlink(missing_ok=True)
            self.place.do(Step("elevation", {"elevation": asked}, [], []), lambda: None)
            return asked
        sought = self.settings.elevations
        sampler = draft_sampler(self.settings.sampler, self.settings.draft_steps)
        drafts = {degrees: draft_path(self.folder, degrees) for degrees in sought.drafts_at}
        for degrees, path in drafts.items():
            self._draw(f"draft-{path.stem}", path, degrees, self.settings.seed, sampler)

        def work() -> Facts:
            picture = np.asarray(read_image(framed))
            estimate = find_elevation(
                picture, lambda degrees: read_views(drafts[degrees], NUM_VIEWS), sought
            )
            found = write_estimate(self.folder, estimate)
            return {name: found[name] for name in ("elevation_deg", "uncertainty_deg")}

        step = Step(
            "elevation",
            {"elevation": asked, **asdict(sought)},
            [framed, *drafts.values()],
            [result, curve],
        )
        facts = self.place.do(step, work)
        log.info("elevation: %(elevation_deg)s +- %(uncertainty_deg)s degrees", facts)
        return float(facts["elevation_deg"])

    def generate(self, elevation_deg: float) -> list[Path]:
        """samples/<k>.png: strips of 16 views."""
        samples = [
            self.folder / SAMPLES / f"{k}.png" for k in range(self.settings.sample_num)
        ]  # fmt: skip
        for record in self.place.records("sample-*"):
            path = self.folder / SAMPLES / f"{record.stem.removeprefix('sample-')}.png"
            if path not in samples:  # no longer asked for
                path.unlink(missing_ok=True)
                record.unlink()
        for k, path in enumerate(samples):
            seed = self.settings.seed + k
            self._draw(f"sample-{k}", path, elevation_deg, seed, self.settings.sampler)
        return samples

    def _draw(
        self, name: str, path: Path, elevation_deg: float, seed: int, sampler: SamplerConfig
    ) -> None:
        framed, drawer = self.folder / FRAMED, self.tools.drawer

        def work() -> None:
            path.parent.mkdir(exist_ok=True)
            pixels = prepare_image(framed, -1, drawer.size)
            strip = drawer.draw(pixels, elevation_deg, seed, sampler)
            with atomic_write(path) as temporary:
                Image.fromarray(strip).save(temporary)

        settings = {"elevation_deg": elevation_deg, "seed": seed, **drawer.settings(sampler)}
        self.place.do(Step(name, settings, [framed], [path]), work)

    def rank(self, samples: list[Path], elevation_deg: float) -> None:
        """scores.json, best.png, best.gif: the samples in order, and the best of them, turning."""
        framed, scores_file, best, turning = (
            self.folder / name for name in (FRAMED, SCORES, BEST, TURNING)
        )

        def work() -> Facts:
            picture = np.asarray(read_image(framed))
            scores = [
                score_sample(read_views(path, NUM_VIEWS), picture, elevation_deg)
                for path in samples
            ]
            first = order(scores)[0]
            if scores[first].problem:
                log.warning("no sample shows an object: %s", scores[first].problem)
            with atomic_write(best) as temporary:
                shutil.copyfile(samples[first], temporary)
            with atomic_write(turning) as temporary:
                save_animation(temporary, list(strip_to_views(np.asarray(read_image(best)))))
            write_scores(scores_file, [path.name for path in samples], scores)
            return {"best": samples[first].name, "score": round(scores[first].score, 4)}

        settings = {"elevation_deg": elevation_deg, **asdict(Weights())}
        step = Step("rank", settings, [framed, *samples], [scores_file, best, turning])
        facts = self.place.do(step, work)
        log.info("best sample: %(best)s, score %(score)s", facts)

    def reconstruct(self) -> None:
        """reconstruction/: what train_renderer.py writes."""
        strip, folder = self.folder / BEST, self.folder / RECONSTRUCTION
        settings = {
            "preset": self.settings.preset,
            "seed": self.settings.seed,
            **self.settings.renderer.settings(),
        }
        results = [*(folder / name for name in EXPORTED), self.folder / METRICS]
        step = Step("reconstruct", settings, [strip], results)

        def work() -> Facts:
            checkpoint = folder / CHECKPOINT
            if not self.place.was_begun(step):
                checkpoint.unlink(missing_ok=True)
                self.place.begin(step)
            resume = checkpoint.is_file()
            options = ReconstructionOptions(
                self.settings.seed,
                self.settings.device,
                self.settings.preset,
                resume=resume,
                overwrite=not resume,
                export_when_stopped=False,
                on_progress=self.tools.report,
            )
            outcome = reconstruct(strip, folder, self.settings.renderer, options)
            if outcome.stopped_by is not None:
                log.warning("the same command goes on with it")
                sys.exit(128 + outcome.stopped_by)
            return outcome.metrics

        self.place.do(step, work)

    def export(self) -> None:
        """mesh.glb, mesh.ply, rendering.mp4, where one looks for them."""
        sources = [self.folder / RECONSTRUCTION / name for name in EXPORTED]
        results = [self.folder / name for name in EXPORTED]

        def work() -> None:
            for source, result in zip(sources, results, strict=True):
                with atomic_write(result) as temporary:
                    shutil.copyfile(source, temporary)

        self.place.do(Step("export", {}, sources, results), work)

    def report(self, samples: list[Path]) -> None:
        """report.html: all of it on one page."""
        result = self.folder / REPORT
        names = list(self.place.names)
        inputs = [self.image, *(self.place.record(name) for name in names)]

        def work() -> None:
            records: dict[str, dict[str, Any]] = {
                name: record for name in names if (record := self.place.read(name))
            }
            write_page(result, self.image, self.folder, records, samples)

        self.place.do(Step("report", {"samples": len(samples)}, inputs, [result]), work)
