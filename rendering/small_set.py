"""A training set for small models, without Blender: toys from the generator, and real furniture.

    python -m rendering.small_set --output training_examples-demo --toys 8000 \
        --furniture furniture --variants 4
    python -m rendering.small_set --output held_out-demo --toys 32 --furniture furniture --held_out

writes the published layout (target/, input/, uid_set.pkl), rendered by a ray caster; objects that
are there are kept, what fails is listed in failures.csv. With --held_out it takes objects that are
never trained on, and writes their true shapes too, mesh/<uid>.ply.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from tqdm import tqdm

from multiview.runtime import atomic_write, run_script
from rendering.folder import view_name
from rendering.plan import META, ViewSettings, plan_cameras, write_meta
from rendering.tree import FAILURES, add_to_uid_set, check_settings

if TYPE_CHECKING:
    from trimesh import Scene

log = logging.getLogger(__name__)

HELD_OUT_SEED = 10**9
"""Seeds of toys from here on are never trained on."""
HELD_OUT_PART = 8
"""One of so many real objects is never trained on."""
LISTED_EVERY = 100
"""Objects between writing `uid_set.pkl`: what an interrupted run has made can be used."""


@dataclass(frozen=True)
class Subject:
    """An object of the set.

    Attributes:
        uid: its name.
        seed: of a toy; of the variation of a real object, 0 being the object as it is.
        model: name of a real object in `furniture`; None is a toy.
        furniture: folder of the real objects.
    """

    uid: str
    seed: int
    model: str | None = None
    furniture: Path | None = None

    def scene(self) -> Scene:
        """Make it, z up."""
        if self.model is None:
            from rendering.toys import make_toy

            return make_toy(self.seed)
        from rendering.furniture import load_furniture, varied

        assert self.furniture is not None
        scene = load_furniture(self.furniture, self.model)
        return varied(scene, self.uid) if self.seed else scene


def is_held_out(model: str) -> bool:
    """Whether a real object is kept from training; follows from its name."""
    return hashlib.sha256(model.encode()).digest()[0] % HELD_OUT_PART == 0


def toys(count: int, held_out: bool) -> list[Subject]:
    """List toys."""
    first = HELD_OUT_SEED if held_out else 0
    return [Subject(f"toy-{seed:010d}", seed) for seed in range(first, first + count)]


def real_objects(folder: Path, variants: int, held_out: bool) -> list[Subject]:
    """List real objects: each in several variants, or, held out, once as it is."""
    from rendering.furniture import list_furniture

    models = [item.name for item in list_furniture(folder)]
    chosen = [model for model in models if is_held_out(model) == held_out]
    seeds = range(1) if held_out else range(1, variants + 1)
    return [Subject(f"{m}-{seed}", seed, m, folder) for m, seed in itertools.product(chosen, seeds)]


def view_sets(size: int) -> dict[str, ViewSettings]:
    """Return the two published sets of views, at another resolution."""
    return {
        "target": ViewSettings("fixed", resolution=size),
        "input": ViewSettings("random", resolution=size),
    }


def render_subject(subject: Subject, out: Path, size: int, meshes: bool) -> str | None:
    """Render an object into the tree, unless it is there; return why that failed, or None."""
    folders = [out / name / subject.uid for name in view_sets(size)]
    if all(folder.is_dir() for folder in folders):
        return None
    try:
        _render(subject, out, size, meshes)
    except (ValueError, KeyError, IndexError, OSError) as error:  # of a model that is damaged
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _render(subject: Subject, out: Path, size: int, meshes: bool) -> None:
    from rendering.ray_caster import cast_views

    scene = subject.scene()
    if meshes:
        from rendering.toys import true_shape

        shape = true_shape(scene)
        (out / "mesh").mkdir(parents=True, exist_ok=True)
        with atomic_write(out / "mesh" / f"{subject.uid}.ply") as path:
            shape.export(path, file_type="ply")
    for name, settings in view_sets(size).items():
        folder = out / name / subject.uid
        cameras = plan_cameras(settings, subject.uid)
        views = cast_views(scene, cameras, size)
        unfinished = out / ".parts" / f"{name}-{subject.uid}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for index, view in enumerate(views):
            Image.fromarray(view).save(unfinished / view_name(index))
        write_meta(unfinished / META, cameras)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(folder)


def render_set(
    subjects: Sequence[Subject], out: Path, size: int, meshes: bool, workers: int
) -> int:
    """Render objects into a tree; return how many failed.

    Raises:
        ValueError: the tree was rendered with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    sets = view_sets(size)
    check_settings(out, {name: asdict(settings) for name, settings in sets.items()})
    failures: list[tuple[str, str]] = []
    done: list[str] = []
    work = partial(render_subject, out=out, size=size, meshes=meshes)
    try:
        with mapped(work, subjects, workers) as outcomes:
            bar = tqdm(outcomes, total=len(subjects), unit="object", disable=None)
            for subject, error in zip(subjects, bar, strict=True):
                if error is None:
                    done.append(subject.uid)
                else:
                    failures.append((subject.uid, error))
                    log.warning("%s: %s", subject.uid, error)
                if len(done) % LISTED_EVERY == 0:
                    add_to_uid_set(out, sets, done)
    finally:
        listed = add_to_uid_set(out, sets, done)
        with atomic_write(out / FAILURES) as path, path.open("w", newline="") as file:
            csv.writer(file).writerows([("uid", "error"), *failures])
        shutil.rmtree(out / ".parts", ignore_errors=True)
    log.info("%d objects in %s", listed, out)
    return len(failures)


@contextmanager
def mapped(
    work: Callable[[Subject], str | None], subjects: Sequence[Subject], workers: int
) -> Iterator[Iterator[str | None]]:
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
    """Build the parser of `python -m rendering.small_set`."""
    parser = argparse.ArgumentParser(prog="python -m rendering.small_set", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the set")
    add("--toys", type=int, default=0, help="number of toys")
    add("--furniture", type=Path, help="folder of real objects, see rendering.furniture")
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
    subjects = toys(args.toys, args.held_out)
    if args.furniture is not None:
        subjects += real_objects(args.furniture, args.variants, args.held_out)
    if render_set(subjects, args.output, args.size, args.held_out, args.workers):
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
