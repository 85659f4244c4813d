"""A training set for small models, without Blender: toys from the generator, and real furniture.

    python -m demo.make_dataset --output training_examples-demo --toys 8000 \
        --furniture furniture --variants 4
    python -m demo.make_dataset --output held_out-demo --toys 32 --furniture furniture --held_out

writes the published layout (target/, input/, uid_set.pkl), rendered by a ray caster; objects that
are there are kept, what fails is listed in failures.csv. With --held_out it takes objects that are
never trained on, and writes their true shapes too, mesh/<uid>.ply.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from blender.dataset_index import FAILURES, UID_SET, add_to_uid_set, check_settings, read_uid_set
from blender.plan import ViewSettings
from common.cli import run_script
from common.files import atomic_write, file_lock
from common.optional import need
from demo.augmentation import vary
from demo.furniture import FurnitureModel, list_models, load_furniture, why_unsuitable
from demo.raycast.render_views import cast_object
from demo.raycast.surfaces import flatten
from demo.toys.make_toys import make_toy, true_shape

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

log = logging.getLogger(__name__)

HELD_OUT_SEED = 10**9
"""Seeds of toys from here on are never trained on."""
HELD_OUT_PART = 8
"""One of so many real objects is never trained on."""
REQUIREMENTS = "requirements/demo.txt"
RECIPE = 1
"""Raise it when toys, variations or light change: a tree holds objects of one recipe."""
MESHES = "mesh"
LISTED_EVERY = 100
"""Objects between writing `uid_set.pkl`: what an interrupted run has made can be used."""


@dataclass(frozen=True)
class Subject:
    """An object of the set.

    Attributes:
        uid: its name.
        seed: of a toy; of the variation of a real object, 0 being the object as it is.
        model: a real object; None is a toy.
    """

    uid: str
    seed: int
    model: FurnitureModel | None = None

    def scene(self) -> Scene:
        """Make it, z up.

        Raises:
            ValueError: the model is damaged; names it.
        """
        if self.model is None:
            return make_toy(self.seed)
        scene = load_furniture(self.model)
        return vary(scene, self.uid) if self.seed else scene


@dataclass(frozen=True)
class Outcome:
    """What became of an object.

    Attributes:
        uid: its name.
        error: why it failed; empty where it did not.
        left_out: why it is not wanted; empty where it is.
    """

    uid: str
    error: str = ""
    left_out: str = ""


def is_held_out(model: str) -> bool:
    """Whether a real object is kept from training; follows from its name."""
    return hashlib.sha256(model.encode()).digest()[0] % HELD_OUT_PART == 0


def toys(count: int, held_out: bool) -> list[Subject]:
    """List toys."""
    first = HELD_OUT_SEED if held_out else 0
    return [Subject(f"toy-{seed:010d}", seed) for seed in range(first, first + count)]


def real_objects(folder: Path, variants: int, held_out: bool) -> list[Subject]:
    """List real objects: each in several variants, or, held out, once as it is."""
    chosen = [model for model in list_models(folder) if is_held_out(model.uid) == held_out]
    seeds = range(1) if held_out else range(1, variants + 1)
    return [Subject(f"{m.uid}-{seed}", seed, m) for m in chosen for seed in seeds]


def view_sets(size: int) -> dict[str, ViewSettings]:
    """Return the two published sets of views, at another resolution."""
    return {
        "target": ViewSettings("fixed", resolution=size),
        "input": ViewSettings("random", resolution=size),
    }


def surface_of(scene: Scene) -> Trimesh:
    """All triangles of a real object as one mesh, which need not be closed."""
    trimesh = need("trimesh", "writing shapes")
    corners = flatten(scene).corners.reshape(-1, 3)
    return trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3))


def render_subject(subject: Subject, out: Path, size: int, meshes: bool) -> Outcome:
    """Render an object into the tree; its views that are there already are kept."""
    try:
        scene = subject.scene()
        reason = why_unsuitable(scene) if subject.model is not None else ""
        if reason:
            return Outcome(subject.uid, left_out=reason)
        if meshes:
            (out / MESHES).mkdir(parents=True, exist_ok=True)
            shape = true_shape(scene) if subject.model is None else surface_of(scene)
            with atomic_write(out / MESHES / f"{subject.uid}.ply") as path:
                shape.export(path, file_type="ply")
        folders = [(out / name / subject.uid, views) for name, views in view_sets(size).items()]
        cast_object(scene, folders, subject.uid, f"{subject.uid} {RECIPE}")
    except (ValueError, OSError) as error:  # of a model that is damaged, or a full disk
        return Outcome(subject.uid, error=" ".join(str(error).split()) or type(error).__name__)
    return Outcome(subject.uid)


def render_set(
    subjects: Sequence[Subject], out: Path, size: int, meshes: bool, workers: int
) -> int:
    """Render the objects that the tree does not list yet; return how many failed.

    Raises:
        ValueError: the tree was rendered with other settings.
    """
    sets = view_sets(size)
    settings: dict[str, object] = {name: asdict(views) for name, views in sets.items()}
    if meshes:  # so that objects that are held out never get among those that are trained on
        settings["held_out"] = True
    check_settings(out, {"recipe": RECIPE, **settings})
    add_to_uid_set(out, sets, [])  # what was removed is made again
    listed = set(read_uid_set(out / UID_SET))
    todo = [subject for subject in subjects if subject.uid not in listed]
    work = partial(render_subject, out=out, size=size, meshes=meshes)
    outcomes: list[Outcome] = []
    unlisted: list[str] = []
    try:
        with mapped(work, todo, workers) as results:
            for outcome in tqdm(results, total=len(todo), unit="object", disable=None):
                outcomes.append(outcome)
                if outcome.error:
                    log.warning("%s: %s", outcome.uid, outcome.error)
                elif not outcome.left_out:
                    unlisted.append(outcome.uid)
                if len(unlisted) >= LISTED_EVERY:
                    add_to_uid_set(out, sets, unlisted)
                    unlisted.clear()
    finally:
        count = add_to_uid_set(out, sets, unlisted)
        failures = [(outcome.uid, outcome.error) for outcome in outcomes if outcome.error]
        with (
            atomic_write(out / FAILURES) as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([("uid", "error"), *failures])
    left_out = sum(bool(outcome.left_out) for outcome in outcomes)
    log.info("%s lists %d objects; %d were left out (flat, of one colour or too large), %d failed",
             out / UID_SET, count, left_out, len(failures))  # fmt: skip
    return len(failures)


@contextmanager
def mapped(
    work: Callable[[Subject], Outcome], subjects: Sequence[Subject], workers: int
) -> Iterator[Iterator[Outcome]]:
    """Do the work for all objects, in order, in this process or in several."""
    if workers == 1:
        yield map(work, subjects)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map(work, subjects, chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of `python -m demo.make_dataset`."""
    parser = argparse.ArgumentParser(prog="python -m demo.make_dataset", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the set")
    add("--toys", type=int, default=0, help="number of toys")
    add("--furniture", type=Path, help="folder of real objects, see demo.furniture")
    add("--variants", type=int, default=1, help="of each real object: turned, scaled, re-coloured")
    add("--held_out", action="store_true", help="objects that are never trained on")
    add("--size", type=int, default=64, help="pixels a side of a view")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Render what the command line asks for; exit code 1 where objects failed."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, least in (("toys", 0), ("variants", 1), ("size", 8), ("workers", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if not args.toys and args.furniture is None:
        parser.error("give --toys, --furniture or both")
    for package in ("trimesh", "embreex", "manifold3d"):
        need(package, "Rendering a set of toys", REQUIREMENTS)
    subjects = toys(args.toys, args.held_out)
    if args.furniture is not None:
        subjects += real_objects(args.furniture, args.variants, args.held_out)
    args.output.mkdir(parents=True, exist_ok=True)
    with file_lock(args.output / UID_SET, wait=False):
        failed = render_set(subjects, args.output, args.size, args.held_out, args.workers)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
