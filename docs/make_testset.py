"""Render the images of testset/ and validation_set/, and write testset_parameters.sh.

    python -m docs.make_testset --furniture furniture

The toys are held out from the small model's training; the three real objects are public domain
(CC0), by their authors on blendswap.com, from Sweet Home 3D's furniture. Without that, only the
toys are rendered.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trimesh
from PIL import Image

from common.cli import run_script
from common.files import atomic_write
from demo.furniture import list_models, load_furniture
from demo.make_dataset import HELD_OUT_SEED, is_held_out
from demo.raycast.render_views import render_views
from demo.toys.make_toys import make_toy
from multiview.cameras import orbit_cameras

if TYPE_CHECKING:
    from trimesh import Scene

SIZE = 256
TESTSET: dict[str, tuple[int | str, float, float]] = {
    "aeroplane": (19, 15, 50),
    "cactus": (18, 0, 0),
    "car": (17, 10, 40),
    "chess": (22, 30, 10),
    "clock": (27, 5, 20),
    "cup": (21, 35, 30),
    "cupcake": (0, 20, 0),
    "goat": (10, 15, 50),
    "house": (13, 25, 35),
    "locomotive": (2587, 20, -40),
    "robot": (28, 0, 20),
    "pot": (30, -5, 10),
    "truck": (8, 20, 45),
    "coffee-brewer": ("blendswap-cc-0-coffeebrewer", 20, 30),
    "hotdog": ("blendswap-cc-0-hotdog", 40, 60),
    "rocking-horse": ("blendswap-cc-0-caballito", 10, 55),
}
"""Name -> toy (number among the held-out ones) or uid of a real object; elevation and azimuth of
the camera in degrees."""
VALIDATION: dict[str, tuple[int | str, float, float]] = {
    "eight": (6, 10, 25),
    "fox": (26, 20, 60),
    "tanker": (23, 30, 40),
    "windmill": (15, 0, 15),
}


def load(item: int | str, azimuth: float, furniture: Path | None = None) -> Scene:
    """Return an object, turned so that the camera at this azimuth in degrees is at azimuth 0.

    Raises:
        ValueError: a real object does not exist, or is not held out.
    """
    if isinstance(item, int):
        scene = make_toy(HELD_OUT_SEED + item)
    else:
        models = {model.uid: model for model in list_models(furniture)} if furniture else {}
        if item not in models or not is_held_out(item):
            raise ValueError(f"{furniture}: no held-out model {item}")
        scene = load_furniture(models[item])
    turn = trimesh.transformations.rotation_matrix(np.deg2rad(-azimuth), [0, 0, 1])
    return scene.apply_transform(turn)


def render(
    item: int | str, elevation: float, azimuth: float, furniture: Path | None
) -> Image.Image:
    """Render an object, RGBA; see `load`."""
    cameras = orbit_cameras(1, elevation, image_size=SIZE)
    scene = load(item, azimuth, furniture)
    return Image.fromarray(render_views(scene, cameras, SIZE, supersampling=3)[0])


def write_parameters(path: Path) -> None:
    """Write a shell script that generates the views of all test images."""
    lines = ["#!/usr/bin/env bash", "# Generate the views of every image in testset/.", "set -e"]
    lines.append('PYTHON="${PYTHON:-.venv/bin/python}"')
    for name, (_, elevation, _) in sorted(TESTSET.items()):
        extra = " --crop_size 200" if name == "locomotive" else ""
        lines.append(
            f'"$PYTHON" generate.py --input testset/{name}.png --output output/{name} '
            f'--elevation {elevation:g}{extra} "$@"'
        )
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
        temporary.chmod(0o755)


def main(argv: list[str] | None = None) -> None:
    """Render the images and write the script."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--furniture", type=Path, help="folder of archives, see demo.furniture")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    args = parser.parse_args(argv)
    paths = {Path("testset", f"{name}.png"): values for name, values in TESTSET.items()}
    for name, values in VALIDATION.items():
        paths[Path("validation_set", f"{name}-{values[1]:g}.png")] = values
    for path, values in paths.items():
        if args.furniture or isinstance(values[0], int):
            render(*values, args.furniture).save(path, optimize=True)
    write_parameters(Path("testset_parameters.sh"))


if __name__ == "__main__":
    run_script(main)
