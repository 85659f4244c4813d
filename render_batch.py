"""Render the training data: two sets of 16 views of every model in a folder or a list.

    python render_batch.py --models models --out training_examples --workers 4

writes training_examples/target/<uid>/ (all views at elevation 30), training_examples/input/<uid>/
(each at a random elevation) and training_examples/uid_set.pkl. Run again, it renders what is
missing. An object that fails stops no other; failures.csv names it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blender_script import add_view_flags, view_settings
from common.cli import HelpFormatter, run_script
from common.files import file_lock

if TYPE_CHECKING:
    from blender.job import Outcome, RenderSetup
    from blender.objects import Model

log = logging.getLogger(__name__)

SETS = {"target": "fixed", "input": "random"}
MOST_WORKERS = 8
"""By default; large models take gigabytes each."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--models", type=Path, required=True,
        help="folder of models, searched at all depths; or a list: .txt with a path a line, .json "
        "with a list of paths or {uid: path}")  # fmt: skip
    add("--uids", type=Path, help="only the objects in this list, .txt or .json")
    add("--out", type=Path, default=Path("training_examples"), help="the training tree")
    add("--engine", choices=["local", "ray"], default="local",
        help="on this machine, or on a Ray cluster whose machines see the same files")  # fmt: skip
    add("--address", help="of the Ray cluster, auto or <host>:<port>; without it one is started")
    add("--workers", type=int, default=min(cores, MOST_WORKERS),
        help="objects at a time on this machine")  # fmt: skip
    add("--threads", type=int, default=0,
        help="cores an object takes; 0 shares this machine's, and is 1 on Ray")  # fmt: skip
    add("--gpus", help="numbers of this machine's GPUs that objects take turns on, e.g. 0,1")
    add("--gpus_per_object", type=float, help="on Ray; 1 if left out and the cluster has any")
    add("--timeout", type=float, default=1800.0, help="seconds for an attempt at an object")
    add("--retries", type=int, default=1, help="attempts after one that failed")
    add("--blender", help="Blender, or a Python that has bpy; from $PATH if left out")
    add("--render_engine", choices=["CYCLES", "BLENDER_EEVEE"], default="CYCLES", help="Blender's")
    add_view_flags(parser)
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, low in (("workers", 1), ("threads", 0), ("retries", 0), ("samples", 1)):
        if getattr(args, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(args, name)}")
    if not args.timeout > 0:
        parser.error(f"--timeout must be above 0, got {args.timeout}")
    if args.gpus is not None and not re.fullmatch(r"\d+(,\d+)*,?", args.gpus):
        parser.error(f"--gpus must be numbers with commas between them, got {args.gpus!r}")
    if args.engine == "local" and (args.address or args.gpus_per_object is not None):
        parser.error("--address and --gpus_per_object are for --engine ray")
    if args.engine == "ray" and args.gpus is not None:
        parser.error("--gpus is for --engine local; on Ray give --gpus_per_object")
    try:
        for camera_type in SETS.values():
            view_settings(args, camera_type)
    except ValueError as error:
        parser.error(str(error))
    return args


def make_setup(args: argparse.Namespace) -> RenderSetup:
    """Turn the flags into what every object is rendered with."""
    from blender.job import RenderSetup

    shared = max((os.cpu_count() or 1) // args.workers, 1) if args.engine == "local" else 1
    flags = {"engine": args.render_engine, "device": args.device, "samples": args.samples,
             "up": args.up, "threads": args.threads or shared}  # fmt: skip
    return RenderSetup(
        out=args.out.resolve(),
        sets={name: view_settings(args, kind) for name, kind in SETS.items()},
        flags=tuple(f"--{name}={value}" for name, value in flags.items()),
        blender=args.blender,
        timeout=args.timeout,
        retries=args.retries,
        gpus=tuple(part for part in (args.gpus or "").split(",") if part),
    )


def start_engine(
    args: argparse.Namespace, models: list[Model], setup: RenderSetup
) -> Iterator[Outcome]:
    """Begin to render; what is wrong for all objects is found here."""
    from blender.engines import render_here, render_on_ray
    from blender.process import check_version, find_blender

    if args.engine == "ray":
        threads = args.threads or 1
        return render_on_ray(models, setup, args.address, threads, args.gpus_per_object)
    program = find_blender(args.blender)
    log.info("%d objects, Blender %s (%s)", len(models), check_version(program), program)
    return render_here(models, setup, min(args.workers, len(models)))


def main(argv: list[str] | None = None) -> None:
    """Render the training data that the command line asks for."""
    args = parse(argv)
    from blender.batch import render_tree
    from blender.dataset_index import UID_SET
    from blender.objects import find_models

    models = find_models(args.models, args.uids)
    setup = make_setup(args)
    setup.out.mkdir(parents=True, exist_ok=True)
    look = {name: getattr(args, name) for name in ("render_engine", "samples", "up")}
    with file_lock(setup.out / UID_SET, wait=False):
        engine = start_engine(args, models, setup)
        failed = render_tree(engine, len(models), setup, look)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
