"""Pictures that visitors send, and the mask that they adjust by clicks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from multiview.images import FORMATS, read_image
from multiview.matting import has_mask, remove_background
from multiview.segmentation import Segmenter

MAX_PIXELS = 50_000_000
"""Larger pictures are refused before they are decoded: 0.8 GB of memory, if they have 16 bits."""
MAX_SIDE = 1024
"""Pictures are worked on at this size; the model sees 256 pixels at most."""
MIN_SIDE = 16
MAX_UNDO = 12
MIN_OBJECT = 64
"""Pixels that an object has at least."""
SIMILAR = 32.0
"""How far colours differ at most that count as similar, of 255, along the diagonal."""


class PictureError(Exception):
    """A picture or a mask cannot be used; the message is for the visitor."""


def read_upload(path: Path) -> Image.Image:
    """Read what a visitor has sent, at most `MAX_SIDE` pixels a side.

    Returns:
        image of mode "RGB" or "RGBA".

    Raises:
        PictureError: not an image, damaged, too large, too small or too narrow.
    """
    try:
        with Image.open(path, formats=FORMATS) as header:
            width, height = header.size
    except Image.DecompressionBombError:
        width = height = MAX_PIXELS
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(
            "This file is not a picture that can be read. Send a PNG, JPEG or WebP."
        ) from error
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"This picture has too many pixels; at most {MAX_PIXELS // 10**6} million are read. "
            f"Make it smaller first."
        )
    if min(width, height) < MIN_SIDE:
        raise PictureError(
            f"This picture is only {width} x {height} pixels; at least {MIN_SIDE} a side are "
            f"needed."
        )
    try:
        image = read_image(path)
    except (ValueError, FileNotFoundError) as error:
        raise PictureError("This picture is damaged or cut off, and cannot be read.") from error
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    if min(image.size) < MIN_SIDE:
        raise PictureError(
            f"This picture of {width} x {height} pixels is too long and narrow. Cut it to the "
            f"object."
        )
    image.info.clear()  # where it was taken is nobody's business
    return image


class MaskEditor:
    """A picture, and what of it is the object.

    Args:
        image: mode "RGB" or "RGBA".
        segment: finds the object where the alpha does not tell it.
        backend: name of `segment`.
    """

    def __init__(self, image: Image.Image, segment: Segmenter, backend: str) -> None:
        self.found = ""
        """What the visitor should know of how the mask came to be."""
        if has_mask(image):
            found = image
        else:
            try:
                found = remove_background(image, segment, backend)
            except ValueError:
                found = image.convert("RGBA")
                found.putalpha(0)
                self.found = (
                    "No object was found in this picture. Click on the object to keep it, with a "
                    "large brush first."
                )
        pixels = np.asarray(found)
        self.colours = pixels[..., :3].copy()
        if image.mode == "RGBA":  # colours that were never to be seen
            self.colours[np.asarray(image)[..., 3] == 0] = 255
        self._first = pixels[..., 3].copy()
        self.alpha = self._first
        self._history: list[np.ndarray] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.alpha.shape[1], self.alpha.shape[0]

    def click(self, x: float, y: float, keep: bool, brush: float, similar: bool = False) -> None:
        """Keep or erase a disc.

        Args:
            x: pixels from the left; places outside the picture count as its edge.
            y: pixels from the top.
            keep: else erase.
            brush: diameter, as a share of the longer side.
            similar: only what is connected to the place by similar colours.
        """
        height, width = self.alpha.shape
        column, row = (round(min(max(p, 0), n - 1)) for p, n in ((x, width), (y, height)))
        radius = max(min(brush, 1.0) * max(width, height) / 2, 0.5)
        rows, columns = np.ogrid[:height, :width]
        disc = np.hypot(columns - column, rows - row) <= radius
        if similar:
            disc &= self._similar(disc, row, column)
        self._remember()
        self.alpha = np.where(disc, np.uint8(255 if keep else 0), self.alpha)

    def _similar(self, disc: np.ndarray, row: int, column: int) -> np.ndarray:
        from scipy import ndimage

        away = self.colours.astype(np.float32) - self.colours[row, column]
        near = disc & (np.linalg.norm(away, axis=-1) <= SIMILAR)
        labels, _ = ndimage.label(near)
        return labels == labels[row, column]

    def undo(self) -> None:
        """Take the last change back, if there is one."""
        if self._history:
            self.alpha = self._history.pop()

    def reset(self) -> None:
        """Go back to the mask as it was found."""
        if self.alpha is not self._first:
            self._remember()
            self.alpha = self._first

    def _remember(self) -> None:
        self._history = [*self._history[-MAX_UNDO + 1 :], self.alpha]

    def shown(self) -> Image.Image:
        """The picture with what is erased faded into a chequerboard, RGB."""
        height, width = self.alpha.shape
        cell = max(max(width, height) // 48, 2)
        rows, columns = np.ogrid[:height, :width]
        board = np.where((rows // cell + columns // cell) % 2, 214, 240)[..., None]
        alpha = self.alpha[..., None] / 255.0
        faded = 0.85 * board + 0.15 * self.colours
        mixed = alpha * self.colours + (1 - alpha) * faded
        return Image.fromarray(mixed.round().astype(np.uint8))

    def result(self) -> Image.Image:
        """The object, RGBA.

        Raises:
            PictureError: nothing is kept, or everything.
        """
        kept = int((self.alpha >= 128).sum())
        if kept < MIN_OBJECT:
            raise PictureError(
                "The mask is empty: nothing of the picture is kept. Click on the object to keep it."
            )
        if kept == self.alpha.size:
            raise PictureError(
                "The whole picture is kept. Erase the background, so that only the object is left."
            )
        return Image.fromarray(np.dstack([self.colours, self.alpha]))
