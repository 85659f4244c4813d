r"""Draw results of image_to_3d.py, one row for each input image, or a reconstruction.

    python image_to_3d.py testset -o output/testset --preset fast
    python -m docs.results_figure docs/demo.png \
        output/testset/{cactus,robot,goat,house,coffee-brewer,car}
    python -m docs.results_figure docs/reconstruction.png output/renderer/chicken

A row: the framed input; four of the 16 views; the textured mesh and its shape in grey, each from
the front and from behind. A reconstruction, below each other: four of its views; the textured mesh
and its shape in grey, at elevations of 10 degrees; the textured mesh at 50 degrees.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import trimesh
from PIL import Image

from docs.make_figures import on_white
from multiview.cameras import orbit_cameras
from multiview.views import read_views
from pipeline.paths import BEST, FRAMED
from renderer.formats.read import read_textured
from renderer.mesh import with_vertex_colors
from renderer.video import render

if TYPE_CHECKING:
    from trimesh import Trimesh

LIGHT = np.array([0.25, -0.45, 0.85]) / np.linalg.norm([0.25, -0.45, 0.85])


def grey(mesh: Trimesh) -> Trimesh:
    """Return the shape in grey, brighter where it faces the light."""
    brightness = 0.3 + 0.65 * np.clip(0.5 + 0.5 * (np.asarray(mesh.vertex_normals) @ LIGHT), 0, 1)
    return with_vertex_colors(mesh, np.repeat(brightness[:, None], 3, axis=1))


def rendered(mesh: Trimesh, views: int, elevation: float, size: int) -> np.ndarray:
    """Render a mesh from all around on white, side by side, (H, N W, 3) uint8."""
    cameras = orbit_cameras(views, elevation, image_size=size)
    images = [image[..., :3] for image in render(mesh, cameras, size)]
    return np.round(np.concatenate(images, axis=1) * 255).astype(np.uint8)


def result(folder: Path, size: int = 128) -> np.ndarray:
    """Draw a result of image_to_3d.py, (H, 9 H, 3) uint8."""
    with Image.open(folder / FRAMED) as image:
        images = [on_white(image)]
    views = read_views(folder / BEST)
    images += [Image.fromarray(np.uint8(views[k] * 255 + 0.5)) for k in (0, 3, 6, 12)]
    shown = [np.asarray(each.resize((size, size), Image.Resampling.BICUBIC)) for each in images]
    mesh = read_textured(folder / "mesh.glb")
    return np.hstack([*shown, *(rendered(each, 2, 20.0, size) for each in (mesh, grey(mesh)))])


def reconstruction(folder: Path, size: int = 256) -> np.ndarray:
    """Draw an output folder of train_renderer.py, (4 H, 4 H, 3) uint8."""
    shown = [Image.open(folder / f"input-{k}.png").resize((size, size)) for k in (0, 4, 8, 12)]
    mesh = read_textured(folder / "mesh.glb")
    shape = trimesh.load(folder / "mesh.ply", process=False)
    assert isinstance(shape, trimesh.Trimesh)
    rows = [np.hstack([np.asarray(view.convert("RGB")) for view in shown])]
    rows += [rendered(each, 4, 10.0, size) for each in (mesh, grey(shape))]
    return np.vstack([*rows, rendered(mesh, 4, 50.0, size)])


def main(argv: list[str] | None = None) -> None:
    """Draw the figure and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path, help="PNG file to write")
    parser.add_argument("folders", type=Path, nargs="+", help="results of one of the scripts")
    args = parser.parse_args(argv)
    rows = [result(f) if (f / BEST).exists() else reconstruction(f) for f in args.folders]
    Image.fromarray(np.concatenate(rows)).save(args.image, optimize=True)


if __name__ == "__main__":
    main()
