"""Render the images of testset/ and validation_set/, and write testset_parameters.sh.

    python -m docs.make_testset --furniture furniture

The toys are held out from the small model's training; the three real objects are public domain
(CC0), by their authors on blendswap.com, from Sweet Home 3D's furniture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from common.cli import run_script
from common.files import atomic_write
from demo.furniture import load_furniture
from demo.furniture_archive import list_models
from demo.make_dataset import HELD_OUT_SEED, is_held_out
from demo.raycast.render_views import render_views
from demo.toys.make_toys import make_toy
from multiview.cameras import orbit_cameras

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
LOCOMOTIVE = "--elevation 20 --crop_size 200"
"""Flags of the image by docs.make_figures, which is not framed as the cameras see it."""


def render(item: int | str, elevation: float, azimuth: float, furniture: Path) -> Image.Image:
    """Render an object, RGBA.

    Raises:
        ValueError: a real object does not exist, or is not held out.
    """
    if isinstance(item, int):
        scene = make_toy(HELD_OUT_SEED + item)
    else:
        models = {model.uid: model for model in list_models(furniture)}
        if item not in models or not is_held_out(item):
            raise ValueError(f"{furniture}: no held-out model {item}")
        scene = load_furniture(models[item])
    turn = np.deg2rad(-azimuth)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    scene.apply_transform(matrix)
    cameras = orbit_cameras(1, elevation, image_size=SIZE)
    return Image.fromarray(render_views(scene, cameras, SIZE, supersampling=3)[0])


def write_parameters(path: Path) -> None:
    """Write a shell script that generates the views of all test images."""
    lines = ["#!/usr/bin/env bash", "# Generate the views of every image in testset/.", "set -e"]
    lines.append('PYTHON="${PYTHON:-.venv/bin/python}"')
    flags = {name: f"--elevation {values[1]:g}" for name, values in TESTSET.items()}
    for name, extra in sorted((flags | {"locomotive": LOCOMOTIVE}).items()):
        lines.append(
            f'"$PYTHON" generate.py --input testset/{name}.png --output output/{name} {extra} "$@"'
        )
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
        temporary.chmod(0o755)


def main(argv: list[str] | None = None) -> None:
    """Render the images and write the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--furniture", type=Path, required=True, help="folder of archives, see demo.furniture"
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    args = parser.parse_args(argv)
    for name, values in TESTSET.items():
        render(*values, args.furniture).save(Path("testset") / f"{name}.png", optimize=True)
    Path("validation_set").mkdir(exist_ok=True)
    for name, values in VALIDATION.items():
        path = Path("validation_set") / f"{name}-{values[1]:g}.png"
        render(*values, args.furniture).save(path, optimize=True)
    write_parameters(Path("testset_parameters.sh"))


if __name__ == "__main__":
    run_script(main)
