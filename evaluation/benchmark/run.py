"""Evaluate folders of predicted objects; write the paper's tables and an HTML report.

    python -m evaluation.benchmark --pr eval_examples --gt eval_examples --out output/report

Evaluates each object as eval_nvs.py, eval_colmap.py and (if it has a mesh) eval_mesh.py do, several
in parallel, and writes results.csv, table.md and table.tex with the paper's numbers for comparison,
and index.html with all views. A second run evaluates only what has changed. Objects that fail are
reported and do not stop the others; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.cli import add_common_flags, advise
from common.devices import pick_device
from common.files import file_lock
from common.workers.flags import add_engine_flags, check_engine_flags, choose_engine
from common.workers.work import Engine, MakeWork, Work, Worker, follow
from evaluation.cli_args import (
    add_colmap_flags,
    add_view_flags,
    load_lpips,
    open_colmap,
    row_name,
)
from evaluation.results import Result, table_row

if TYPE_CHECKING:
    from evaluation.benchmark.dataset import ObjectFiles
    from evaluation.benchmark.evaluate import ObjectRecord, Settings

log = logging.getLogger(__name__)

MAX_DEFAULT_WORKERS = 8
"""Limits the memory on machines with many cores."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    raw, name = argparse.RawDescriptionHelpFormatter, "python -m evaluation.benchmark"
    parser = argparse.ArgumentParser(prog=name, description=__doc__, formatter_class=raw)
    add = parser.add_argument
    views = "with 000.png .. 015.png"
    predicted = f"<name>/ or <name>-pr/ {views}, or strips <name>/0.png or <name>.png"
    predicted = f"folders of the predicted objects: {predicted}; or strips <name>.png themselves"
    several = "of several the first that has an object counts"
    true = f"folders of the true objects: <name>/ or <name>-gt/ {views}; the mesh in model.obj,"
    mesh = "meshes/model.obj or <name>-mesh/meshes/model.obj"
    folders: dict[str, Any] = {"type": Path, "required": True, "nargs": "+", "metavar": "FOLDER"}
    add("--pr", help=f"{predicted}; {several}; that of --gt tests the measures", **folders)
    add("--gt", help=f"{true} {mesh}; {several}", **folders)
    meshes = "folder of the predicted meshes, <name>/mesh.ply or <name>.ply, if not --pr"
    add("--pr_mesh", type=Path, help=meshes)
    add("--objects", nargs="+", metavar="NAME", help="only these objects (default: all)")
    add("--out", type=Path, required=True, help="folder of the report")
    add("--name", type=row_name, default="this run", help="name of the row in the tables")
    add_metric_flags(parser)
    parser.set_defaults(points=True)
    add_common_flags(parser)
    return parser


def add_metric_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is measured, and in how many processes."""
    add = parser.add_argument
    workers = (
        f"parallel processes, about 1 GB each (default: cores, at most {MAX_DEFAULT_WORKERS}; "
    )
    workers += "on Ray as many as there is room for)"
    add("--workers", type=int, help=workers)
    add_engine_flags(parser, "GPUs of this machine, e.g. 0,1, that the processes share in turn")
    add_view_flags(parser)
    add_colmap_flags(parser)
    halves = "also reconstruct the even and the odd views of each object and compare the two"
    add("--self_consistency", action="store_true", help=halves)


def metric_engine(args: argparse.Namespace) -> Engine:
    """The engine that the flags of `add_metric_flags` ask for."""
    cores = min(os.cpu_count() or 1, MAX_DEFAULT_WORKERS) if args.engine == "local" else None
    return choose_engine(args, [args.device], args.workers or cores)


def main(argv: list[str] | None = None) -> None:
    """Evaluate all objects and write the report."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_engine_flags(parser, args)
    for name in args.objects or ():
        if Path(name).name != name or name in ("", ".", ".."):
            parser.error(f"--objects must be folder names, got {name!r}")
    from evaluation.benchmark.dataset import BenchmarkDataset

    dataset = BenchmarkDataset(args.gt, args.pr, args.pr_mesh)
    names = args.objects or dataset.names()
    if not names:
        given = ", ".join(map(str, [*args.gt, *args.pr]))
        raise FileNotFoundError(f"no folders of views in {given}")
    objects = [dataset.find(name) for name in dict.fromkeys(names)]
    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f"{args.out}: --out must be a folder, this is a file")
    settings, missing = choose_settings(args)
    records = evaluate_and_report(
        objects, settings, missing, args.out, args.name, metric_engine(args)
    )
    failed = _print_results(records, args.debug)
    log.info("wrote results.csv, table.md, table.tex and index.html to %s", args.out)
    if failed:
        log.error("%d of %d objects failed, in whole or in part", failed, len(records))
        sys.exit(1)


