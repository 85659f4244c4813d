"""Render training data: two sets of 16 views of each 3D model in a folder or a list.

    python render_batch.py --models models --out training_examples --workers 4

writes training_examples/target/<uid>/ (all views at elevation 30), training_examples/input/<uid>/
(each at a random elevation) and training_examples/uid_set.pkl. A second run renders only what is
missing. Objects that fail are listed in failures.csv and do not stop the others; the exit status is
then 1. What is not rendered as it is meant, such as a missing texture, is listed in warnings.csv.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from blender_script import add_view_flags, view_settings
from common.cli import HelpFormatter, advise, run_script
from common.files import file_lock
from common.workers.flags import add_engine_flags, check_engine_flags, gpu_numbers

if TYPE_CHECKING:
    from blender.job import RenderResult, RenderSetup
    from blender.objects import DatasetObject

log = logging.getLogger(__name__)

SETS = {"target": "fixed", "input": "random"}
MAX_DEFAULT_WORKERS = 8
"""Limits the memory: large models take gigabytes each."""
RAY_GRACE_SECONDS = 15.0
"""For objects on Ray to terminate their Blender."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    source = (
        "folder of 3D models, searched recursively; or a list: .txt with a path per line, "
        ".json with a list of paths or {uid: path}"
    )
    add("--models", type=Path, required=True, help=source)
    add("--uids", type=Path, help="render only the objects in this list, .txt or .json")
    add("--out", type=Path, default=Path("training_examples"), help="folder of the training data")
    gpus = "GPUs of this machine among which objects are distributed, e.g. 0,1"
    add_engine_flags(parser, gpus)
    workers = min(os.cpu_count() or 1, MAX_DEFAULT_WORKERS)
    add("--workers", type=int, default=workers, help="parallel Blender processes on this machine")
    threads = "threads per object; 0 divides the cores among the workers, and is 1 on Ray"
    add("--threads", type=int, default=0, help=threads)
    gpus = "for --engine ray (default: 1 if the cluster has any)"
    add("--gpus_per_object", type=float, help=gpus)
    add("--timeout", type=float, default=1800.0, help="seconds per attempt at an object")
    add("--retries", type=int, default=1, help="further attempts after a failure")
    add("--blender", help="path of Blender, or of a Python with bpy (default: from $PATH)")
    engines = ["CYCLES", "BLENDER_EEVEE"]
    add("--render_engine", choices=engines, default="CYCLES", help="renderer of Blender")
    add_view_flags(parser)
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; exits with status 2 if they are invalid."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, low in (("threads", 0), ("retries", 0), ("samples", 1)):
        if getattr(args, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(args, name)}")
    if not args.timeout > 0:
        parser.error(f"--timeout must be above 0, got {args.timeout}")
    check_engine_flags(parser, args)
    if args.engine == "local" and args.gpus_per_object is not None:
        parser.error("--gpus_per_object is for --engine ray")
    try:
        for camera_type in SETS.values():
            view_settings(args, camera_type)
    except ValueError as error:
        parser.error(str(error))
    return args


def make_setup(args: argparse.Namespace) -> RenderSetup:
    """Convert the flags to the settings of the rendering."""
    from blender.job import RenderSetup

    threads = max((os.cpu_count() or 1) // args.workers, 1) if args.engine == "local" else 1
    flags = {name: getattr(args, name) for name in ("device", "samples", "up")}
    flags |= {"engine": args.render_engine, "threads": args.threads or threads}
    strict = ("--strict",) if args.strict else ()
    return RenderSetup(
        out=args.out.resolve(),
        sets={name: view_settings(args, kind) for name, kind in SETS.items()},
        flags=tuple(f"--{name}={value}" for name, value in flags.items()) + strict,
        blender=args.blender,
        timeout=args.timeout,
        retries=args.retries,
        gpus=gpu_numbers(args),
    )


def start_engine(
    args: argparse.Namespace, objects: list[DatasetObject], setup: RenderSetup
) -> Iterator[RenderResult]:
    """Check Blender and start to render; returns a generator of results."""
    from blender.engines import render_local, render_on_ray
    from blender.process import check_version, find_blender
    from common.workers.ray_cluster import Cluster

    if args.engine == "ray":
        cores, gpus = args.threads or 1, args.gpus_per_object
        cluster = Cluster(args.address, None, cores, gpus, RAY_GRACE_SECONDS)
        return render_on_ray(objects, setup, cluster)
    with advise("; --blender takes the path of Blender", FileNotFoundError):
        program = find_blender(args.blender)
    log.info("%d objects, Blender %s (%s)", len(objects), check_version(program), program)
    return render_local(objects, setup, min(args.workers, len(objects)))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse(argv)
    from blender.dataset_index import UID_SET, render_dataset
    from blender.objects import find_objects

    objects = find_objects(args.models, args.uids)
    setup = make_setup(args)
    setup.out.mkdir(parents=True, exist_ok=True)
    image_settings = {name: getattr(args, name) for name in ("render_engine", "samples", "up")}
    with file_lock(setup.out / UID_SET, wait=False):
        results = start_engine(args, objects, setup)
        failed = render_dataset(results, len(objects), setup, image_settings)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
