"""Uploaded images, and a mask editor driven by clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from multiview.image_file import UnfitImageError, read_image
from multiview.mask_check import check_mask
from multiview.matting import has_mask, remove_background
from multiview.segmentation import Segmenter

MAX_PIXELS = 50_000_000
"""Larger images are refused before decoding, which takes up to 0.8 GB at 16 bits per channel."""
MAX_SIDE = 1024
"""Larger images are reduced to this side, pixels; the model sees 256 at most."""
MIN_SIDE = 16
MAX_UNDO = 12
MIN_OBJECT_PIXELS = 64
"""Smaller masks count as empty."""
COLOUR_TOLERANCE = 32.0
"""Largest Euclidean distance of similar RGB colours, channels 0 to 255."""


class UserError(Exception):
    """An image, mask or setting cannot be used; the message is shown to the visitor."""


def read_upload(path: Path) -> Image.Image:
    """Read an uploaded image as RGB or RGBA, reduced to at most `MAX_SIDE` pixels a side.

    Raises:
        UserError: not an image, damaged, too large, too small or too narrow.
    """
    try:
        image = read_image(path, max_pixels=MAX_PIXELS)
    except UnfitImageError as error:  # without the path, which is the server's own
        raise UserError(f"This file cannot be used: {error.reason}.") from error
    except (ValueError, FileNotFoundError) as error:
        raise UserError("This image file is damaged or incomplete.") from error
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UserError(
            f"This image has only {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are "
            f"needed."
        )
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    if min(image.size) < MIN_SIDE:
        size = f"{width} x {height} pixels"
        raise UserError(f"This image of {size} is too long and narrow. Crop it to the object.")
    image.info.clear()  # EXIF may hold private data, such as the location
    return image


class MaskEditor:
    """An RGB or RGBA image with an editable object mask, segmented if it has no alpha.

    `backend` is the name of `segment`.
    """

    def __init__(self, image: Image.Image, segment: Segmenter, backend: str) -> None:
        self.notice = ""
        """Message for the visitor about the initial mask."""
        try:
            masked = image if has_mask(image) else remove_background(image, segment, backend)
            masked = check_mask(masked, "an uploaded image")
        except ValueError:
            masked = image.convert("RGBA")
            masked.putalpha(0)
            self.notice = (
                "No object was found in this image. Click on the object to add it to the mask; "
                "begin with a large brush."
            )
        pixels = np.asarray(masked)
        self.colours = pixels[..., :3].copy()
        if image.mode == "RGBA":  # fully transparent pixels have arbitrary colours
            self.colours[np.asarray(image)[..., 3] == 0] = 255
        self._initial = pixels[..., 3].copy()
        self.alpha = self._initial
        self._history: list[np.ndarray] = []

    def click(self, x: float, y: float, keep: bool, brush: float, similar: bool = False) -> None:
        """Add a disc to the mask (`keep`), or erase it from the mask.

        It is at pixel x, y, clipped to the image; `brush` is its diameter as a fraction of the
        longer side. `similar` takes only pixels of similar colour, connected to the clicked one.
        """
        height, width = self.alpha.shape
        column, row = (round(min(max(p, 0), n - 1)) for p, n in ((x, width), (y, height)))
        radius = max(min(brush, 1.0) * max(width, height) / 2, 0.5)
        rows, columns = np.ogrid[:height, :width]
        disc = np.hypot(columns - column, rows - row) <= radius
        if similar:
            from scipy import ndimage

            difference = self.colours.astype(np.float32) - self.colours[row, column]
            disc &= np.linalg.norm(difference, axis=-1) <= COLOUR_TOLERANCE
            labels, _ = ndimage.label(disc)
            disc = labels == labels[row, column]
        self._remember()
        self.alpha = np.where(disc, np.uint8(255 if keep else 0), self.alpha)

    def undo(self) -> None:
        """Undo the last change, if any."""
        if self._history:
            self.alpha = self._history.pop()

    def reset(self) -> None:
        """Restore the initial mask."""
        if self.alpha is not self._initial:
            self._remember()
            self.alpha = self._initial

    def _remember(self) -> None:
        self._history = [*self._history[-MAX_UNDO + 1 :], self.alpha]

    def preview(self) -> Image.Image:
        """The image with the background faded into a chequerboard, RGB."""
        height, width = self.alpha.shape
        cell = max(max(width, height) // 48, 2)
        rows, columns = np.ogrid[:height, :width]
        board = np.where((rows // cell + columns // cell) % 2, 214, 240)[..., None]
        alpha = self.alpha[..., None] / 255.0
        faded = 0.85 * board + 0.15 * self.colours
        mixed = alpha * self.colours + (1 - alpha) * faded
        return Image.fromarray(mixed.round().astype(np.uint8))

    def result(self) -> Image.Image:
        """The image with the mask as alpha; UserError if it is empty or covers the whole image."""
        kept = int((self.alpha >= 128).sum())
        if kept < MIN_OBJECT_PIXELS:
            raise UserError("The mask is empty. Click on the object to add it to the mask.")
        if kept == self.alpha.size:
            raise UserError(
                "The mask covers the whole image. Erase the background so that only the object "
                "remains."
            )
        return Image.fromarray(np.dstack([self.colours, self.alpha]))
