"""HTML fragments of the page: progress bar, notes, views, video; media are data URLs."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from multiview.cameras import NUM_VIEWS

MAX_VIEW_SIZE = 128
"""Largest side of a view on the page, pixels."""
MAX_VIDEO_BYTES = 12 * 2**20
"""Larger videos are not embedded, only offered for download."""


def progress_bar(fraction: float, message: str) -> str:
    """A progress bar with a message; the fraction is clipped to 0..1."""
    percent = round(100 * min(max(fraction, 0.0), 1.0))
    return (
        f'<div class="sd-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent}"><div class="sd-words"><span>{html.escape(message)}</span>'
        f'<b>{percent} %</b></div><div class="sd-bar"><div style="width:{percent}%"></div></div>'
        f"</div>"
    )


def note(message: str, kind: str = "info") -> str:
    """A message box: "info", "done" or "error"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="sd-note sd-{html.escape(kind)}" role="{role}">{html.escape(message)}</div>'


def views(strip: np.ndarray, title: str) -> str:
    """The views of a strip in a grid that adapts to the page's width.

    Args:
        strip: uint8 (H, 16 H, 3).
        title: caption.
    """
    image = Image.fromarray(strip)
    if image.height > MAX_VIEW_SIZE:
        image = image.resize((NUM_VIEWS * MAX_VIEW_SIZE, MAX_VIEW_SIZE), Image.Resampling.BICUBIC)
    content = BytesIO()
    image.save(content, "JPEG", quality=88)
    url = _data_url(content.getvalue(), "image/jpeg")
    cells = "".join(
        f'<div class="sd-view" role="img" aria-label="view {k + 1} of {NUM_VIEWS}" '
        f'style="background-position:{100 * k / (NUM_VIEWS - 1):.4f}% 0"></div>'
        for k in range(NUM_VIEWS)
    )
    return (
        f'<figure class="sd-figure"><figcaption>{html.escape(title)}</figcaption>'
        f'<div class="sd-views" style="--sd-strip:url({url})">{cells}</div></figure>'
    )


def video(path: Path) -> str:
    """A looping video; empty if the file is larger than `MAX_VIDEO_BYTES`."""
    if path.stat().st_size > MAX_VIDEO_BYTES:
        return ""
    source = _data_url(path.read_bytes(), "video/mp4")
    return (
        f'<figure class="sd-figure"><figcaption>Turntable video</figcaption>'
        f'<video class="sd-video" src="{source}" autoplay loop muted playsinline controls></video>'
        f"</figure>"
    )


def _data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


HEADER = """
<div class="sd-header">
<h1>One image to a 3D model</h1>
<p>Upload an image of one object. The model generates 16 views of it, and a mesh is reconstructed
from the best sample.</p>
</div>
"""

EMPTY = """
<div class="sd-empty"><svg viewBox="0 0 24 24" width="44" height="44" fill="none"
stroke="currentColor" stroke-width="1.3" aria-hidden="true"><path d="M12 2.5 20.5 7v10L12 21.5
3.5 17V7zM3.5 7 12 11.5 20.5 7M12 11.5v10"/></svg>
<p>The 16 views and the mesh appear here.</p></div>
"""
