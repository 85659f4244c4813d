"""What `generate.py` can do before and after drawing: estimate elevations, and choose samples."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from evaluation.ranking import SCORES, order, score_sample, write_scores
from ldm import generation
from ldm.config import SyncDreamerConfig
from ldm.generation import GenerateOptions
from ldm.results import Source, collect_inputs
from ldm.sampler import SamplerConfig
from multiview.images import CropSize, prepare_image, read_image, resolve_crop_size, strip_to_views
from multiview.views import NUM_VIEWS, read_views
from pipeline.drafts import draft_sampler, find_elevation
from pipeline.drawer import Drawer, ModelDrawer

log = logging.getLogger(__name__)

Elevation = float | Literal["auto"]
Keep = Literal["all", "best"]


def generate(
    config: SyncDreamerConfig,
    paths: Sequence[Path],
    elevations: Sequence[Elevation],
    options: GenerateOptions,
    keep: Keep | None = None,
) -> list[Path]:
    """Make the samples of all inputs, see `ldm.generation.generate`.

    Args:
        config: sizes of the model.
        paths: image files and folders of them.
        elevations: degrees or "auto", one for all images or one for each.
        options: see there.
        keep: see `choose_samples`; None does not compare the samples.

    Returns:
        the strips that there are, in order.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError, MemoryError: one line that says
            what to do.
        pipeline.drawer.ModelError: the model cannot be loaded.
    """
    model = None
    degrees = [each for each in elevations if each != "auto"]
    if len(degrees) < len(elevations):
        drawer = ModelDrawer(
            config, options.checkpoint, options.device, options.dtype, options.batch_view_num
        )
        degrees = estimate_elevations(
            paths, elevations, options.crop_size, options.seed, options.sampler, drawer
        )
        model = drawer.model()
    strips = generation.generate(config, paths, degrees, options, model)
    if keep is None:
        return strips
    return choose_samples(collect_inputs(paths, degrees, options.output), strips, keep)


def estimate_elevations(
    paths: Sequence[Path],
    elevations: Sequence[Elevation],
    crop_size: CropSize,
    seed: int,
    sampler: SamplerConfig,
    drawer: Drawer,
) -> list[float]:
    """Put an estimate where an elevation is "auto".

    Args:
        paths: image files and folders of them, see `collect_inputs`.
        elevations: degrees or "auto", one for all images or one for each.
        crop_size: see `multiview.images.resolve_crop_size`.
        seed: of the drafts.
        sampler: of the samples; drafts have fewer steps.
        drawer: of the drafts.

    Returns:
        degrees, as many as there are images.

    Raises:
        FileNotFoundError, ValueError: naming the image.
        pipeline.drawer.ModelError, MemoryError: see `Drawer`.
    """
    numbers = [float("nan") if given == "auto" else given for given in elevations]
    sources = collect_inputs(paths, numbers, Path())
    found = []
    for source in sources:
        if not np.isnan(source.elevation_deg):
            found.append(source.elevation_deg)
            continue
        crop = resolve_crop_size(source.path, crop_size)
        pixels = prepare_image(source.path, crop, drawer.size)

        def draft(degrees: float, pixels: np.ndarray = pixels) -> np.ndarray:
            return strip_to_views(drawer.draw(pixels, degrees, seed, draft_sampler(sampler)))

        try:
            estimate = find_elevation(np.asarray(read_image(source.path)), draft)
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from error
        found.append(round(estimate.elevation_deg, 1))
        log.info("%s: elevation %.1f +- %.1f degrees, estimated",
                 source.path, estimate.elevation_deg, estimate.uncertainty_deg)  # fmt: skip
    return found


def choose_samples(sources: Sequence[Source], strips: Sequence[Path], keep: Keep) -> list[Path]:
    """Order the samples of every input; write scores.json beside them.

    Args:
        sources: the inputs.
        strips: samples of all of them, each in its input's folder.
        keep: "best" removes the others, and what is beside them.

    Returns:
        the samples that are kept, in order.
    """
    kept = []
    for source in sources:
        samples = [path for path in strips if path.parent == source.folder]
        picture = np.asarray(read_image(source.path))
        scores = [
            score_sample(read_views(path, NUM_VIEWS), picture, source.elevation_deg)
            for path in samples
        ]
        write_scores(source.folder / SCORES, [path.name for path in samples], scores)
        first, *others = order(scores)
        kept += samples if keep == "all" else [samples[first]]
        log.info("%s: best of %d, score %.3f", samples[first], len(samples), scores[first].score)
        for path in (samples[k] for k in others) if keep == "best" else ():
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            for suffix in (".png", ".gif", ".json"):
                path.with_suffix(suffix).unlink(missing_ok=True)
    return kept
