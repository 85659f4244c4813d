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
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import add_common_flags, advise
from common.devices import pick_device
from common.files import file_lock
from common.processes import how_it_ended, prepare_worker, terminate
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

    Evaluate = Callable[[ObjectFiles, Settings, Path, str, int], None]

log = logging.getLogger(__name__)

MAX_DEFAULT_WORKERS = 8
"""Limits the memory on machines with many cores."""
POLL_SECONDS = 0.1


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
    workers = f"parallel processes, about 1 GB each (default: cores, at most {MAX_DEFAULT_WORKERS})"
    cores = min(os.cpu_count() or 1, MAX_DEFAULT_WORKERS)
    add("--workers", type=int, default=cores, help=workers)
    add_view_flags(parser)
    add_colmap_flags(parser)
    halves = "also reconstruct the even and the odd views of each object and compare the two"
    add("--self_consistency", action="store_true", help=halves)


def main(argv: list[str] | None = None) -> None:
    """Evaluate all objects and write the report."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
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
    records = evaluate_and_report(objects, settings, missing, args.out, args.name, args.workers)
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
    workers: int,
) -> list[ObjectRecord]:
    """Evaluate objects, see `evaluate_all`, and write the report, see `write_report`."""
    from evaluation.benchmark.report import ReportRow, write_report

    folder = out / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder, wait=False):
        records = evaluate_all(objects, settings, folder, workers)
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


def evaluate_in_worker(
    files: ObjectFiles, settings: Settings, folder: Path, key: str, threads: int
) -> None:
    """Evaluate an object in a worker process; warnings go to the record, not to the console."""
    prepare_worker()
    import torch

    from evaluation.benchmark.evaluate import evaluate_object

    torch.set_num_threads(threads)
    logging.getLogger().addHandler(logging.NullHandler())
    evaluate_object(files, settings, folder, key)


def evaluate_all(
    objects: list[ObjectFiles],
    settings: Settings,
    folder: Path,
    workers: int,
    evaluate: Evaluate = evaluate_in_worker,
) -> list[ObjectRecord]:
    """Evaluate objects in parallel, each in its own process; reuse unchanged records.

    `folder` is the parent of the folders with the record and the strips of each object; `evaluate`
    runs in the processes and writes the record. Errors of the returned records say if a process
    crashed or could not be started.
    """
    from tqdm import tqdm

    threads = max((os.cpu_count() or 1) // min(workers, len(objects)), 1)
    stop, pool = threading.Event(), ThreadPoolExecutor(workers)
    try:
        tasks = [
            pool.submit(_evaluate, files, settings, folder / files.name, threads, evaluate, stop)
            for files in objects
        ]
        for _ in tqdm(as_completed(tasks), total=len(tasks), unit="object", disable=None):
            pass
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return [task.result() for task in tasks]


def _evaluate(
    files: ObjectFiles,
    settings: Settings,
    folder: Path,
    threads: int,
    evaluate: Evaluate,
    stop: threading.Event,
) -> ObjectRecord:
    """The record of an object: an unchanged one, that of a process, or one of its failure."""
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
        spawn = multiprocessing.get_context("spawn")
        arguments = (files, settings, folder, key, threads)
        process = spawn.Process(target=evaluate, args=arguments, daemon=True)
        process.start()
    except Exception as error:  # noqa: BLE001 - recorded, other objects continue
        return ObjectRecord("", Result(files.name), {"start": str(error) or type(error).__name__})
    while process.exitcode is None:
        process.join(POLL_SECONDS)
        if stop.is_set():
            terminate([process])
    record = ObjectRecord.load(folder)
    if record is not None and record.key == key:
        return record
    message = f"the process that evaluated the object ended by {how_it_ended(process)}"
    return ObjectRecord(key, Result(files.name), {"crash": message})
