"""Generate simple textured 3D objects ("toys") from seeds, to train a small model on.

    python -m demo.toys --count 100 --first 0 --output output/toys

writes toy-0.glb to toy-99.glb. A seed always gives the same toy.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.files import atomic_write
from common.optional import import_optional
from demo import REQUIREMENTS
from demo.toys import creatures, household, outdoors, shapes, vehicles
from demo.toys.solids import Solid, from_manifold, to_manifold
from demo.toys.toy_builder import ToyBuilder

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

log = logging.getLogger(__name__)

SEED_STREAM = 0x70F5
"""Second seed of the generator: other uses of the same seed get other random numbers."""
LAST_SEED = 2**63 - 1
Z_UP_TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])

FAMILIES: dict[str, tuple[float, Callable[[ToyBuilder], None]]] = {
    "assembly": (8.0, shapes.assembly),
    "carved": (4.0, shapes.carved),
    "superquadrics": (4.0, shapes.superquadrics),
    "letters": (4.0, shapes.lettering),
    "plates": (3.0, shapes.plates),
    "vase": (4.0, shapes.vase),
    "bottle": (3.0, shapes.bottle),
    "cup": (4.0, shapes.cup),
    "bell": (1.5, shapes.bell),
    "chess": (2.5, shapes.chess_piece),
    "top": (2.0, shapes.spinning_top),
    "chair": (4.5, household.chair),
    "table": (3.0, household.table),
    "stool": (2.0, household.stool),
    "shelf": (2.5, household.shelf),
    "sofa": (3.0, household.sofa),
    "bed": (2.5, household.bed),
    "lamp": (2.5, household.lamp),
    "clock": (2.0, household.grandfather_clock),
    "car": (6.0, vehicles.car),
    "truck": (3.5, vehicles.truck),
    "train": (2.5, vehicles.train),
    "boat": (3.0, vehicles.boat),
    "aeroplane": (3.5, vehicles.aeroplane),
    "rocket": (2.5, vehicles.rocket),
    "house": (4.0, outdoors.house),
    "castle": (3.0, outdoors.castle),
    "blocks": (3.5, outdoors.blocks),
    "snowman": (2.0, creatures.snowman),
    "robot": (4.0, creatures.robot),
    "person": (3.0, creatures.person),
    "animal": (6.0, creatures.animal),
    "bird": (3.5, creatures.bird),
    "fish": (3.0, creatures.fish),
    "tree": (3.0, outdoors.tree),
    "mushroom": (2.5, outdoors.mushroom),
    "cake": (3.0, household.cake),
    "fruit": (2.5, outdoors.fruit),
    "hat": (3.0, household.hat),
    "tool": (2.5, household.tool),
    "gadget": (4.0, household.gadget),
}
"""Family -> relative frequency, and the function that adds its parts to a `ToyBuilder`.

Order and frequencies decide which toy a seed gives: do not change them."""


def make_toy(seed: int, family: str | None = None) -> Scene:
    """Generate the toy of a seed, 0 to `LAST_SEED`; of one of `FAMILIES`, random if None.

    The textured parts stand on z = 0 above the origin, with the front towards +x, where the camera
    at azimuth 0 is. Vertices are doubled along sharp edges and seams. `metadata["family"]` is the
    family. ValueError: the seed is out of range, or the family is unknown.
    """
    if not 0 <= seed <= LAST_SEED:
        raise ValueError(f"the seed of a toy must be from 0 to {LAST_SEED}, got {seed}")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family of toys {family!r}; known: {', '.join(FAMILIES)}")
    rng = np.random.Generator(np.random.PCG64([seed, SEED_STREAM]))
    weights = np.cumsum([weight for weight, _ in FAMILIES.values()])
    index = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
    name = family if family is not None else list(FAMILIES)[index]
    builder = ToyBuilder(rng)
    FAMILIES[name][1](builder)
    scene = builder.scene()
    scene.metadata["family"] = name
    return scene


def ground_truth_mesh(scene: Scene) -> Trimesh:
    """Unite a toy's parts to one closed surface in its frame; ValueError: a part is not closed."""
    trimesh = import_optional("trimesh", "Toy generation")
    kernel = import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    parts = []
    for node in scene.graph.nodes_geometry:
        frame, name = scene.graph[node]
        mesh = scene.geometry[name]
        places, same = np.unique(mesh.vertices, axis=0, return_inverse=True)
        places = places @ frame[:3, :3].T + frame[:3, 3]
        part = to_manifold(Solid(places, same.reshape(-1)[mesh.faces]))
        if part.status() != kernel.Error.NoError:
            raise ValueError(f"{name}: not a closed surface ({part.status().name})")
        parts.append(part)
    whole = kernel.Manifold.batch_boolean(parts, kernel.OpType.Add)
    return trimesh.Trimesh(*from_manifold(whole), process=False)


def write_toy(scene: Scene, path: Path) -> None:
    """Write a toy as a .glb file, y up as glTF requires."""
    upright = import_optional("trimesh", "Toy generation").Scene()
    for node in scene.graph.nodes_geometry:  # Scene.copy would lose the parts' normals
        frame, name = scene.graph[node]
        upright.add_geometry(
            scene.geometry[name], node_name=node, geom_name=name, transform=Z_UP_TO_Y_UP @ frame
        )
    content = upright.export(file_type="glb", include_normals=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--count", type=int, required=True, help="number of toys")
    add("--first", type=int, default=0, help="seed of the first toy; the next ones follow")
    add("--family", choices=list(FAMILIES), metavar="NAME",
        help=f"only this family: {', '.join(FAMILIES)}")  # fmt: skip
    add("--output", type=Path, required=True, help="folder for toy-<seed>.glb")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Write toys as .glb files."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error(f"--count must be at least 1, got {args.count}")
    if args.first < 0 or args.first + args.count - 1 > LAST_SEED:
        parser.error(f"--first must be from 0, and the last seed at most {LAST_SEED}")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"--output {args.output} is not a folder")
    import_optional("manifold3d", "Toy generation", REQUIREMENTS)
    args.output.mkdir(parents=True, exist_ok=True)
    for seed in range(args.first, args.first + args.count):
        write_toy(make_toy(seed, args.family), args.output / f"toy-{seed}.glb")
    log.info("wrote %d toys to %s", args.count, args.output)
