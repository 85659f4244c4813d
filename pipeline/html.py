"""Pictures inside an HTML page, so that it needs no other file."""

from __future__ import annotations

import base64
import html
import os
from io import BytesIO
from pathlib import Path

from PIL import Image

LARGEST_PICTURE = 512
"""Pixels of the longer side, of the input and its mask."""


def as_text(name: str) -> str:
    """A file's name; bytes in it that are no text become question marks."""
    return os.fsencode(name).decode("utf-8", "replace")


def figure(source: str, words: str, escape: bool = True) -> str:
    """A picture with words below it; these are HTML where they are not to be escaped."""
    caption = html.escape(words) if escape else words
    alt = html.escape(words) if escape else "curve of the scores"
    return (
        f'<figure><img class="picture clear" alt="{alt}" src="{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def embed_image(image: Image.Image, kind: str = "PNG") -> str:
    """A data address of an image, made smaller where it is large."""
    if kind == "PNG":
        image = image.copy()
        image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    content = BytesIO()
    image.save(content, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return _address(content.getvalue(), f"image/{kind.lower()}")


def embed(path: Path, kind: str) -> str:
    """A data address of a file of a MIME type."""
    return _address(path.read_bytes(), kind)


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
