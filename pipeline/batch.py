"""Process many images, here or by several workers; failures do not stop the others.

What the work needs is imported by the workers: a command that only gives out tasks starts at once.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.workers.flags import choose_engine
from common.workers.work import Engine, MakeWork, Work, Worker, follow
from pipeline.cli_args import flag_advice
from pipeline.image_list import (
    FAILURES,
    Elevation,
    ImageTask,
    collect_images,
    list_left_out,
    pair_elevations,
    write_failures,
)

log = logging.getLogger(__name__)


def run_batch(
    args: argparse.Namespace, make_work: MakeWork, elevations: Sequence[Elevation]
) -> None:
    """Process the images of a command by the engine that its flags ask for.

    Raises:
        ValueError: some failed, or see `process_images`.
    """
    engine = choose_engine(args, [args.device], args.workers, here=True)
    failed = process_images(
        args.input, args.output, elevations, make_work, args, engine, args.debug
    )
    if failed:
        images = "1 image" if len(failed) == 1 else f"{len(failed)} images"
        raise ValueError(f"{images} failed: see {args.output / FAILURES}")


def process_images(
    paths: Sequence[Path],
    output: Path,
    elevations: Sequence[Elevation],
    make_work: MakeWork,
    plan: Any,
    engine: Engine,
    debug: bool = False,
) -> list[Path]:
    """Do the same with each image; failures of several are listed in failures.csv.

    That lists the files of folders that are no images, too. Several images get a folder each inside
    `output`. The tasks are `ImageTask`s; `debug` logs the tracebacks of failures.

    Returns:
        the images that failed; the failure of a single image is raised instead.

    Raises:
        FileNotFoundError, ValueError: no images, several of one name, or the failure of one image.
        NotADirectoryError: the folder is a file.
        common.workers.work.SetUpError: the model cannot be loaded.
    """
    images = collect_images(paths, output)
    tasks = pair_elevations(images, elevations)
    several = images[0][1] != output
    if several and output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output}: is a file, expected a folder for the results")
    failures: dict[Path, str] = {}
    if several:
        write_failures(output, failures)  # remove those of an earlier run
    for outcome in follow(engine, make_work, plan, tasks, "images"):
        if outcome.error is None:
            continue
        if debug or several:
            log.error("%s", outcome.trace if debug else outcome.error)
        if not several:
            raise ValueError(outcome.error)
        failures[outcome.task.path] = outcome.error
        write_failures(output, failures)
    if several:
        write_failures(output, {**failures, **list_left_out(paths)})
    return list(failures)


def make_meshes(args: argparse.Namespace, worker: Worker) -> Work:
    """The work of `image_to_3d.py` by its flags: from an image to a mesh."""
    from pipeline.config import Context, read_config
    from pipeline.image_to_3d import image_to_3d

    args.device = worker.device
    config, view_generator = read_config(args)
    context = Context(view_generator)

    def work(task: ImageTask) -> None:
        log.info("%s", task.path)
        with flag_advice():
            directory = image_to_3d(task.path, task.folder, config, context)
        if directory.done:
            worker.tick()

    return work


def make_strips(args: argparse.Namespace, worker: Worker) -> Work:
    """The work of `generate.py` by its flags: the samples of an image."""
    from pipeline.generate import generate, read_options

    args.device = worker.device
    options, view_generator = read_options(args)

    def work(task: ImageTask) -> None:
        with flag_advice():
            own = replace(options, output=task.folder)
            generate([task.path], [task.elevation], own, view_generator)
        worker.tick()

    return work
