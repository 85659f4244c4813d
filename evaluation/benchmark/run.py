"""Evaluate folders of predicted objects and write the paper's tables and a page of pictures.

    python -m evaluation.benchmark --pr eval_examples --gt eval_examples --out output/report

Every object is evaluated as eval_nvs.py, eval_colmap.py and, where there is a mesh, eval_mesh.py
do it, several at a time. Run again, it keeps what has not changed. Results: results.csv; table.md
and table.tex beside the paper's numbers; index.html with all views. An object that fails is
reported, the others go on, and the exit status is 1.
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
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import add_common_flags
from common.devices import pick_device
from common.files import file_lock
from evaluation.results import Result, row_name, table_row

if TYPE_CHECKING:
    from evaluation.benchmark.dataset import ObjectFiles
    from evaluation.benchmark.evaluate import Record, Settings

log = logging.getLogger(__name__)

MOST_WORKERS = 8
"""By default; more would need more memory than machines with many cores always have."""

SECONDS_TO_END = 15
"""For a process that was told to: compiled code hears it late."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--pr", type=Path, required=True,
        help="folder of the predicted objects: <name>/ or <name>-pr/ with 000.png .. 015.png, or "
        "strips <name>/0.png or <name>.png")  # fmt: skip
    add("--gt", type=Path, required=True,
        help="folder of the true objects: <name>/ or <name>-gt/ with 000.png .. 015.png; the mesh "
        "in model.obj, meshes/model.obj or <name>-mesh/meshes/model.obj")  # fmt: skip
    add("--pr_mesh", type=Path,
        help="folder of the predicted meshes, <name>/mesh.ply or <name>.ply, if not "
        "--pr")  # fmt: skip
    add("--objects", nargs="+", metavar="NAME", help="only these; default: all that are found")
    add("--out", type=Path, required=True, help="folder of the report")
    add("--name", type=row_name, default="this run", help="of the row in the tables")
    add(
        "--workers",
        type=int,
        default=min(os.cpu_count() or 1, MOST_WORKERS),
        help=f"objects at a time, about 1 GB each (default: one a core, at most {MOST_WORKERS})",
    )
    add("--ssim", choices=["cropped", "current"], default="cropped", help="see eval_nvs.py")
    add("--lpips_weights", type=Path, help="see eval_nvs.py")
    add("--require_lpips", action="store_true", help="see eval_nvs.py")
    add("--colmap", help="a COLMAP program in place of pycolmap, see eval_colmap.py")
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
            parser.error(f"--objects are names of folders, got {name!r}")
    from evaluation.benchmark.dataset import Finder
    from evaluation.benchmark.html_report import Entry
    from evaluation.benchmark.report import write_report

    finder = Finder(args.gt, args.pr, args.pr_mesh)
    names = args.objects or finder.names()
    if not names:
        raise FileNotFoundError(f"there are no folders of views in {args.gt} and {args.pr}")
    objects = [finder.find(name) for name in dict.fromkeys(names)]
    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f"{args.out}: --out must be a folder, this is a file")
    folder = args.out / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder, wait=False):
        settings, missing = choose_settings(args)
        records = evaluate_all(objects, settings, folder, args.workers)
        entries = [
            Entry(files, record, folder / files.name)
            for files, record in zip(objects, records, strict=True)
        ]
        write_report(args.out, args.name, entries, missing)
    failed = _print_results(records, args.debug)
    log.info("wrote results.csv, table.md, table.tex and index.html to %s", args.out)
    if failed:
        log.error("%d of %d objects failed, in whole or in part", failed, len(records))
        sys.exit(1)


def _print_results(records: list[Record], debug: bool) -> int:
    """Print a row for each object and their mean; count the objects with failures."""
    from evaluation.benchmark.evaluate import mean_result

    results = [record.result for record in records]
    for result in [*results, mean_result(results)]:
        print(table_row(result.name, result.psnr, result.ssim, result.lpips, result.chamfer,
                        result.iou, result.points))  # fmt: skip
    log.info("columns: name, PSNR, SSIM, LPIPS, Chamfer distance, volume IoU, COLMAP points")
    for record in records:
        for message in record.warnings:
            log.warning("%s: %s", record.result.name, message)
        for part, message in record.errors.items():
            trace = [record.traces[part]] if debug and part in record.traces else []
            log.warning("%s, %s: %s", record.result.name, part, "\n".join([message, *trace]))
    return sum(bool(record.errors) for record in records)


