r"""Draw results of image_to_3d.py, one row for each input image.

    python image_to_3d.py testset -o output/testset --preset fast
    python -m docs.results_figure docs/demo.png \
        output/testset/{cactus,robot,goat,house,coffee-brewer,car}

A row: the framed input; four of the 16 views; the textured mesh and its shape in grey, each from
the front and from behind.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from docs.reconstruction_figure import lit, load, row
from multiview.cameras import orbit_cameras
from multiview.views import read_views
from pipeline.paths import BEST, FRAMED

SIZE = 128
SHOWN_VIEWS = (0, 3, 6, 12)


def figure_row(folder: Path) -> np.ndarray:
    """Draw one result, (H, 9 H, 3) uint8."""

    def scaled(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    with Image.open(folder / FRAMED) as image:
        white = Image.new("RGBA", image.size, "white")
        images = [scaled(Image.alpha_composite(white, image.convert("RGBA")))]
    views = read_views(folder / BEST)
    images += [scaled(Image.fromarray(np.uint8(views[k] * 255 + 0.5))) for k in SHOWN_VIEWS]
    mesh = load(folder / "mesh.glb")
    front_and_back = orbit_cameras(2, elevation_deg=20.0, image_size=SIZE)
    images += [row(each, front_and_back, SIZE) for each in (mesh, lit(mesh))]
    return np.concatenate(images, axis=1)


def main(argv: list[str] | None = None) -> None:
    """Draw the figure and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path, help="PNG file to write")
    parser.add_argument("folders", type=Path, nargs="+", help="results of image_to_3d.py")
    args = parser.parse_args(argv)
    rows = [figure_row(folder) for folder in args.folders]
    Image.fromarray(np.concatenate(rows)).save(args.image, optimize=True)


if __name__ == "__main__":
    main()
