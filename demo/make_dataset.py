"""Render a training set for small models, without Blender: generated toys and real furniture.

    python -m demo.make_dataset --output training_examples-demo --toys 8000 \
        --furniture furniture --variants 4
    python -m demo.make_dataset --output held_out-demo --toys 32 --furniture furniture --held_out

The output has the published layout (target/, input/, uid_set.pkl). Views come from a ray caster.
Objects that are complete are kept, so an interrupted run resumes. With --held_out the set consists
of objects that are never trained on, and has their true shapes too, mesh/<uid>.ply.

An object that fails does not stop the others; failures.csv lists it with its error. The exit status
is 0 if all objects were rendered or only pieces of furniture failed (which is logged): the set is
usable. It is 1 if a toy failed, files could not be written, or the set is empty.
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
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from blender.dataset_index import FAILURES, UID_SET, add_to_uid_set, check_settings
from blender.plan import ViewSettings
from common.cli import run_script
from common.files import atomic_write, file_lock
from common.optional import import_optional
from common.uid_set import read_uid_set
from demo import REQUIREMENTS
from demo.augmentation import augment
from demo.furniture import FurnitureModel, list_models, load_furniture, rejection_reason
from demo.raycast.render_views import render_view_folders
from demo.raycast.scene_arrays import flatten_scene
from demo.toys.make_toys import ground_truth_mesh, make_toy

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

log = logging.getLogger(__name__)

HELD_OUT_SEED = 10**9
"""Toys with this seed or a larger one are never trained on."""
HELD_OUT_EVERY = 8
"""About one in this many real objects is never trained on."""
RECIPE = 1
"""Version of toys, augmentation and lighting, recorded in render_settings.json; raise it when one
of them changes. A set holds objects of one version only."""
MESH_FOLDER = "mesh"
INDEX_EVERY = 100
"""Objects between two updates of `uid_set.pkl`, so that an interrupted set can be used."""


@dataclass(frozen=True)
class DatasetObject:
    """An object of the set: a toy, or a variant of a real object."""

    uid: str
    seed: int  # of a toy, or of the augmentation of a real object, 0 for none
    furniture: FurnitureModel | None = None

    def scene(self) -> Scene:
        """Generate or load the object's geometry, z up; ValueError names a damaged file."""
        if self.furniture is None:
            return make_toy(self.seed)
        scene = load_furniture(self.furniture)
        return augment(scene, self.uid) if self.seed else scene


@dataclass(frozen=True)
class RenderResult:
    """The outcome of rendering one object."""

    uid: str
    error: str = ""  # why it failed; empty if it did not
    harmless: bool = False  # the error is in a real object's data; the set is usable without it
    rejected: str = ""  # why it is unsuitable for training; empty if it is not


def is_held_out(uid: str) -> bool:
    """Whether a real object is kept from training; depends on its uid only."""
    return hashlib.sha256(uid.encode()).digest()[0] % HELD_OUT_EVERY == 0


def list_toys(count: int, held_out: bool) -> list[DatasetObject]:
    """List toys by their seeds."""
    first = HELD_OUT_SEED if held_out else 0
    return [DatasetObject(f"toy-{seed:010d}", seed) for seed in range(first, first + count)]


def list_real_objects(folder: Path, variants: int, held_out: bool) -> list[DatasetObject]:
    """List real objects: each in several augmented variants, or, held out, once unchanged."""
    chosen = [model for model in list_models(folder) if is_held_out(model.uid) == held_out]
    seeds = range(1) if held_out else range(1, variants + 1)
    return [DatasetObject(f"{m.uid}-{seed}", seed, m) for m in chosen for seed in seeds]


def view_sets(size: int) -> dict[str, ViewSettings]:
    """Return the two published sets of views, with `size` pixels a side."""
    kinds: dict[str, Literal["fixed", "random"]] = {"target": "fixed", "input": "random"}
    return {name: ViewSettings(kind, resolution=size) for name, kind in kinds.items()}


def scene_mesh(scene: Scene) -> Trimesh:
    """Return all triangles of a real object as one mesh, which need not be closed."""
    corners = flatten_scene(scene).corners.reshape(-1, 3)
    faces = np.arange(len(corners)).reshape(-1, 3)
    return import_optional("trimesh", "writing shapes").Trimesh(corners, faces)


