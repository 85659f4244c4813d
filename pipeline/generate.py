"""What `generate.py` can do before and after drawing: estimate elevations, and choose samples."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ldm.config import SyncDreamerConfig
from multiview.cameras import NUM_VIEWS
from multiview.images import prepare_image, read_image, resolve_crop_size
from multiview.views import read_views
from pipeline import generate_samples as generation
from pipeline.generate_samples import GenerateOptions
from pipeline.paths import CURVE, ELEVATION
from pipeline.sample_store import (
    Sample,
    Source,
    check_conflicts,
    check_replaceable,
    collect_inputs,
    plan_samples,
    prepare_output,
    write_sample,
)
from pipeline.selection.elevation import ElevationConfig
from pipeline.selection.elevation_drafts import (
    draft_path,
    draft_sampler,
    find_elevation,
    write_estimate,
)
from pipeline.selection.ranking import SCORES, SampleScore, order, score_sample, write_scores
from pipeline.view_generator import SyncDreamerGenerator, ViewGenerator

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
    """Make the samples of all inputs, see `pipeline.generate_samples.generate`.

    Args:
        config: sizes of the model.
        paths: image files and folders of them.
        elevations: degrees or "auto", one for all images or one for each.
        options: see there.
        keep: see `rank_and_prune`; None does not compare the samples.

    Returns:
        the strips that there are, in order.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError, MemoryError: one line that says
            what to do.
        pipeline.view_generator.ModelError: the model cannot be loaded.
    """
    model = None
    degrees = [each for each in elevations if each != "auto"]
    if len(degrees) < len(elevations):
        view_generator = SyncDreamerGenerator(
            config, options.checkpoint, options.device, options.dtype, options.batch_view_num
        )
        degrees = estimate_elevations(paths, elevations, options, view_generator)
        model = view_generator.loaded
    removed: dict[Path, SampleScore] = {}

    def was_removed(sample: Sample) -> bool:
        compare = keep == "best" and not options.overwrite
        score = removed_score(sample, options.sample_num) if compare else None
        if score is not None:
            removed[sample.path] = score
        return score is not None

    strips = generation.generate(config, paths, degrees, options, model, was_removed)
    if keep is None:
        return strips
    return rank_and_prune(collect_inputs(paths, degrees, options.output), strips, keep, removed)


def estimate_elevations(
    paths: Sequence[Path],
    elevations: Sequence[Elevation],
    options: GenerateOptions,
    view_generator: ViewGenerator,
) -> list[float]:
    """Put an estimate where an elevation is "auto".

    The drafts are kept like samples, in the folder drafts/ of the input's results, and drawn anew
    only with `options.overwrite`; elevation.json and elevation.png tell of the estimate.

    Args:
        paths: image files and folders of them, see `collect_inputs`.
        elevations: degrees or "auto", one for all images or one for each.
        options: of the samples; drafts have fewer steps.
        view_generator: of the drafts.

    Returns:
        degrees, as many as there are images.

    Raises:
        FileNotFoundError, ValueError: naming the image.
        FileExistsError, OSError: drafts or samples cannot be written where they should be.
        pipeline.view_generator.ModelError, MemoryError: see `ViewGenerator`.
    """
    numbers = [float("nan") if given == "auto" else given for given in elevations]
    sources = collect_inputs(paths, numbers, options.output)
    drafts = {
        source: _plan_drafts(source, options, view_generator)
        for source in sources
        if np.isnan(source.elevation_deg)
    }
    for source, planned in drafts.items():
        _check_replaceable(source, planned.values(), options)
    return [
        _estimate(source, drafts[source], options, view_generator)
        if source in drafts
        else source.elevation_deg
        for source in sources
    ]


def _plan_drafts(
    source: Source, options: GenerateOptions, view_generator: ViewGenerator
) -> dict[float, Sample]:
    """The drafts of an input by the elevations that they assume, degrees."""
    settings = {
        "crop_size": resolve_crop_size(source.path, options.crop_size),
        **view_generator.settings(draft_sampler(options.sampler)),
    }
    drafts = {}
    for assumed in ElevationConfig().drafts_at:
        path = draft_path(source.folder, assumed)
        drawn_for = replace(source, elevation_deg=assumed, folder=path.parent)
        (draft,) = plan_samples([drawn_for], settings, 1, options.seed)
        drafts[assumed] = replace(draft, path=path)
    return drafts


def _check_replaceable(
    source: Source, drafts: Collection[Sample], options: GenerateOptions
) -> None:
    """Raise FileExistsError, before anything is drawn, where files of others would be replaced."""
    samples = plan_samples([source], {}, options.sample_num, options.seed)
    check_conflicts([*drafts, *samples])
    of_estimate = [source.folder / name for name in (ELEVATION, CURVE)]
    if source.path.resolve() in [path.resolve() for path in of_estimate]:
        raise FileExistsError(f"{source.path}: is an input; choose another --output")
    if options.overwrite:
        return
    for sample in [*drafts, *(sample for sample in samples if not sample.is_recorded())]:
        check_replaceable(sample)
    foreign = [path for path in of_estimate if path.exists()]
    if foreign and not any(draft.is_recorded() for draft in drafts):
        raise FileExistsError(
            f"{foreign[0]}: is there already and is not a result of this command; choose another "
            f"--output, or replace it with --overwrite"
        )


def _estimate(
    source: Source,
    drafts: Mapping[float, Sample],
    options: GenerateOptions,
    view_generator: ViewGenerator,
) -> float:
    """Estimate the elevation of one input in degrees; draw the drafts that are not there."""
    sampler, size = draft_sampler(options.sampler), view_generator.size
    strip_bytes = NUM_VIEWS * size * size * 3

    def draft(assumed: float) -> np.ndarray:
        """Views of an assumed elevation in degrees, float32 in [0, 1], (N, H, H, 3)."""
        sample = drafts[assumed]
        if options.overwrite or not sample.is_done():
            pixels = prepare_image(source.path, sample.settings["crop_size"], size)
            write_sample(sample, view_generator.generate(pixels, assumed, sample.seed, sampler))
        return read_views(sample.path, NUM_VIEWS)

    todo = [each for each in drafts.values() if options.overwrite or not each.is_done()]
    prepare_output(todo, strip_bytes, save_views=False)
    try:
        estimate = find_elevation(np.asarray(read_image(source.path)), draft)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    found = float(write_estimate(source.folder, estimate)["elevation_deg"])
    log.info("%s: elevation %.1f +- %.1f degrees, estimated",
             source.path, found, estimate.uncertainty_deg)  # fmt: skip
    return found


def removed_score(sample: Sample, sample_num: int) -> SampleScore | None:
    """The score of a sample that was removed because a better one was there.

    The sample's record and scores.json say so.

    Args:
        sample: one that would be made.
        sample_num: how many are asked for, from 0 on; the better one must be one of them.

    Returns:
        None where it was not made with these settings, or is the best one.
    """
    if not sample.was_made():
        return None
    try:
        rows = json.loads((sample.path.parent / SCORES).read_text(encoding="utf-8"))
        row = next(row for row in rows if row["name"] == sample.path.name)
        best = next(row["name"] for row in rows if row["rank"] == 1)
        if row["name"] == best or int(Path(best).stem) >= sample_num:
            return None
        return SampleScore(**{item.name: row[item.name] for item in fields(SampleScore)})
    except (OSError, ValueError, RecursionError, TypeError, KeyError, StopIteration):
        return None


def rank_and_prune(
    sources: Sequence[Source],
    strips: Sequence[Path],
    keep: Keep,
    removed: Mapping[Path, SampleScore] | None = None,
) -> list[Path]:
    """Order the samples of every input; write scores.json beside them.

    Args:
        sources: the inputs.
        strips: samples of all of them that are there, each in its input's folder.
        keep: "best" removes the others, and what was made of them; their records stay.
        removed: scores of samples that were removed before, by their paths.

    Returns:
        the samples that are kept, in order.
    """
    kept = []
    for source in sources:
        picture = np.asarray(read_image(source.path))
        samples = [path for path in strips if path.parent == source.folder]
        scores = {
            path: score_sample(read_views(path, NUM_VIEWS), picture, source.elevation_deg)
            for path in samples
        }
        best = samples[order(list(scores.values()))[0]]
        scores |= {
            path: score for path, score in (removed or {}).items() if path.parent == source.folder
        }
        paths = sorted(scores, key=lambda path: int(path.stem))
        write_scores(
            source.folder / SCORES, [path.name for path in paths], [scores[path] for path in paths]
        )
        log.info("%s: best of %d, score %.3f", best, len(paths), scores[best].score)
        kept += samples if keep == "all" else [best]
        for path in samples if keep == "best" else []:
            if path != best:
                Sample(source, path, 0, {}).remove()
    return kept
