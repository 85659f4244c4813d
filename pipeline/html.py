"""Images embedded in an HTML page, so that it needs no other file."""

from __future__ import annotations

import base64
import html
import os
from io import BytesIO
from pathlib import Path

from PIL import Image

THUMBNAIL_SIDE = 512
"""Longest side of the embedded input and mask, pixels."""


def printable(name: str) -> str:
    """A file name as text; undecodable bytes become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def figure(source: str, words: str, escape: bool = True) -> str:
    """An HTML figure with a caption; set `escape` to False for captions that are HTML."""
    caption = html.escape(words) if escape else words
    alt = html.escape(words) if escape else "curve of the scores"
    return (
        f'<figure><img class="image clear" alt="{alt}" src="{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def thumbnail(image: Image.Image) -> Image.Image:
    """Copy an image, downsampled if its longer side exceeds `THUMBNAIL_SIDE`."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small


def embed_image(image: Image.Image, kind: str = "PNG") -> str:
    """Data URL of an image; PNGs are reduced to thumbnails."""
    if kind == "PNG":
        image = thumbnail(image)
    content = BytesIO()
    image.save(content, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return _data_url(content.getvalue(), f"image/{kind.lower()}")


def embed(path: Path, kind: str) -> str:
    """Data URL of a file of a MIME type."""
    return _data_url(path.read_bytes(), kind)


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
