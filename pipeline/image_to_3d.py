"""From one image to a mesh: the steps of `image_to_3d.py`, with records (`common.records`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.files import atomic_write, copy_file
from common.html import thumbnail
from common.records import Facts, RunDirectory, Step
from ldm.config import SamplerConfig
from multiview.cameras import NUM_VIEWS
from multiview.image_file import read_image
from multiview.images import auto_crop_size, crop_and_pad, save_animation, strip_to_views
from multiview.mask_check import check_mask, mask_area
from multiview.matting import has_mask, remove_background, save_rgba
from multiview.segmentation import open_segmenter
from multiview.views import read_views
from pipeline.config import Context, PipelineConfig
from pipeline.inputs import InputImage, PreparedInput, prepare_input
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
from pipeline.selection.elevation_drafts import draft_path, draft_sampler, find_elevation
from pipeline.selection.ranking import POOR_SCORE, SCORES, Weights, rank_samples
from pipeline.view_generator import ModelError
from renderer.config import RendererConfig
from renderer.formats.convert import export_formats
from renderer.formats.options import ALWAYS, FORMATS, PRINT_REPORT
from renderer.output_dir import CHECKPOINT
from renderer.reconstruction import ReconstructionOptions, reconstruct, summary

log = logging.getLogger(__name__)


class StepError(Exception):
    """A step failed; the message names the image, the step and the reason."""


def image_to_3d(
    image: Path, folder: Path, config: PipelineConfig, context: Context
) -> RunDirectory:
    """Reconstruct the object in an image; up-to-date steps of earlier runs are kept.

    `folder` is for all results, and created if missing. The returned directory has the names of all
    steps and of those that were run.

    Raises:
        FileNotFoundError, ValueError: the image is missing or cannot be read.
        FileExistsError, NotADirectoryError, OSError: the folder holds other files or results of
            another image, or cannot be written to.
        StepError: a step failed.
        pipeline.view_generator.ModelError: the model cannot be loaded.
    """
    source = InputImage.read(image)  # before anything is written
    if image.resolve().is_relative_to(folder.resolve()):
        raise FileExistsError(f"{image}: is in the folder of the results")
    directory = RunDirectory(
        folder, config.overwrite, summary=REPORT, checksums={image: source.sha256}
    )
    run = Run(image, directory, config, context)
    with directory.open():
        directory.check_same_input("segment", image)
        try:
            run.segment(source)
            small = thumbnail(source.pixels)
            del source  # frees the pixels
            run.frame()
            elevation = run.find_elevation()
            samples = run.generate(elevation)
            run.rank(samples, elevation)
            run.reconstruct()
            run.export()
            run.export_formats()
            run.report(small, samples)
        except ModelError:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise StepError(f"{image}: {directory.current or 'folder'}: {reason}") from error
    log.info("%s: %s", image, folder / REPORT)
    return directory


@dataclass
class Run:
    """The steps of one image, whose results are in `directory`."""

    image: Path
    directory: RunDirectory
    config: PipelineConfig
    context: Context

    @property
    def folder(self) -> Path:
        """Of all results."""
        return self.directory.folder

    @cached_property
    def prepared(self) -> PreparedInput:
        """The result of `frame`, read once."""
        framed, size = InputImage.read(self.folder / FRAMED), self.context.view_generator.size
        return prepare_input(framed, self.folder, self.config.elevation, -1, size)

    def segment(self, source: InputImage) -> None:
        """Write object.png: the image with its object's mask as alpha."""
        result, image = self.folder / OBJECT, source.pixels
        given = has_mask(image)
        backend = None if given else self.config.backend

        def work() -> Facts:
            found = image
            if backend is not None:
                if self.context.segmenter is None:
                    self.context.segmenter = open_segmenter(backend, str(self.config.device))
                found = remove_background(image, self.context.segmenter, backend)
            found = check_mask(found, self.image)
            save_rgba(result, found)
            mask, covered = "given" if given else "found", round(mask_area(found), 4)
            return {
                "mask": mask, "covered": covered, "width": image.width, "height": image.height,
            }  # fmt: skip

        self.directory.do(Step("segment", {"backend": backend}, [self.image], [result]), work)

    def frame(self) -> None:
        """Write framed.png: the object, cropped and padded as the model's input."""
        source, result = self.folder / OBJECT, self.folder / FRAMED
        size = self.context.view_generator.size

        def work() -> Facts:
            image, crop_size = read_image(source), self.config.crop_size
            chosen = auto_crop_size(image) if crop_size == "auto" else crop_size
            with atomic_write(result) as temporary:
                crop_and_pad(image, chosen, size).save(temporary)
            return {"crop_size": chosen}

        settings = {"crop_size": self.config.crop_size, "size": size}
        self.directory.do(Step("frame", settings, [source], [result]), work)

    def find_elevation(self) -> float:
        """Write elevation.json and elevation.png; return the camera's elevation in degrees."""
        framed_path, result, curve = (self.folder / name for name in (FRAMED, ELEVATION, CURVE))
        asked = self.config.elevation
        if asked != "auto":
            for path in (result, curve):  # the drafts are kept for a later estimate
                path.unlink(missing_ok=True)
            self.directory.do(Step("elevation", {"elevation": asked}, [], []), lambda: None)
            return asked
        sought = self.config.elevations
        sampler = draft_sampler(self.config.sampler, self.config.draft_steps)
        drafts = {degrees: draft_path(self.folder, degrees) for degrees in sought.drafts_at}
        for degrees, path in drafts.items():
            make = partial(next, self._strips(degrees, [self.config.seed], sampler))
            self._write(f"draft-{path.stem}", path, degrees, self.config.seed, sampler, make)

        def work() -> Facts:
            target = self.prepared.crop
            assert target is not None
            found = find_elevation(
                target, lambda degrees: read_views(drafts[degrees], NUM_VIEWS), sought, self.folder
            )
            return {name: found[name] for name in ("elevation_deg", "uncertainty_deg")}

        settings, inputs = {"elevation": asked, **asdict(sought)}, [framed_path, *drafts.values()]
        facts = self.directory.do(Step("elevation", settings, inputs, [result, curve]), work)
        log.info("elevation: %(elevation_deg)s +- %(uncertainty_deg)s degrees", facts)
        return float(facts["elevation_deg"])

    def _strips(self, *given: Any) -> Iterator[np.ndarray]:  # at which elevation, seeds, sampler
        yield from self.context.view_generator.generate_batch(self.prepared.framed, *given)

    def generate(self, elevation_deg: float) -> list[Path]:
        """Write samples/<k>.png, strips of 16 views; return their paths."""
        folder = self.folder / SAMPLES
        samples = [folder / f"{k}.png" for k in range(self.config.num_samples)]
        for record in self.directory.records("sample-*"):
            path = folder / f"{record.stem.removeprefix('sample-')}.png"
            if path not in samples:  # of a run with more samples
                path.unlink(missing_ok=True)
                record.unlink()
        batch: tuple[int, Iterator[np.ndarray]] = -1, iter(())  # its next sample, and the strips

        def strip_of(k: int) -> np.ndarray:
            nonlocal batch
            if batch[0] != k:
                seeds = range(self.config.seed + k, self.config.seed + len(samples))
                batch = k, self._strips(elevation_deg, seeds, self.config.sampler)
            batch = k + 1, batch[1]
            return next(batch[1])

        for k, path in enumerate(samples):
            given = elevation_deg, self.config.seed + k, self.config.sampler, partial(strip_of, k)
            self._write(f"sample-{k}", path, *given)
        return samples

    def _write(
        self, name: str, path: Path, elevation_deg: float, seed: int, sampler: SamplerConfig,
        make: Callable[[], np.ndarray],
    ) -> None:  # fmt: skip
        def work() -> None:
            path.parent.mkdir(exist_ok=True)
            strip = Image.fromarray(make())
            with atomic_write(path) as temporary:
                strip.save(temporary)

        of_model = self.context.view_generator.settings(sampler)
        settings = {"elevation_deg": elevation_deg, "seed": seed, **of_model}
        self.directory.do(Step(name, settings, [self.folder / FRAMED], [path]), work)

    def rank(self, samples: list[Path], elevation_deg: float) -> None:
        """Write scores.json, best.png and best.gif: the ranking, the best sample, its animation."""
        names = (FRAMED, SCORES, BEST, TURNING)
        framed, scores_file, best, turning = (self.folder / name for name in names)

        def work() -> Facts:
            first, score = rank_samples(self.folder, samples, self.prepared.crop, elevation_deg)
            if score.warning:
                log.warning("no good sample: %s", score.warning)
            copy_file(samples[first], best)
            with atomic_write(turning) as temporary:
                save_animation(temporary, list(strip_to_views(np.asarray(read_image(best)))))
            return {"best": samples[first].name, "score": round(score.score, 4)}

        settings = {"elevation_deg": elevation_deg, "poor_score": POOR_SCORE, **asdict(Weights())}
        step = Step("rank", settings, [framed, *samples], [scores_file, best, turning])
        facts = self.directory.do(step, work)
        log.info("best sample: %(best)s, score %(score)s", facts)

    def reconstruct(self) -> None:
        """Write reconstruction/, as train_renderer.py does."""
        options = ReconstructionOptions(
            self.config.seed,
            self.config.device,
            self.config.preset,
            on_progress=self.context.on_progress,
        )
        folder = self.folder / RECONSTRUCTION
        reconstruct_step(self.directory, self.folder / BEST, folder, self.config.renderer, options)

    def export(self) -> None:
        """Copy mesh.glb, mesh.ply and rendering.mp4 into the folder of all results."""
        sources = [self.folder / RECONSTRUCTION / name for name in EXPORTED]
        results = [self.folder / name for name in EXPORTED]

        def work() -> None:
            for source, result in zip(sources, results, strict=True):
                copy_file(source, result)

        self.directory.do(Step("export", {}, sources, results), work)

    def export_formats(self) -> None:
        """Write the other formats that are wanted, and remove those of earlier runs."""
        wanted, mesh = self.config.export, self.folder / FORMATS["glb"]
        others = [file for name, file in FORMATS.items() if name not in ALWAYS]
        for file in {*others, PRINT_REPORT} - set(wanted.files):
            (self.folder / file).unlink(missing_ok=True)
        if wanted.more:
            results = [self.folder / file for file in wanted.files]
            work = partial(export_formats, mesh, self.folder, wanted)
            settings = {"size_mm": wanted.size_mm, "flat_base": wanted.flat_base}
            self.directory.do(Step("formats", settings, [mesh], results), work)

    def report(self, small: Image.Image, samples: list[Path]) -> None:
        """Write report.html, which shows all steps; `small` is the input's thumbnail."""
        result = self.folder / REPORT
        names = list(self.directory.names)
        inputs = [self.image, *(self.directory.record(name).path for name in names)]

        def work() -> None:
            records: dict[str, dict[str, Any]] = {
                name: record for name in names if (record := self.directory.record(name).read())
            }
            write_page(result, self.image.name, small, self.folder, records, samples)

        self.directory.do(Step("report", {"samples": len(samples)}, inputs, [result]), work)


def reconstruct_step(
    directory: RunDirectory,
    strip: Path,
    folder: Path,
    config: RendererConfig,
    options: ReconstructionOptions,
) -> None:
    """Reconstruct a strip in a folder inside a run's; a killed one continues at its checkpoint."""
    settings = {"preset": options.preset, "seed": options.seed, **config.settings()}
    results = [folder / name for name in (*EXPORTED, METRICS.name)]
    step = Step("reconstruct", settings, [strip], results)

    def work() -> Facts:
        checkpoint = folder / CHECKPOINT
        if not directory.has_marker(step):
            checkpoint.unlink(missing_ok=True)
            directory.mark_started(step)
        resume = checkpoint.is_file()
        now = replace(options, resume=resume, overwrite=not resume, export_when_stopped=False)
        outcome = reconstruct(strip, folder, config, now)
        if outcome.stopped_by is not None:
            log.warning("run the same command again to resume")
            sys.exit(128 + outcome.stopped_by)
        log.info("%s", summary(outcome.metrics))
        return outcome.metrics

    directory.do(step, work)
