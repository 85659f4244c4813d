"""Pieces of the page as HTML: progress, views, video. All pictures are in the text itself."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from multiview.views import NUM_VIEWS

LARGEST_VIEW = 128
"""Pixels a side of a view on the page."""
LARGEST_VIDEO = 12 * 2**20
"""Bytes; longer videos are only for download."""


def progress(share: float, words: str) -> str:
    """A bar, and what is being done."""
    percent = round(100 * min(max(share, 0.0), 1.0))
    return (
        f'<div class="sd-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><div class="sd-words"><span>{html.escape(words)}</span>'
        f'<b>{percent} %</b></div><div class="sd-bar"><div style="width:{percent}%"></div></div>'
        f"</div>"
    )


def note(words: str, kind: str = "info") -> str:
    """A message that stays: "info", "done" or "error"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="sd-note sd-{html.escape(kind)}" role="{role}">{html.escape(words)}</div>'


def views(strip: np.ndarray, title: str) -> str:
    """The views of a strip in a grid that fits any width.

    Args:
        strip: uint8 (H, 16 H, 3).
        title: what they are.
    """
    image = Image.fromarray(strip)
    if image.height > LARGEST_VIEW:
        image = image.resize((NUM_VIEWS * LARGEST_VIEW, LARGEST_VIEW), Image.Resampling.BICUBIC)
    content = BytesIO()
    image.save(content, "JPEG", quality=88)
    address = _address(content.getvalue(), "image/jpeg")
    cells = "".join(
        f'<div class="sd-view" role="img" aria-label="view {k + 1} of {NUM_VIEWS}" '
        f'style="background-position:{100 * k / (NUM_VIEWS - 1):.4f}% 0"></div>'
        for k in range(NUM_VIEWS)
    )
    return (
        f'<figure class="sd-figure"><figcaption>{html.escape(title)}</figcaption>'
        f'<div class="sd-views" style="--sd-strip:url({address})">{cells}</div></figure>'
    )


def video(path: Path) -> str:
    """A video that plays by itself and begins again at its end; nothing if it is too large."""
    if path.stat().st_size > LARGEST_VIDEO:
        return ""
    source = _address(path.read_bytes(), "video/mp4")
    return (
        f'<figure class="sd-figure"><figcaption>A full turn</figcaption>'
        f'<video class="sd-video" src="{source}" autoplay loop muted playsinline controls></video>'
        f"</figure>"
    )


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


HEADER = """
<div class="sd-header">
<h1>One picture, a 3D model</h1>
<p>Send a picture of one object: it is drawn from 16 sides, and a mesh is built from the best
try.</p>
</div>
"""

EMPTY = """
<div class="sd-empty"><svg viewBox="0 0 24 24" width="44" height="44" fill="none"
stroke="currentColor" stroke-width="1.3" aria-hidden="true"><path d="M12 2.5 20.5 7v10L12 21.5
3.5 17V7zM3.5 7 12 11.5 20.5 7M12 11.5v10"/></svg>
<p>The 16 views and the mesh appear here.</p></div>
"""
