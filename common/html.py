"""HTML pages in one file: Jinja2 templates, and media as data URLs."""

from __future__ import annotations

import base64
import os
from functools import cache
from io import BytesIO
from pathlib import Path

import jinja2
from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
"""Style sheet and macros of all pages."""
MAX_VIDEO_BYTES = 20 * 2**20
"""Larger videos are not embedded."""
THUMBNAIL_SIDE = 512
"""Longest side of an embedded PNG, pixels."""


@cache
def load_template(path: Path) -> jinja2.Template:
    """A template, which may include those of `TEMPLATES`; values in it are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, TEMPLATES]), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(image_url=image_url, data_url=data_url, video_url=video_url)
    return environment.get_template(path.name)


def printable(name: str) -> str:
    """A file name as text; undecodable bytes become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def thumbnail(image: Image.Image) -> Image.Image:
    """Copy an image, downsampled if its longer side exceeds `THUMBNAIL_SIDE`."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small


def image_url(image: Image.Image, kind: str = "PNG") -> str:
    """Data URL of an image; PNGs are reduced to thumbnails."""
    content = BytesIO()
    (thumbnail(image) if kind == "PNG" else image).save(content, kind, quality=88)
    return data_url(content.getvalue(), f"image/{kind.lower()}")


def video_url(path: Path) -> str:
    """Data URL of an MP4 video; empty if it is larger than `MAX_VIDEO_BYTES`."""
    return "" if path.stat().st_size > MAX_VIDEO_BYTES else data_url(path, "video/mp4")


def data_url(content: bytes | Path, kind: str) -> str:
    """Data URL of a content, or of a file's, of a MIME type."""
    content = content.read_bytes() if isinstance(content, Path) else content
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