def render_object(obj: DatasetObject, out: Path, size: int, meshes: bool) -> RenderResult:
    """Render an object into the set; views that exist already are kept.

    Any error is part of the result, except a lack of memory, which is not the object's fault.
    """
    try:
        scene = obj.scene()
        reason = rejection_reason(scene) if obj.furniture is not None else ""
        if reason:
            return RenderResult(obj.uid, rejected=reason)
        if meshes:
            (out / MESH_FOLDER).mkdir(parents=True, exist_ok=True)
            shape = ground_truth_mesh(scene) if obj.furniture is None else scene_mesh(scene)
            with atomic_write(out / MESH_FOLDER / f"{obj.uid}.ply") as path:
                shape.export(path, file_type="ply")
        folders = [(out / name / obj.uid, views) for name, views in view_sets(size).items()]
        render_view_folders(scene, folders, obj.uid, f"{obj.uid} {RECIPE}")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - trimesh, manifold3d and Embree raise many types
        harmless = obj.furniture is not None and not isinstance(error, OSError | ImportError)
        kind, text = type(error).__name__, " ".join(str(error).split())
        if not isinstance(error, ValueError | OSError) or not text:
            text = f"{kind}: {text}" if text else kind
        return RenderResult(obj.uid, error=text, harmless=harmless)
    return RenderResult(obj.uid)


def render_set(
    objects: Sequence[DatasetObject], out: Path, size: int, meshes: bool, workers: int
) -> bool:
    """Render the objects that the set does not list yet.

    Returns whether the set is usable: it is not empty, and nothing failed but real objects.
    ValueError: it was rendered with other settings. MemoryError: too little for an object.
    """
    sets = view_sets(size)
    settings: dict[str, object] = {name: asdict(views) for name, views in sets.items()}
    if meshes:  # so that held-out objects never get among those that are trained on
        settings["held_out"] = True
    check_settings(out, {"recipe": RECIPE, **settings})
    add_to_uid_set(out, sets, [])  # drops removed objects, which are then rendered again
    listed = set(read_uid_set(out / UID_SET))
    todo = [obj for obj in objects if obj.uid not in listed]
    render = partial(render_object, out=out, size=size, meshes=meshes)
    rejected, failed, unlisted = 0, list[RenderResult](), list[str]()
    try:
        with parallel_map(render, todo, workers) as results:
            for result in tqdm(results, total=len(todo), unit="object", disable=None):
                if result.error:
                    log.warning("%s: %s", result.uid, result.error)
                    failed.append(result)
                elif result.rejected:
                    rejected += 1
                else:
                    unlisted.append(result.uid)
                if len(unlisted) >= INDEX_EVERY:
                    add_to_uid_set(out, sets, unlisted)
                    unlisted.clear()
    finally:
        count = add_to_uid_set(out, sets, unlisted)
        with (
            atomic_write(out / FAILURES) as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            rows = [(result.uid, result.error) for result in failed]
            csv.writer(file).writerows([("uid", "error"), *rows])
    text = "%s lists %d objects; %d were left out (flat, of one colour or too large), %d failed"
    log.info(text, out / UID_SET, count, rejected, len(failed))
    if failed:
        log.warning("%s: lists the %d objects that failed", out / FAILURES, len(failed))
    return count > 0 and all(result.harmless for result in failed)


@contextmanager
def parallel_map(
    render: Callable[[DatasetObject], RenderResult], objects: Sequence[DatasetObject], workers: int
) -> Iterator[Iterator[RenderResult]]:
    """Render all objects, in order, in this process or in several."""
    if workers == 1:
        yield map(render, objects)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map(render, objects, chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw, name = argparse.RawDescriptionHelpFormatter, "python -m demo.make_dataset"
    parser = argparse.ArgumentParser(prog=name, description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the set")
    add("--toys", type=int, default=0, help="number of toys")
    add("--furniture", type=Path, help="folder of real objects, see demo.furniture")
    variants = "of each real object: turned, stretched, recoloured"
    add("--variants", type=int, default=1, help=variants)
    add("--held_out", action="store_true", help="objects that are never trained on")
    add("--size", type=int, default=64, help="pixels a side of a view")
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Render the set; exit with status 1 if it is not usable."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, least in (("toys", 0), ("variants", 1), ("size", 8), ("workers", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
    if not args.toys and args.furniture is None:
        parser.error("give --toys, --furniture or both")
    for package in ("trimesh", "embreex", "manifold3d"):
        import_optional(package, "Rendering a set of toys", REQUIREMENTS)
    objects = list_toys(args.toys, args.held_out)
    if args.furniture is not None:
        objects += list_real_objects(args.furniture, args.variants, args.held_out)
    args.output.mkdir(parents=True, exist_ok=True)
    with file_lock(args.output / UID_SET, wait=False):
        usable = render_set(objects, args.output, args.size, args.held_out, args.workers)
    if not usable:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
