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
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import add_common_flags, advise
from common.devices import pick_device
from common.files import file_lock
from evaluation.cli_args import choose_points_form, load_lpips, open_engine, row_name
from evaluation.results import Result, table_row

if TYPE_CHECKING:
    from evaluation.benchmark.dataset import ObjectFiles
    from evaluation.benchmark.evaluate import ObjectRecord, Settings

    Evaluate = Callable[[ObjectFiles, Settings, Path, str, int], None]

log = logging.getLogger(__name__)

MAX_DEFAULT_WORKERS = 8
"""Limits the memory on machines with many cores."""
GRACE_SECONDS = 15
"""Between SIGTERM and SIGKILL; compiled code handles signals late."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--pr",
        type=Path,
        required=True,
        help="folder of the predicted objects: <name>/ or <name>-pr/ with 000.png .. 015.png, or "
        "strips <name>/0.png or <name>.png",
    )
    add(
        "--gt",
        type=Path,
        required=True,
        help="folder of the true objects: <name>/ or <name>-gt/ with 000.png .. 015.png; the mesh "
        "in model.obj, meshes/model.obj or <name>-mesh/meshes/model.obj",
    )
    add(
        "--pr_mesh",
        type=Path,
        help="folder of the predicted meshes, <name>/mesh.ply or <name>.ply, if not --pr",
    )
    add("--objects", nargs="+", metavar="NAME", help="only these objects (default: all)")
    add("--out", type=Path, required=True, help="folder of the report")
    add("--name", type=row_name, default="this run", help="name of the row in the tables")
    add(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, MAX_DEFAULT_WORKERS),
        help=f"parallel processes, about 1 GB each (default: one per core, at most "
        f"{MAX_DEFAULT_WORKERS})",
    )
    add("--ssim", choices=["cropped", "current"], default="cropped", help="see eval_nvs.py")
    add("--lpips_weights", type=Path, help="see eval_nvs.py")
    add("--require_lpips", action="store_true", help="see eval_nvs.py")
    add("--colmap", help="COLMAP program instead of pycolmap, see eval_colmap.py")
    add("--mode", choices=["auto", "sparse", "dense"], default="auto", help="see eval_colmap.py")
    add_common_flags(parser)
    return parser


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
    from evaluation.benchmark.html_report import ReportRow
    from evaluation.benchmark.report import write_report

    dataset = BenchmarkDataset(args.gt, args.pr, args.pr_mesh)
    names = args.objects or dataset.names()
    if not names:
        raise FileNotFoundError(f"no folders of views in {args.gt} and {args.pr}")
    objects = [dataset.find(name) for name in dict.fromkeys(names)]
    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f"{args.out}: --out must be a folder, this is a file")
    folder = args.out / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder, wait=False):
        settings, missing = choose_settings(args)
        records = evaluate_all(objects, settings, folder, args.workers)
        rows = [
            ReportRow(files, record, folder / files.name)
            for files, record in zip(objects, records, strict=True)
        ]
        write_report(args.out, args.name, rows, missing)
    failed = _print_results(records, args.debug)
    log.info("wrote results.csv, table.md, table.tex and index.html to %s", args.out)
    if failed:
        log.error("%d of %d objects failed, in whole or in part", failed, len(records))
        sys.exit(1)


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
    """Determine once which metrics are available on this machine.

    Returns:
        the settings, and sentences on the metrics that are skipped as they are not installed.

    Raises:
        LpipsUnavailableError, FileNotFoundError, ValueError: see `load_lpips`, `open_engine` and
            `choose_points_form`.
    """
    from evaluation.benchmark.evaluate import Settings

    missing = []
    device = pick_device(args.device)
    lpips, reason = load_lpips(args.lpips_weights, device, args.require_lpips)
    if reason:
        missing.append(f"LPIPS is missing: {reason}")
    try:
        engine = open_engine(args.colmap)
    except ModuleNotFoundError as error:
        engine = None
        missing.append(f"COLMAP points are missing: {error}")
    for sentence in missing:
        log.warning("%s", sentence)
    settings = Settings(
        ssim=args.ssim,
        lpips_weights=lpips.weights if lpips else None,
        colmap=args.colmap,
        engine=engine.name if engine else "",
        points=choose_points_form(args.mode, engine) if engine else None,
        device=str(device),
    )
    return settings, missing


def evaluate_in_worker(
    files: ObjectFiles, settings: Settings, folder: Path, key: str, threads: int
) -> None:
    """Evaluate an object in a worker process; warnings go to the record, not to the console."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported
    import torch

    from evaluation.benchmark.evaluate import evaluate_object

    torch.set_num_threads(threads)
    logging.getLogger().addHandler(logging.NullHandler())
    evaluate_object(files, settings, folder, key)


def _exit_with_parent() -> None:
    """Exit when the parent process was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def evaluate_all(
    objects: list[ObjectFiles],
    settings: Settings,
    folder: Path,
    workers: int,
    evaluate: Evaluate = evaluate_in_worker,
) -> list[ObjectRecord]:
    """Evaluate objects in parallel, each in its own process; reuse unchanged records.

    `folder` is the parent of the folders with the record and the strips of each object; `evaluate`
    runs in the processes and writes the record.

    Returns:
        a record for each object; its errors say if the process crashed or could not be started.
    """
    from tqdm import tqdm

    workers = min(workers, len(objects))
    threads = max((os.cpu_count() or 1) // workers, 1)
    waiting = deque(objects)
    running: dict[int, tuple[str, str, BaseProcess]] = {}  # sentinel -> name, key, process
    records: dict[str, ObjectRecord] = {}
    with tqdm(total=len(objects), unit="object", disable=None) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    files = waiting.popleft()
                    started = _reuse_or_start(
                        files, settings, folder / files.name, threads, evaluate
                    )
                    if isinstance(started, tuple):
                        running[started[1].sentinel] = (files.name, *started)
                    else:
                        records[files.name] = started
                        bar.update()
                # `wait` never returns for an empty list
                ready = wait(list(running)) if running else []
                for sentinel in [sentinel for sentinel in running if sentinel in ready]:
                    name, key, process = running.pop(sentinel)
                    records[name] = _read_record(name, key, folder / name, process)
                    bar.update()
        finally:
            for _, _, process in running.values():
                process.terminate()
            for _, _, process in running.values():
                process.join(GRACE_SECONDS)
                process.kill()  # no effect if it has ended
    return [records[files.name] for files in objects]


def _read_record(name: str, key: str, folder: Path, process: BaseProcess) -> ObjectRecord:
    """The record that a process wrote, or one of its crash."""
    from evaluation.benchmark.evaluate import ObjectRecord

    process.join()
    record = ObjectRecord.load(folder)
    if record is not None and record.key == key:
        return record
    code = process.exitcode
    reason = f"signal {-code}" if code and code < 0 else f"exit status {code}"
    message = f"the process that evaluated the object ended by {reason}"
    return ObjectRecord(key, Result(name), {"crash": message})


def _reuse_or_start(
    files: ObjectFiles, settings: Settings, folder: Path, threads: int, evaluate: Evaluate
) -> ObjectRecord | tuple[str, BaseProcess]:
    """The record of an object if it is complete and up to date, else its key and a process."""
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
        process = multiprocessing.get_context("spawn").Process(
            target=evaluate, args=(files, settings, folder, key, threads), daemon=True
        )
        process.start()
    except Exception as error:  # noqa: BLE001 - recorded, other objects continue
        return ObjectRecord("", Result(files.name), {"start": str(error) or type(error).__name__})
    return key, process
