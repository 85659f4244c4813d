"""The report on one picture: an HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.ranking import SCORES
from multiview.images import read_image
from multiview.runtime import atomic_write
from pipeline.files import CURVE, EXPORTED, FRAMED, METRICS, OBJECT, RECONSTRUCTION

LARGEST_VIDEO = 20 * 2**20
"""Bytes; larger videos are left out of the page."""
LARGEST_PICTURE = 512
"""Pixels of the longer side, of the input and its mask."""
VIEW_SIDE = 128
"""Pixels a side of a view; smaller ones are scaled up by the browser."""
TRAINING_PICTURES = 3
"""The last ones of the reconstruction that are shown."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1.5rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
td:first-child { white-space: nowrap; } td.text, th.text { text-align: left; }
td.text { overflow-wrap: anywhere; }
.row { display: flex; gap: 1.2rem; flex-wrap: wrap; align-items: flex-start; }
figure { margin: 0; } figcaption { color: #555; font-size: .9rem; }
.picture { display: block; height: 256px; max-width: 100%; border: 1px solid #ddd; }
.clear { background: repeating-conic-gradient(#e4e4e4 0 25%, #fff 0 50%) 0 0 / 16px 16px; }
article { border: 1px solid #ddd; border-radius: 8px; padding: .7rem 1rem; margin: .7rem 0; }
article header { display: flex; gap: 1.2rem; flex-wrap: wrap; align-items: baseline; }
article header span { color: #444; }
article.best { border-color: #1d6f42; }
.tag { background: #1d6f42; color: #fff; border-radius: 4px; padding: 0 .5rem; font-size: .85rem; }
.strip { overflow-x: auto; margin-top: .5rem; }
.strip img { display: block; height: 128px; width: 2048px; max-width: none; }
.error { color: #a3243b; } p { margin: .4rem 0; } details { margin: .4rem 0; }
.row.small { margin-top: .8rem; } .small .picture { height: 128px; }
video { height: 256px; border: 1px solid #ddd; }
"""

SCORE_PARTS = (
    ("leave_one_out", "masks with the others' hull"),
    ("halves_volume", "volumes of both halves"),
    ("halves_pattern", "patterns of both halves"),
    ("halves_psnr", "colours of both halves, dB"),
    ("input_silhouette", "outline with the input's"),
    ("input_pattern", "pattern with the input's"),
    ("input_psnr", "colours with the input's, dB"),
)
"""Of `evaluation.ranking.SampleScore`, and what they are called."""
NUMBERS = (
    ("psnr", "PSNR of the mesh in the views, dB", 2),
    ("field_psnr", "PSNR of the field, dB", 2),
    ("mask_iou", "IoU of the mesh with the masks", 3),
    ("faces", "faces", 0),
    ("watertight", "closed", None),
    ("steps", "training steps", 0),
    ("kind", "method", None),
    ("preset", "preset", None),
    ("device", "device", None),
)
"""Of metrics.json: key, name, digits (None for words)."""


def write_page(
    path: Path,
    image: Path,
    folder: Path,
    records: dict[str, dict[str, Any]],
    samples: Sequence[Path],
) -> None:
    """Write the report on a picture, whole or not at all.

    Args:
        path: of the page.
        image: the picture.
        folder: of its results.
        records: of the steps, by their names and in their order, see `pipeline.records`.
        samples: strips of views.
    """
    name = html.escape(image.name)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: from a picture to a mesh</title><style>{_STYLE}</style></head><body>
<h1>{name}: from a picture to a mesh</h1>
<h2>The picture</h2>
{_pictures(image, folder, records)}
<h2>Its elevation</h2>
{_elevation(folder, records)}
<h2>The mesh</h2>
{_mesh(folder)}
<h2>The samples, the best one first</h2>
{_samples(folder, samples)}
<h2>Steps and settings</h2>
{_steps(records)}
</body></html>
"""
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _pictures(image: Path, folder: Path, records: dict[str, dict[str, Any]]) -> str:
    cut_out = read_image(folder / OBJECT)
    segmented, framed = records["segment"]["facts"], records["frame"]["facts"]
    shown = [
        (read_image(image), f"input, {segmented['width']} x {segmented['height']} pixels"),
        (cut_out.getchannel("A"), f"mask, {segmented['mask']}: {segmented['covered']:.1%} of it"),
        (cut_out, "object"),
        (read_image(folder / FRAMED), f"framed, --crop_size {framed['crop_size']}"),
    ]
    figures = "".join(_figure(_embed_image(picture), words) for picture, words in shown)
    return f'<div class="row">{figures}</div>'


def _elevation(folder: Path, records: dict[str, dict[str, Any]]) -> str:
    facts = records["elevation"]["facts"]
    if "uncertainty_deg" not in facts:
        given = records["elevation"]["settings"]["elevation"]
        return f"<p>{given:g} degrees, as given.</p>"
    said = (
        f"{facts['elevation_deg']:.1f} &plusmn; {facts['uncertainty_deg']:.1f} degrees, estimated: "
        f"how much drafts of the views, seen from each elevation, are like the picture"
    )
    return _figure(_embed(folder / CURVE, "image/png"), said, escape=False)


def _samples(folder: Path, samples: Sequence[Path]) -> str:
    by_name = {path.name: path for path in samples}
    rows = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    return "".join(_sample(by_name[row["name"]], row) for row in rows)


def _sample(path: Path, row: dict[str, Any]) -> str:
    best = row["rank"] == 1
    numbers = "".join(
        f"<span>{title}: {row[key]:.3f}</span>"
        for key, title in SCORE_PARTS
        if row.get(key) is not None
    )
    if row["problem"]:
        numbers = f'<span class="error">{html.escape(row["problem"])}</span>'
    strip = read_image(path).convert("RGB")
    if strip.height > VIEW_SIDE:
        strip = strip.resize((strip.width * VIEW_SIDE // strip.height, VIEW_SIDE))
    return (
        f'<article class="{"best" if best else ""}"><header><b>{html.escape(path.name)}</b>'
        f"{'<b class=tag>best</b>' if best else ''}<b>score {row['score']:.3f}</b>{numbers}"
        f'</header><div class="strip"><img alt="views of {html.escape(path.name)}" '
        f'src="{_embed_image(strip, "JPEG")}"></div></article>'
    )


def _mesh(folder: Path) -> str:
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    rows = "".join(
        f"<tr><td>{title}</td><td>{_value(metrics[key], digits)}</td></tr>"
        for key, title, digits in NUMBERS
        if metrics.get(key) is not None
    )
    images = sorted(
        (folder / RECONSTRUCTION / "images").glob("*.jpg"), key=lambda p: (len(p.stem), p.stem)
    )
    video = folder / "rendering.mp4"
    figures = "".join(
        _figure(
            _embed(path, "image/jpeg"),
            f"colours, opacity and normals after {path.stem} steps",
        )
        for path in images[-TRAINING_PICTURES:]
    )
    if video.stat().st_size > LARGEST_VIDEO:
        turning = "<p>rendering.mp4 is too large for this page.</p>"
    else:
        source = _embed(video, "video/mp4")
        turning = (
            f'<figure><video src="{source}" autoplay loop muted controls></video>'
            f"<figcaption>rendering.mp4</figcaption></figure>"
        )
    files = ", ".join(
        f"{name} ({(folder / name).stat().st_size / 2**20:.1f} MiB)" for name in EXPORTED
    )
    return (
        f'<div class="row">{turning}<table>{rows}</table></div><div class="row">{figures}</div>'
        f"<p>Files beside this page: {files}.</p>"
    )


def _value(value: object, digits: int | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if digits is None or not isinstance(value, int | float):
        return html.escape(str(value))
    return f"{value:.{digits}f}"


def _steps(records: dict[str, dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{record['seconds']:.1f}</td>"
        f'<td class="text">{html.escape(_words(record["facts"]))}</td></tr>'
        for name, record in records.items()
    )
    total = sum(record["seconds"] for record in records.values())
    settings = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="text">'
        f"{html.escape(_words(record['settings']))}</td></tr>"
        for name, record in records.items()
    )
    return (
        f"<table><tr><th>step</th><th>seconds</th><th class='text'>result</th></tr>{rows}"
        f"<tr><th>all</th><td>{total:.1f}</td><td></td></tr></table>"
        f"<details open><summary>Settings of every step</summary>"
        f"<table>{settings}</table></details>"
    )


def _words(values: dict[str, Any]) -> str:
    def word(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return json.dumps(value) if isinstance(value, dict | list) else str(value)

    return ", ".join(f"{key} {word(value)}" for key, value in values.items())


def _figure(source: str, words: str, escape: bool = True) -> str:
    caption = html.escape(words) if escape else words
    alt = html.escape(words) if escape else "curve of the scores"
    return (
        f'<figure><img class="picture clear" alt="{alt}" src="{source}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _embed_image(image: Image.Image, kind: str = "PNG") -> str:
    """A data address of an image, made smaller where it is large."""
    if kind == "PNG":
        image = image.copy()
        image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    content = BytesIO()
    image.save(content, kind, **({"quality": 88} if kind == "JPEG" else {}))
    return _address(content.getvalue(), f"image/{kind.lower()}")


def _embed(path: Path, kind: str) -> str:
    return _address(path.read_bytes(), kind)


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
