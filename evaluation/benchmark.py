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
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.results import Result, row_name, table_row
from multiview.runtime import add_common_flags, pick_device, run_script

if TYPE_CHECKING:
    from evaluation.objects import ObjectFiles, Record, Settings

log = logging.getLogger(__name__)

MOST_WORKERS = 8
"""By default; more would need more memory than machines with many cores always have."""


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
        if Path(name).name != name:
            parser.error(f"--objects are names of folders, got {name!r}")
    from evaluation.objects import Finder
    from evaluation.report import Entry, write_report

    finder = Finder(args.gt, args.pr, args.pr_mesh)
    names = args.objects or finder.names()
    if not names:
        raise FileNotFoundError(f"there are no folders of views in {args.gt} and {args.pr}")
    objects = [finder.find(name) for name in dict.fromkeys(names)]
    settings = choose_settings(args)
    folder = args.out / "objects"
    records = evaluate_all(objects, settings, folder, args.workers)
    entries = [
        Entry(files, record, folder / files.name)
        for files, record in zip(objects, records, strict=True)
    ]
    write_report(args.out, args.name, entries)
    failed = _print_results(records)
    log.info("wrote results.csv, table.md, table.tex and index.html to %s", args.out)
    if failed:
        log.error("%d of %d objects failed, in whole or in part", failed, len(records))
        sys.exit(1)


def _print_results(records: list[Record]) -> int:
    """Print a row for each object and their mean; count the objects with failures."""
    from evaluation.objects import mean_result

    results = [record.result for record in records]
    for result in [*results, mean_result(results)]:
        print(table_row(result.name, result.psnr, result.ssim, result.lpips, result.chamfer,
                        result.iou, result.points))  # fmt: skip
    log.info("columns: name, PSNR, SSIM, LPIPS, Chamfer distance, volume IoU, COLMAP points")
    for record in records:
        for part, message in record.errors.items():
            log.warning("%s, %s: %s", record.result.name, part, message)
    return sum(bool(record.errors) for record in records)


def choose_settings(args: argparse.Namespace) -> Settings:
    """Find out what this machine can compute, before all objects fail for the same reason.

    Raises:
        see `Lpips` (where it is required or weights are named), `open_engine`, `choose_form`.
    """
    from evaluation.colmap import choose_form
    from evaluation.colmap_engines import open_engine
    from evaluation.objects import Settings
    from evaluation.perceptual import lpips_or_reason

    device = pick_device(args.device)
    engine = open_engine(args.colmap)
    form = choose_form(args.mode, engine)
    lpips, reason = lpips_or_reason(args.lpips_weights, device, args.require_lpips)
    if reason:
        log.warning("LPIPS is missing: %s", reason)
    return Settings(
        ssim=args.ssim,
        lpips_weights=lpips.weights if lpips else None,
        colmap=args.colmap,
        engine=engine.name,
        points=form,
        device=str(device),
    )


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
        a record for each object; that of a process that crashed says so.
    """
    from tqdm import tqdm

    with ThreadPoolExecutor(workers) as pool:
        threads = max((os.cpu_count() or 1) // workers, 1)
        jobs = [
            pool.submit(_kept_or_made, files, settings, folder / files.name, threads)
            for files in objects
        ]
        try:
            for _ in tqdm(as_completed(jobs), total=len(jobs), unit="object", disable=None):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return [job.result() for job in jobs]


def _kept_or_made(files: ObjectFiles, settings: Settings, folder: Path, threads: int) -> Record:
    """Take an object's record if it is whole and up to date, else make it in another process."""
    from evaluation.objects import Record, key_of

    key = key_of(files, settings)
    record = Record.load(folder)
    if record is not None and record.key == key and not record.errors:
        log.info("%s: kept, nothing has changed", files.name)
        return record
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_evaluate, args=(files, settings, folder, threads))
    process.start()
    process.join()
    record = Record.load(folder)
    if process.exitcode == 0 and record is not None and record.key == key:
        return record
    return Record(key, Result(files.name), {"crash": _how_it_ended(process.exitcode)})


def _how_it_ended(exit_code: int | None) -> str:
    signal = f"signal {-exit_code}" if exit_code and exit_code < 0 else f"exit status {exit_code}"
    return f"the process that evaluated the object ended by {signal}"


def _evaluate(files: ObjectFiles, settings: Settings, folder: Path, threads: int) -> None:
    """Evaluate an object in this process, quietly: all that is said is in the record."""
    os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported
    import torch

    from evaluation.objects import evaluate_object

    torch.set_num_threads(threads)
    logging.getLogger().addHandler(logging.NullHandler())
    evaluate_object(files, settings, folder)


if __name__ == "__main__":
    run_script(main)
