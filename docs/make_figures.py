"""Draw the documentation's figures of the bundled toy into docs/, without any other data.

python -m docs.make_figures
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image, ImageDraw, ImageFont

from demo.raycast.render_views import render_views
from docs.make_testset import TESTSET, load
from multiview.cameras import (
    CAMERA_DISTANCE,
    NUM_VIEWS,
    REFERENCE_IMAGE_SIZE,
    orbit_cameras,
    orbit_pose,
)
from multiview.images import crop_and_pad

TOY, INPUT_ELEVATION, INPUT_AZIMUTH = TESTSET["locomotive"]
ELEVATIONS = (-10, 0, 15, 30, 40)
CROP_SIZES = (150, 180, 200, 240)
Colour = tuple[int, int, int]
INK, GREY, BLUE, ORANGE = (40, 44, 52), (150, 155, 165), (33, 105, 190), (224, 110, 20)


def toy(azimuth: float = INPUT_AZIMUTH) -> trimesh.Scene:
    """Return the bundled toy: centred, longest side 1, turned by an azimuth in degrees."""
    scene = load(TOY, azimuth)
    scene.apply_translation(-scene.bounds.mean(axis=0))
    scene.apply_scale(1 / scene.extents.max())
    return scene


def on_white(image: Image.Image | np.ndarray) -> Image.Image:
    """Composite an RGBA image on white."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def write(draw: ImageDraw.ImageDraw, u: float, v: float, text: str, colour: Colour = INK) -> None:
    """Write text around a pixel."""
    draw.text((u, v), text, fill=colour, font=ImageFont.load_default(size=19), anchor="mm")


def captioned_row(images: Sequence[Image.Image], captions: Sequence[str], gap: int) -> Image.Image:
    """Put RGB images of equal size side by side on white, each with a caption below."""
    (width, height), below = images[0].size, 34
    row = Image.new("RGB", (len(images) * (width + gap) + gap, height + gap + below), "white")
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = gap + i * (width + gap)
        row.paste(image, (left, gap))
        write(ImageDraw.Draw(row), left + width / 2, height + gap + below / 2, caption)
    return row


def elevation_figure() -> Image.Image:
    """Show the toy at several elevations, to compare a photo with."""
    views = []
    for elevation in ELEVATIONS:
        cameras = orbit_cameras(1, elevation, image_size=192)
        views += [on_white(view) for view in render_views(toy(), cameras, 192, 3)]
    return captioned_row(views, [f"{elevation}°" for elevation in ELEVATIONS], gap=6)


def crop_size_figure() -> Image.Image:
    """Show the example input, framed with several values of `crop_size`."""
    frames = []
    for crop_size in CROP_SIZES:
        with Image.open("testset/locomotive.png") as example:
            frame = on_white(crop_and_pad(example, crop_size, REFERENCE_IMAGE_SIZE))
        ImageDraw.Draw(frame).rectangle((0, 0, frame.width - 1, frame.height - 1), outline=GREY)
        frames.append(frame)
    return captioned_row(frames, [f"crop_size {crop_size}" for crop_size in CROP_SIZES], gap=12)


def views_figure(size: int = 128, columns: int = 8) -> Image.Image:
    """Show the numbered views of the 16 target cameras."""
    sheet = Image.new("RGB", (columns * size, NUM_VIEWS // columns * size), "white")
    views = render_views(toy(), orbit_cameras(image_size=size), size, 3)
    for i, view in enumerate(views):
        left, top = i % columns * size, i // columns * size
        sheet.paste(on_white(view), (left, top))
        write(ImageDraw.Draw(sheet), left + 14, top + 12, str(i))
    return sheet


def cameras_figure(size: int = 600) -> Image.Image:
    """Show the target cameras, blue, and the input's, orange, from the side and from above."""
    scene, input_pose = toy(), orbit_pose(np.deg2rad(INPUT_ELEVATION), 0.0, CAMERA_DISTANCE)
    marks = [(str(i), BLUE, 0.85, pose) for i, pose in enumerate(orbit_cameras().world_to_camera)]
    marks.append(("input", ORANGE, 1.13, input_pose))
    for _, colour, _, pose in marks:
        cone = trimesh.creation.cone(0.05, 0.12, sections=4, face_colors=colour)
        scene.add_geometry(cone, transform=np.linalg.inv(np.vstack([pose, [0, 0, 0, 1]])))
    centre, unit = scene.bounds.mean(axis=0), scene.extents.max()
    around = orbit_cameras(4, np.array([90.0, 0.0, 0.0, 10.0]), image_size=size)
    views = render_views(scene, around, size, 3)
    panels = []
    for k, every in ((3, 4), (0, 1)):
        panels.append(on_white(views[k]))
        for text, colour, share, pose in marks[::every]:
            place = (-share * pose[:, :3].T @ pose[:, 3] - centre) / unit
            u, v, depth = around.intrinsics[k] @ around.world_to_camera[k] @ [*place, 1]
            write(ImageDraw.Draw(panels[-1]), u / depth, v / depth, text, colour)
    captions = ["from the side: targets at 30°, the input at its elevation", "from above"]
    return captioned_row(panels, captions, gap=0)


def main() -> None:
    """Draw all figures."""
    figures = {
        "elevation": elevation_figure,
        "crop_size": crop_size_figure,
        "views": views_figure,
        "cameras": cameras_figure,
    }
    for name, draw in figures.items():
        draw().save(Path("docs", f"{name}.png"), optimize=True)


if __name__ == "__main__":
    main()
