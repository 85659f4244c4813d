"""Measure a model on the paper's objects, and compare it with all published results.

    python -m evaluation.reproduce

takes the objects of `python -m evaluation.gso download`. For each it generates samples from the
published input (view 0, elevation 30, whole), on all GPUs of the machine, and scores their views;
with --ranking, --meshes and --points also what the names say. It prints and writes table.md, with
all published results beside this run, and says which of its numbers are within their bands. The
time left is shown. A run that was stopped continues where it was; what exists is kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import HelpFormatter, add_common_flags, project_file
from common.config import load_config
from common.files import atomic_write, file_lock
from common.records import make_writable
from evaluation.benchmark.run import add_metric_flags
from evaluation.gso.download import OUTPUT as OBJECTS
from pipeline.cli_args import (
    add_model_flags,
    flag_advice,
    given_sampler,
    parse_flags,
)

if TYPE_CHECKING:
    from common.workers.work import Engine
    from evaluation.benchmark.dataset import ObjectFiles
    from evaluation.benchmark.evaluate import ObjectRecord, Settings
    from pipeline.reproduction.steps import Plan

log = logging.getLogger(__name__)

TABLE = "table.md"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser without importing torch."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.reproduce",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    add = parser.add_argument
    add("--gt", type=Path, default=OBJECTS,
        help="folder of the true objects: <name>/000.png .. 015.png and model.obj")  # fmt: skip
    add("--output", type=Path, default=Path("output/reproduction"), help="folder of all results")
    add("--limit", type=int, help="only the first objects, by name")
    add("--seeds", type=int, dest="sample_num", default=argparse.SUPPRESS,
        help="the same as --sample_num")  # fmt: skip
    add_model_flags(parser)
    add("--ranking", action="store_true",
        help="rank the samples without the truth, and score the best one too")  # fmt: skip
    add("--meshes", action="store_true",
        help="reconstruct the best sample by the ranking, else sample 0")  # fmt: skip
    add("--preset", choices=["fast", "default", "best"], default="default", help="of --meshes")
    add("--points", action="store_true", help="count the COLMAP points of every sample")
    add("--overwrite", action="store_true", help="make all views and meshes again")
    add_metric_flags(parser)
    add_common_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse_flags(build_parser(), argv)
    from common.workers.flags import choose_engine
    from evaluation.benchmark.run import choose_settings, metric_engine
    from pipeline.reproduction.devices import all_devices, run_on_objects
    from pipeline.reproduction.steps import make_mesh, make_views

    objects = find_objects(args)
    plan = read_plan(args)
    engine = choose_engine(args, all_devices(args.device), None)
    make_writable(plan.output, plan.output)
    with file_lock(plan.output / TABLE, wait=False), flag_advice():
        settings, missing = choose_settings(args)
        steps = plan.sampler.steps * plan.num_samples
        log.info(
            "%d objects, %d samples of %d steps each",
            len(objects), plan.num_samples, plan.sampler.steps,
        )  # fmt: skip
        failures = run_on_objects(engine, make_views, plan, objects, "views", steps)
        objects = [files for files in objects if files.name not in failures]
        with_truth = [files for files in objects if files.true_mesh]
        if plan.renderer is not None and with_truth:
            failures |= run_on_objects(engine, make_mesh, plan, with_truth, "meshes", 1)
            objects = [files for files in objects if files.name not in failures]
        if not objects:
            raise ValueError("no object was finished; the reasons are above")
        records = [
            _evaluate(objects, plan, k, settings, missing, metric_engine(args))
            for k in range(plan.num_samples)
        ]
        failures |= {
            record.result.name: f"{part}: {message}"
            for of_sample in records
            for record in of_sample
            for part, message in record.errors.items()
        }
        _write_table(plan, objects, records, missing, failures)
    if failures:
        log.error("%d objects failed, in whole or in part: %s", len(failures), ", ".join(failures))
        sys.exit(1)


def find_objects(args: argparse.Namespace) -> list[ObjectFiles]:
    """The objects with true views, sorted by name.

    Raises:
        FileNotFoundError: there are none.
    """
    from evaluation.benchmark.dataset import BenchmarkDataset

    advice = "python -m evaluation.gso download fetches the paper's objects"
    if not args.gt.is_dir():
        raise FileNotFoundError(f"{args.gt}: no such folder (of objects); {advice}")
    dataset = BenchmarkDataset([args.gt], [args.gt], None)
    found = [files for name in dataset.names() if (files := dataset.find(name)).true]
    if not found:
        raise FileNotFoundError(f"{args.gt}: no folders of views in it; {advice}")
    return found[: args.limit]


def read_plan(args: argparse.Namespace) -> Plan:
    """The settings of the run that the flags name."""
    from ldm.config import GenerateConfig
    from ldm.sampling.config import change_sampler
    from pipeline.reproduction.steps import Plan
    from renderer.config import load_renderer_config

    config = load_config(GenerateConfig, args.cfg, args.set)
    renderer = project_file("configs/neus.yaml")
    return Plan(
        output=args.output,
        model=config.model,
        checkpoint=args.ckpt,
        dtype=args.dtype,
        views_at_once=args.batch_view_num,
        sampler=change_sampler(config.sampler, given_sampler(args)),
        num_samples=args.sample_num,
        seed=args.seed,
        ranking=args.ranking,
        overwrite=args.overwrite,
        renderer=load_renderer_config(renderer, args.preset) if args.meshes else None,
        preset=args.preset,
    )


def _evaluate(
    objects: list[ObjectFiles],
    plan: Plan,
    sample: int,
    settings: Settings,
    missing: list[str],
    engine: Engine,
) -> list[ObjectRecord]:
    """Evaluate one sample of all objects; its report is in samples/<number>."""
    from evaluation.benchmark.run import evaluate_and_report
    from pipeline.reproduction.steps import evaluated_files

    log.info("evaluating sample %d of %d", sample + 1, plan.num_samples)
    files = [evaluated_files(each, plan, sample) for each in objects]
    folder = plan.output / "samples" / str(sample)
    return evaluate_and_report(files, settings, missing, folder, f"sample {sample}", engine)


def _write_table(
    plan: Plan,
    objects: list[ObjectFiles],
    records: list[list[ObjectRecord]],
    missing: list[str],
    failures: dict[str, str],
) -> None:
    from evaluation.benchmark.tables import make_notes, to_markdown
    from pipeline.reproduction.tables import Run, conclusion, make_tables

    results = {
        files.name: [record.result for record in of_object]
        for files, of_object in zip(objects, zip(*records, strict=True), strict=True)
        if all(record.result.psnr is not None for record in of_object)
    }
    if not results:
        raise ValueError(f"no object was scored: {next(iter(failures.values()))}")
    chosen = {name: plan.chosen(name) for name in results}
    size = plan.model.cameras.image_size
    run = Run(results, chosen, plan.ranking, size, plan.sampler)
    every = [each for samples in results.values() for each in samples]
    notes = [conclusion(run), *make_notes(run.mean(), every, list(failures)), *missing]
    text = to_markdown(make_tables(run), notes)
    with atomic_write(plan.output / TABLE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    log.info("wrote %s; the views of sample k are in %s", plan.output / TABLE,
             plan.output / "samples" / "<k>" / "index.html")  # fmt: skip