def choose_settings(args: argparse.Namespace) -> tuple[Settings, list[str]]:
    """Find out what this machine can compute, before all objects fail for the same reason.

    Returns:
        how to evaluate, and sentences on what is left out because it is not installed.

    Raises:
        see `Lpips` (where it is required or weights are named), `open_engine` (where a program is
        named) and `choose_form`.
    """
    from evaluation.benchmark.evaluate import Settings
    from evaluation.colmap import choose_form
    from evaluation.colmap_engines import open_engine
    from evaluation.lpips import lpips_or_reason

    missing = []
    device = pick_device(args.device)
    lpips, reason = lpips_or_reason(args.lpips_weights, device, args.require_lpips)
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
        points=choose_form(args.mode, engine) if engine else None,
        device=str(device),
    )
    return settings, missing


def evaluate_all(
    objects: list[ObjectFiles], settings: Settings, folder: Path, workers: int
) -> list[Record]:
    """Evaluate objects in processes of their own, several at a time; keep what has not changed.

    Args:
        objects: what to evaluate.
        settings: how.
        folder: each object's record and pictures go into a folder in it.
        workers: objects at a time.

    Returns:
        a record for each object; where the process of one crashed, or cannot be started, it says
        so.
    """
    from tqdm import tqdm

    workers = min(workers, len(objects))
    threads = max((os.cpu_count() or 1) // workers, 1)
    waiting = deque(objects)
    running: list[_Task] = []
    records: dict[str, Record] = {}
    with tqdm(total=len(objects), unit="object", disable=None) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    files = waiting.popleft()
                    started = _kept_or_started(files, settings, folder / files.name, threads)
                    if isinstance(started, _Task):
                        running.append(started)
                    else:
                        records[files.name] = started
                        bar.update()
                # without objects, `wait` would never come back
                ready = wait([task.process.sentinel for task in running]) if running else []
                for task in [task for task in running if task.process.sentinel in ready]:
                    running.remove(task)
                    records[task.name] = task.record()
                    bar.update()
        finally:
            for task in running:
                task.process.terminate()
            for task in running:
                task.process.join(SECONDS_TO_END)
                task.process.kill()  # no more than a no-op where it has ended
    return [records[files.name] for files in objects]


@dataclass
class _Task:
    """An object that is being evaluated."""

    name: str
    key: str
    folder: Path
    process: BaseProcess

    def record(self) -> Record:
        """The record, when the process has ended."""
        from evaluation.benchmark.evaluate import Record

        self.process.join()
        record = Record.load(self.folder)
        if record is not None and record.key == self.key:
            return record
        code = self.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit status {code}"
        said = f"the process that evaluated the object ended by {how}"
        return Record(self.key, Result(self.name), {"crash": said})


def _kept_or_started(
    files: ObjectFiles, settings: Settings, folder: Path, threads: int
) -> Record | _Task:
    """Take an object's record if it is whole and up to date, else begin to make it."""
    from evaluation.benchmark.evaluate import Record, check_own, key_of

    try:
        key = key_of(files, settings)
        record = Record.load(folder)
        if record is not None and record.key == key and record.is_whole(folder):
            log.info("%s: kept, nothing has changed", files.name)
            return record
        folder.mkdir(parents=True, exist_ok=True)
        check_own(folder)
        Record.remove(folder)
        process = multiprocessing.get_context("spawn").Process(
            target=_evaluate, args=(files, settings, folder, key, threads), daemon=True
        )
        process.start()
    except Exception as error:  # noqa: BLE001 - one object's trouble is not that of the others
        return Record("", Result(files.name), {"start": str(error) or type(error).__name__})
    return _Task(files.name, key, folder, process)


def _evaluate(files: ObjectFiles, settings: Settings, folder: Path, key: str, threads: int) -> None:
    """Evaluate an object in this process, quietly: all that is said is in the record."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started this
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported
    import torch

    from evaluation.benchmark.evaluate import evaluate_object

    torch.set_num_threads(threads)
    logging.getLogger().addHandler(logging.NullHandler())
    evaluate_object(files, settings, folder, key)


def _end_with_parent() -> None:
    """End this process when the one that started it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