def evaluate_and_report(
    objects: list[ObjectFiles],
    settings: Settings,
    missing: list[str],
    out: Path,
    name: str,
    engine: Engine,
) -> list[ObjectRecord]:
    """Evaluate objects, see `evaluate_all`, and write the report, see `write_report`."""
    from evaluation.benchmark.report import ReportRow, write_report

    folder = out / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder, wait=False):
        records = evaluate_all(objects, settings, folder, engine)
        folders = [folder / files.name for files in objects]
        rows = [ReportRow(*row) for row in zip(objects, records, folders, strict=True)]
        write_report(out, name, rows, missing)
    return records


def _print_results(records: list[ObjectRecord], debug: bool) -> int:
    """Print a row for each object and their mean; return the number of failed objects."""
    from evaluation.benchmark.evaluate import mean_result

    results = [record.result for record in records]
    for result in [*results, mean_result(results)]:
        scores = (result.psnr, result.ssim, result.lpips, result.chamfer, result.iou, result.points)
        print(table_row(result.name, *scores))
    log.info("columns: name, PSNR, SSIM, LPIPS, Chamfer distance, volume IoU, COLMAP points")
    for record in records:
        for message in record.warnings:
            log.warning("%s: %s", record.result.name, message)
        for part, message in record.errors.items():
            trace = [record.traces[part]] if debug and part in record.traces else []
            log.warning("%s, %s: %s", record.result.name, part, "\n".join([message, *trace]))
    return sum(bool(record.errors) for record in records)


def choose_settings(args: argparse.Namespace) -> tuple[Settings, list[str]]:
    """Determine which metrics are available here; return sentences on those that are skipped too.

    Raises:
        LpipsUnavailableError, FileNotFoundError, ValueError: see `load_lpips`, `open_colmap`.
    """
    from evaluation.benchmark.evaluate import Settings

    missing = []
    device = pick_device(args.device)
    lpips, reason = load_lpips(args.lpips_weights, device, args.require_lpips)
    if reason:
        missing.append(f"LPIPS is missing: {reason}")
    engine, points = "", None
    try:
        if args.points:
            opened, points = open_colmap(args.colmap, args.mode)
            engine = opened.name
    except ModuleNotFoundError as error:
        missing.append(f"COLMAP points are missing: {error}")
    for sentence in missing:
        log.warning("%s", sentence)
    weights = lpips.weights if lpips else None
    chosen = Settings(
        args.ssim, weights, args.colmap, engine, points, str(device), args.self_consistency
    )
    return chosen, missing


class ObjectTask(NamedTuple):
    """An object to be evaluated, its folder in the report, and the key of its record."""

    files: ObjectFiles
    folder: Path
    key: str

    def __str__(self) -> str:
        return self.files.name


def make_evaluation(settings: Settings, worker: Worker) -> Work:
    """The work of the benchmark: an object; its warnings go to the record, not to the console."""
    from evaluation.benchmark.evaluate import evaluate_object

    settings = replace(settings, device=str(pick_device(worker.device)))
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)

    def work(task: ObjectTask) -> None:
        evaluate_object(task.files, settings, task.folder, task.key)
        worker.tick()

    return work


def evaluate_all(
    objects: list[ObjectFiles],
    settings: Settings,
    folder: Path,
    engine: Engine,
    make_work: MakeWork = make_evaluation,
) -> list[ObjectRecord]:
    """Evaluate objects by several workers; reuse unchanged records.

    `folder` is the parent of the folders with the record and the strips of each object, which
    `make_work` writes. Errors of the returned records say if a worker crashed or could not start.
    """
    from evaluation.benchmark.evaluate import ObjectRecord

    found = [_record_or_task(files, settings, folder / files.name) for files in objects]
    tasks = [each for each in found if isinstance(each, ObjectTask)]
    errors = {
        outcome.task: outcome.error
        for outcome in follow(engine, make_work, settings, tasks, "evaluated")
    }

    def record_of(task: ObjectTask) -> ObjectRecord:
        record = ObjectRecord.load(task.folder)
        if record is not None and record.key == task.key:
            return record
        return ObjectRecord(
            task.key, Result(task.files.name), {"crash": errors[task] or "no record"}
        )

    return [record_of(each) if isinstance(each, ObjectTask) else each for each in found]


def _record_or_task(
    files: ObjectFiles, settings: Settings, folder: Path
) -> ObjectRecord | ObjectTask:
    """The unchanged record of an object, one of its failure, or what is to be done."""
    from evaluation.benchmark.evaluate import ObjectRecord, check_folder, record_key

    try:
        key = record_key(files, settings)
        record = ObjectRecord.load(folder)
        if record is not None and record.key == key and record.is_complete(folder):
            log.info("%s: unchanged, not evaluated again", files.name)
            return record
        folder.mkdir(parents=True, exist_ok=True)
        with advise("; choose another folder for --out", FileExistsError):
            check_folder(folder)
        ObjectRecord.remove(folder)
    except Exception as error:  # noqa: BLE001 - recorded, other objects continue
        return ObjectRecord("", Result(files.name), {"start": str(error) or type(error).__name__})
    return ObjectTask(files, folder, key)
