"""Draw the documentation's figures and the bundled example input, without any other data.

`testset/locomotive.png` shows the toy of `docs.toy` at an elevation of 20 degrees; the figures go
to `docs/`. Run from the project's folder (less than a minute on one CPU core):

    python -m docs.make_figures
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from docs.toy import render
from multiview.cameras import CAMERA_DISTANCE, NUM_VIEWS, REFERENCE_IMAGE_SIZE, orbit_cameras
from multiview.images import composite_white, crop_and_pad, to_uint8

ROOT = Path(__file__).resolve().parent.parent
INPUT_ELEVATION = 20.0
INPUT_AZIMUTH = -40.0
TARGET_ELEVATION = 30.0
ELEVATIONS = (-10, 0, 15, 30, 40)
CROP_SIZES = (150, 180, 200, 240)

Point = tuple[float, float]
Colour = tuple[int, int, int]
INK, GREY, PALE = (40, 44, 52), (150, 155, 165), (205, 210, 218)
BLUE, ORANGE = (33, 105, 190), (224, 110, 20)
CAPTION = 34  # height of a caption in pixels
SMOOTH = 3  # the schematic is drawn this many times as large


def on_white(image: Image.Image) -> Image.Image:
    """Composite an RGBA image on white."""
    return Image.fromarray(to_uint8(composite_white(image)))


def captioned_row(images: Sequence[Image.Image], captions: Sequence[str], gap: int) -> Image.Image:
    """Put RGB images of equal size side by side on white, each with a caption below."""
    width, height = images[0].size
    row = Image.new("RGB", (len(images) * (width + gap) + gap, height + gap + CAPTION), "white")
    draw = ImageDraw.Draw(row)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = gap + i * (width + gap)
        row.paste(image, (left, gap))
        draw.text(
            (left + width / 2, height + gap + CAPTION / 2),
            caption,
            fill=INK,
            font=ImageFont.load_default(size=19),
            anchor="mm",
        )
    return row


def elevation_figure() -> Image.Image:
    """Show the toy at several elevations, to compare a photo with."""
    views = [on_white(render(elevation, INPUT_AZIMUTH, 220)) for elevation in ELEVATIONS]
    views = [view.crop((14, 10, 206, 210)) for view in views]
    return captioned_row(views, [f"{elevation}°" for elevation in ELEVATIONS], gap=6)


def crop_size_figure(example: Image.Image) -> Image.Image:
    """Show the example input, framed with several values of `crop_size`."""
    frames = []
    for crop_size in CROP_SIZES:
        frame = on_white(crop_and_pad(example, crop_size, REFERENCE_IMAGE_SIZE))
        ImageDraw.Draw(frame).rectangle((0, 0, frame.width - 1, frame.height - 1), outline=GREY)
        frames.append(frame)
    return captioned_row(frames, [f"crop_size {crop_size}" for crop_size in CROP_SIZES], gap=12)


def views_figure(size: int = 128, columns: int = 8) -> Image.Image:
    """Show the numbered views of the 16 target cameras."""
    sheet = Image.new("RGB", (columns * size, NUM_VIEWS // columns * size), "white")
    draw = ImageDraw.Draw(sheet)
    azimuths = np.rad2deg(orbit_cameras(NUM_VIEWS, TARGET_ELEVATION).azimuths)
    for i, azimuth in enumerate(azimuths):
        left, top = i % columns * size, i // columns * size
        view = on_white(render(TARGET_ELEVATION, INPUT_AZIMUTH + azimuth, size))
        sheet.paste(view, (left, top))
        draw.text((left + 6, top + 4), str(i), fill=INK, font=ImageFont.load_default(size=15))
    return sheet


class Schematic:
    """A supersampled drawing around a centre, in world units with y up."""

    def __init__(self, image: Image.Image, centre: Point, unit: float) -> None:
        self.image, self.centre, self.unit = image, centre, unit
        self.draw = ImageDraw.Draw(image)

    def at(self, radius: float, degrees: float) -> Point:
        """Return the pixel of a point in polar coordinates; degrees 0 is right, 90 is up."""
        angle = np.deg2rad(degrees)
        x, y = radius * self.unit * np.cos(angle), radius * self.unit * np.sin(angle)
        return (self.centre[0] + x) * SMOOTH, (self.centre[1] - y) * SMOOTH

    def toy(self, elevation: float, azimuth: float) -> None:
        """Paste the toy at the drawing's scale."""
        size = 256
        pixels_per_unit = orbit_cameras(1, image_size=size).intrinsics[0, 0, 0] / CAMERA_DISTANCE
        side = round(size * self.unit / pixels_per_unit * SMOOTH)
        image = render(elevation, azimuth, size).resize((side, side), Image.Resampling.BICUBIC)
        corner = tuple(round(c * SMOOTH - side / 2) for c in self.centre)
        self.image.paste(image, corner, image)

    def line(self, ends: tuple[Point, Point], colour: Colour, width: float = 1.5) -> None:
        """Draw a straight line between two points given as (radius, degrees)."""
        points = [self.at(*end) for end in ends]
        self.draw.line(points, fill=colour, width=round(width * SMOOTH))

    def arc(self, radius: float, span: Point, colour: Colour, dashes: int = 0) -> None:
        """Draw an arc between two angles in degrees, solid if `dashes` is 0."""
        edges = np.linspace(*span, 2 * dashes if dashes else 2)
        for first, last in edges.reshape(-1, 2):
            points = [self.at(radius, angle) for angle in np.linspace(first, last, 60)]
            self.draw.line(points, fill=colour, width=round(1.5 * SMOOTH), joint="curve")

    def arrow_head(self, tip: Point, degrees: float, colour: Colour) -> None:
        """Draw a filled triangle at `tip` (radius, degrees), pointing to `degrees`."""
        x, y = self.at(*tip)
        corners = []
        for turn, length in ((0, 7), (140, 8), (-140, 8)):
            angle = np.deg2rad(degrees + turn)
            corners.append(
                (x + length * SMOOTH * np.cos(angle), y - length * SMOOTH * np.sin(angle))
            )
        self.draw.polygon(corners, fill=colour)

    def camera(self, radius: float, degrees: float, colour: Colour) -> None:
        """Draw a camera that faces the centre: a box with a lens."""
        body = ((0.0, -9), (0.0, 9), (17, 9), (17, -9))
        lens = ((0.0, -3), (0.0, 3), (-8, 7), (-8, -7))
        x, y = self.at(radius, degrees)
        cos, sin = np.cos(np.deg2rad(degrees)) * SMOOTH, np.sin(np.deg2rad(degrees)) * SMOOTH
        for shape in (body, lens):
            corners = [(x + a * cos + b * sin, y - a * sin + b * cos) for a, b in shape]
            self.draw.polygon(corners, fill=colour)

    def text(
        self, at: Point, text: str, colour: Colour = INK, size: int = 15, anchor: str = "mm"
    ) -> None:
        """Write text at a point (radius, degrees)."""
        font = ImageFont.load_default(size=size * SMOOTH)
        self.draw.text(self.at(*at), text, fill=colour, font=font, anchor=anchor)


