"""From input images to strips of views: the steps of `generate.py`."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from common.config import load_config
from common.devices import peak_memory, pick_device
from common.records import ReplaceError
from ldm.config import GenerateConfig, SamplerConfig
from ldm.sampling.config import change_sampler
from multiview.cameras import NUM_VIEWS
from multiview.images import CropSize
from multiview.views import read_views
from pipeline.cli_args import given_sampler
from pipeline.image_list import FAILURES, Elevation, list_left_out, write_failures
from pipeline.inputs import PreparedInput, prepare_inputs
from pipeline.paths import CURVE, ELEVATION
from pipeline.sample_store import Sample, StripFiles, check_conflicts, prepare_output
from pipeline.selection.elevation import ElevationConfig
from pipeline.selection.elevation_drafts import draft_path, draft_sampler, find_elevation
from pipeline.selection.ranking import SCORES, SampleScore, rank_samples, read_scores
from pipeline.view_generator import SyncDreamerGenerator, ViewGenerator

log = logging.getLogger(__name__)

Keep = Literal["all", "best"]
CameraFormat = Literal["transforms", "colmap"]


@dataclass(frozen=True)
class GenerateOptions:
    """What `generate.py` was asked for; see its flags.

    `num_samples` is of each input; sample k has seed + k. `device` is for the report of memory;
    `keep` None does not rank; `cameras` of saved views are in transforms.json, and with
    "colmap" in a COLMAP model too.
    """

    output: Path
    crop_size: CropSize
    num_samples: int
    seed: int
    sampler: SamplerConfig
    device: torch.device
    keep: Keep | None = None
    overwrite: bool = False
    save_views: bool = False
    preview: bool = False
    cameras: CameraFormat = "transforms"


def read_options(args: argparse.Namespace) -> tuple[GenerateOptions, SyncDreamerGenerator]:
    """What checked flags ask for; the weights are not read yet.

    Raises:
        FileNotFoundError, ValueError: see `load_config` and `pick_device`.
    """
    config = load_config(GenerateConfig, args.cfg, args.set)
    device = pick_device(args.device)
    of_preset = {"published": config.sampler, **vars(config.presets)}[args.preset]
    options = GenerateOptions(
        args.output, args.crop_size, args.sample_num, args.seed,
        change_sampler(of_preset, given_sampler(args)), device, args.keep, args.overwrite,
        args.save_views, args.preview, args.cameras,
    )  # fmt: skip
    return options, SyncDreamerGenerator(
        config.model, args.ckpt, device, args.dtype, args.batch_view_num, args.compile
    )


def generate(
    paths: Sequence[Path],
    elevations: Sequence[Elevation],
    options: GenerateOptions,
    view_generator: ViewGenerator,
) -> list[Path]:
    """Generate the samples of all inputs; existing ones with the same settings are kept.

    Errors of the inputs, the settings and the output are found before the weights are loaded and
    before any file is written. Images of a folder that cannot be used do not stop the others: they
    are listed in failures.csv, and the first one's error is raised at the end. `elevations` are
    degrees or "auto", one for all images or one for each. The kept strips are returned in order.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError, MemoryError: naming the file.
        pipeline.view_generator.ModelError: the model cannot be loaded.
    """
    compare, failures = options.keep is not None, dict[Path, Exception]()
    inputs = prepare_inputs(
        paths, elevations, options.output, options.crop_size, view_generator.size, compare, failures
    )
    if failures and not inputs:
        raise next(iter(failures.values()))
    inputs = estimate_elevations(inputs, options, view_generator)
    samples, removed = generate_samples(inputs, options, view_generator)
    if options.keep is not None:
        samples = rank_and_prune(inputs, samples, options.keep, removed)
    if any(path.is_dir() for path in paths):
        listed = {path: str(error) for path, error in failures.items()}
        write_failures(options.output, {**listed, **list_left_out(paths)})
    for error in failures.values():
        total = len(inputs) + len(failures)
        raise type(error)(f"{error}; {len(failures)} of {total} images failed, see {FAILURES}")
    return [sample.path for sample in samples]


def estimate_elevations(
    inputs: Sequence[PreparedInput], options: GenerateOptions, view_generator: ViewGenerator
) -> list[PreparedInput]:
    """Estimate the unknown elevations from drafts, which are kept in drafts/ like samples.

    elevation.json and elevation.png show the estimate.

    Raises:
        ValueError: naming the image.
        FileExistsError, OSError: drafts or samples cannot be written to their folders.
    """
    shared = options.seed, draft_sampler(options.sampler), view_generator
    drafts = {
        source: {
            at: Sample(draft_path(source.folder, at), source, at, *shared)
            for at in ElevationConfig().drafts_at
        }
        for source in inputs
        if source.elevation_deg is None
    }
    todo = {
        source: _check_estimate_files(source, list(planned.values()), inputs, options)
        for source, planned in drafts.items()
    }
    return [
        _estimate(source, drafts[source], todo[source], options) if source in drafts else source
        for source in inputs
    ]


def _check_estimate_files(
    source: PreparedInput,
    drafts: Sequence[Sample],
    inputs: Sequence[PreparedInput],
    options: GenerateOptions,
) -> list[Sample]:
    """The drafts that are to be made, after a check that nothing of others will be replaced."""
    strips = [StripFiles(path) for path in _sample_paths(source, options)]
    of_estimate = [source.folder / name for name in (ELEVATION, CURVE)]
    check_conflicts([*drafts, *strips], [each.path for each in inputs], of_estimate)
    if options.overwrite:
        return list(drafts)
    todo = [draft for draft in drafts if not draft.check_replaceable()]
    for strip in strips:
        strip.check_foreign()
    foreign = [path for path in of_estimate if path.exists()]
    if foreign and all(draft.record.read() is None for draft in drafts):
        raise ReplaceError(f"{foreign[0]}: exists and is not a result of this command")
    return todo


def _sample_paths(source: PreparedInput, options: GenerateOptions) -> list[Path]:
    return [source.folder / f"{k}.png" for k in range(options.num_samples)]


def _estimate(
    source: PreparedInput,
    drafts: Mapping[float, Sample],
    todo: Sequence[Sample],
    options: GenerateOptions,
) -> PreparedInput:
    """Estimate the elevation of one input; generate the missing drafts."""
    prepare_output(todo)

    def draft(assumed: float) -> np.ndarray:
        if drafts[assumed] in todo:
            (strip,) = generate_strips([drafts[assumed]])
            drafts[assumed].write(strip, options.overwrite)
        return read_views(drafts[assumed].path, NUM_VIEWS)

    assert source.crop is not None
    try:
        found = find_elevation(source.crop, draft, folder=source.folder)
    except ValueError as error:
        raise type(error)(f"{source.path}: {error}") from error
    angle, uncertainty = found["elevation_deg"], found["uncertainty_deg"]
    log.info("%s: elevation %.1f +- %.1f degrees, estimated", source.path, angle, uncertainty)
    return replace(source, elevation_deg=angle)


def generate_samples(
    inputs: Sequence[PreparedInput], options: GenerateOptions, view_generator: ViewGenerator
) -> tuple[list[Sample], dict[Path, SampleScore]]:
    """Generate the samples that are neither up to date nor removed as worse by an earlier run.

    Returns the existing samples, in order, and the scores of the removed ones by their paths.
    """
    shared = options.sampler, view_generator
    samples = [
        Sample(path, source, source.elevation_deg, options.seed + k, *shared)
        for source in inputs
        if source.elevation_deg is not None
        for k, path in enumerate(_sample_paths(source, options))
    ]
    check_conflicts(samples, [source.path for source in inputs])
    removed = {
        sample.path: score
        for sample in (samples if options.keep == "best" and not options.overwrite else [])
        if not sample.path.exists() and (score := removed_score(sample, options.num_samples))
    }
    samples = [sample for sample in samples if sample.path not in removed]
    kept = [] if options.overwrite else [each for each in samples if each.check_replaceable()]
    todo = [sample for sample in samples if sample not in kept]
    prepare_output(todo, options.save_views, options.preview)

    for sample in kept:
        log.info("kept %s: made from the same input with the same settings", sample.path)
        sample.write_extras(options.save_views, options.preview, options.cameras == "colmap")
    start = time.perf_counter()
    bar = tqdm(todo, "samples", disable=None if len(todo) > 1 else True)
    for sample, strip in zip(bar, generate_strips(todo), strict=True):
        sample.write(strip, options.overwrite)
        sample.write_extras(options.save_views, options.preview, options.cameras == "colmap")
        log.info("wrote %s", sample.path)
    if todo:
        seconds = time.perf_counter() - start
        log.info("%d samples in %.1f s, %s", len(todo), seconds, peak_memory(options.device))
    return samples, removed


def generate_strips(samples: Sequence[Sample]) -> Iterator[np.ndarray]:
    """Generate samples in order, those of an input as a batch."""
    for source, group in groupby(samples, key=lambda sample: sample.source):
        first, *others = group
        seeds = [first.seed, *(sample.seed for sample in others)]
        yield from first.view_generator.generate_batch(
            source.framed, first.elevation_deg, seeds, first.sampler
        )


def removed_score(sample: Sample, num_samples: int) -> SampleScore | None:
    """Score of a sample that an earlier run removed because another one was better.

    None if it was not generated with these settings, or is the best one, or the best one is not
    among the first `num_samples`.
    """
    scores = read_scores(sample.path.parent / SCORES)
    best, name = next(iter(scores), ""), sample.path.name
    asked_for = best in {f"{k}.png" for k in range(num_samples)}
    return scores.get(name) if asked_for and best != name and sample.was_generated() else None


def rank_and_prune(
    inputs: Sequence[PreparedInput],
    samples: Sequence[Sample],
    keep: Keep,
    removed: Mapping[Path, SampleScore],
) -> list[Sample]:
    """Rank the samples of every input and write scores.json beside them.

    "best" removes the strips and views of all others; their records stay. `removed` has the scores
    of samples that were removed before, by their paths. Returns the kept samples, in order.
    """
    kept: list[Sample] = []
    for source in inputs:
        own = [sample for sample in samples if sample.source is source]
        worse = {path.name: each for path, each in removed.items() if path.parent == source.folder}
        number, score = rank_samples(
            source.folder, [s.path for s in own], source.crop, source.elevation_deg, worse
        )
        best = own[number]
        log.info("%s: best of %d, score %.3f", best.path, len(own) + len(worse), score.score)
        if score.warning:
            log.warning("%s: %s", best.path, score.warning)
        kept += own if keep == "all" else [best]
        for sample in own:
            if sample not in kept:
                sample.remove()
    return kept
