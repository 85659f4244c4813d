"""HTML fragments of the page (parts.html.j2): progress bar, notes, views, video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.html import image_url, load_template, video_url
from multiview.cameras import NUM_VIEWS

MAX_VIEW_SIZE = 128
"""Largest side of a view on the page, pixels."""
parts: Any = load_template(Path(__file__).parent / "parts.html.j2").make_module()
HEADER, EMPTY = parts.header(), parts.empty()
SMALL_MODEL = (
    '<p class="sd-caption">This is the small model, for simple objects. For photos, run '
    "<code>python -m ldm.download</code> (5.57 GB) and start this page again.</p>"
)


def progress_bar(fraction: float, message: str) -> str:
    """A progress bar with a message; the fraction is clipped to 0..1."""
    return parts.bar(round(100 * min(max(fraction, 0.0), 1.0)), message)


def note(message: str, kind: str = "info") -> str:
    """A message box: "info", "done" or "error"."""
    return parts.note(message, kind)


def views(strip: np.ndarray, title: str) -> str:
    """The views of a strip, uint8 (H, 16 H, 3), in a grid that adapts to the page's width."""
    image = Image.fromarray(strip)
    if image.height > MAX_VIEW_SIZE:
        image = image.resize((NUM_VIEWS * MAX_VIEW_SIZE, MAX_VIEW_SIZE), Image.Resampling.BICUBIC)
    return parts.views(image_url(image, "JPEG"), title)


def video(path: Path) -> str:
    """A looping video; empty if the file is too large for it, see `common.html`."""
    return parts.film(video_url(path))