def draw_side_view(image: Image.Image) -> None:
    """Draw the vertical plane through the object and the input camera, on the right."""
    side = Schematic(image, centre=(330, 360), unit=168)
    side.toy(0.0, INPUT_AZIMUTH - 90)
    side.arc(CAMERA_DISTANCE, (-10, 190), PALE, dashes=43)
    side.line(((1.72, 180), (1.72, 0)), PALE)
    for degrees, colour in (
        (180 - TARGET_ELEVATION, BLUE),
        (TARGET_ELEVATION, BLUE),
        (INPUT_ELEVATION, ORANGE),
    ):
        side.line(((0, 0), (CAMERA_DISTANCE - 0.03, degrees)), colour)
        side.camera(CAMERA_DISTANCE, degrees, colour)
    side.draw.ellipse((*side.at(0.034, 135), *side.at(0.034, -45)), fill=INK)
    side.arc(0.78, (0, INPUT_ELEVATION), ORANGE)
    side.text((0.83, INPUT_ELEVATION / 2), "e", ORANGE, 20, "lm")
    for degrees, anchor in ((TARGET_ELEVATION, "lm"), (180 - TARGET_ELEVATION, "rm")):
        flat = 0 if anchor == "lm" else 180
        side.arc(1.12, (flat, degrees), BLUE)
        side.text((1.16, (3 * flat + degrees) / 4), f"{TARGET_ELEVATION:.0f}°", BLUE, 16, anchor)
    side.text((0.98, 147.5), f"distance {CAMERA_DISTANCE}", BLUE, 15, "lb")
    side.text((1.64, 31), "target 0", BLUE, 16, "lm")
    side.text((1.64, 149), "target 8", BLUE, 16, "rm")
    side.text((1.64, INPUT_ELEVATION), "input", ORANGE, 16, "lm")
    side.text((1.37, -90), "from the side", size=19)


def draw_top_view(image: Image.Image) -> None:
    """Draw the ring of target cameras from above; the input's azimuth points down."""
    top = Schematic(image, centre=(930, 290), unit=168)
    ring = CAMERA_DISTANCE * np.cos(np.deg2rad(TARGET_ELEVATION))
    top.toy(90.0, INPUT_AZIMUTH)
    top.arc(ring, (0, 360), PALE)
    for i, azimuth in enumerate(np.rad2deg(orbit_cameras(NUM_VIEWS).azimuths)):
        top.camera(ring, azimuth - 90, BLUE)
        top.text((ring - 0.17, azimuth - 90), str(i), BLUE, 16)
    top.camera(ring + 0.17, -90, ORANGE)
    top.text((ring + 0.25, -85.5), "input", ORANGE, 16, "lm")
    top.arc(0.90, (-88, -46), INK)
    top.arrow_head((0.90, -44), 45, INK)
    top.text((0.74, -68), "azimuth", INK, 15)
    top.text((1.787, -90), "from above", size=19)


def cameras_figure() -> Image.Image:
    """Show the cameras around the object from the side and from above."""
    width, height = 1200, 620
    image = Image.new("RGB", (width * SMOOTH, height * SMOOTH), "white")
    draw_side_view(image)
    draw_top_view(image)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG file and print its size."""
    path.parent.mkdir(exist_ok=True)
    image.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {image.width} x {image.height}, {path.stat().st_size} bytes")


def main() -> None:
    """Draw all figures."""
    example = render(INPUT_ELEVATION, INPUT_AZIMUTH, REFERENCE_IMAGE_SIZE, samples=4)
    save(example, ROOT / "testset" / "locomotive.png")
    save(elevation_figure(), ROOT / "docs" / "elevation.png")
    save(crop_size_figure(example), ROOT / "docs" / "crop_size.png")
    save(views_figure(), ROOT / "docs" / "views.png")
    save(cameras_figure(), ROOT / "docs" / "cameras.png")


if __name__ == "__main__":
    main()
