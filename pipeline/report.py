"""The report on one image: an HTML page that needs no other file."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from common.files import atomic_write
from multiview.images import read_image
from pipeline.html import embed, embed_image, figure, printable
from pipeline.paths import CURVE, EXPORTED, FRAMED, METRICS, OBJECT, RECONSTRUCTION
from pipeline.quality_warnings import quality_warnings
from pipeline.selection.ranking import SCORES

MAX_VIDEO_BYTES = 20 * 2**20
"""Larger videos are not embedded."""
VIEW_SIDE = 128
"""Pixels a side of an embedded view; the browser scales smaller ones up."""
NUM_TRAINING_IMAGES = 3
"""The last training images of the reconstruction are shown."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.5rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.lead { color: #555; margin: .2rem 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #e3e3e3; }
th { font-weight: 500; color: #555; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; white-space: nowrap; }
td.text, th.text { text-align: left; overflow-wrap: anywhere; }
tr.best td { background: #eef7f1; font-weight: 600; }
.row { display: flex; gap: 1.2rem; flex-wrap: wrap; align-items: flex-start; }
.wide { overflow-x: auto; }
figure { margin: 0; } figcaption { color: #555; font-size: .9rem; max-width: 480px; }
.image { display: block; height: 220px; max-width: 100%; border: 1px solid #ddd;
  border-radius: 6px; object-fit: contain; }
.large .image { height: 340px; }
.clear { background: repeating-conic-gradient(#e4e4e4 0 25%, #fff 0 50%) 0 0 / 16px 16px; }
.views { display: block; width: 100%; border: 1px solid #ddd; border-radius: 6px; }
article { margin: 1rem 0; } article header { margin-bottom: .3rem; }
.tag { background: #1d6f42; color: #fff; border-radius: 4px; padding: 0 .5rem; font-size: .85rem;
  margin: 0 .5rem; }
.warnings { border-left: 4px solid #c98a00; background: #fff8e6; padding: .5rem 1rem;
  margin: 1rem 0; list-style: none; }
.error { color: #a3243b; } p { margin: .4rem 0; } summary { cursor: pointer; }
.bar { background: #dbe8f6; height: .8rem; min-width: 1px; }
"""

SCORE_PARTS = (
    ("leave_one_out", "masks with<br>others' hull"),
    ("halves_volume", "volumes of<br>both halves"),
    ("halves_pattern", "patterns of<br>both halves"),
    ("halves_psnr", "colours of both<br>halves, dB"),
    ("input_silhouette", "outline with<br>the input's"),
    ("input_pattern", "pattern with<br>the input's"),
    ("input_psnr", "colours with<br>the input's, dB"),
)
"""Attributes of `pipeline.selection.ranking.SampleScore` and their labels, as HTML."""
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
"""Of metrics.json: key, label, digits (None for words)."""


def write_page(
    path: Path,
    name: str,
    small: Image.Image,
    folder: Path,
    records: dict[str, dict[str, Any]],
    samples: Sequence[Path],
) -> None:
    """Write the report on an image atomically.

    Args:
        path: of the page.
        name: of the image's file.
        small: thumbnail of the image.
        folder: of its results.
        records: of the steps, by their names and in their order, see `common.records`.
        samples: strips of views.
    """
    name = html.escape(printable(name))
    rows = json.loads((folder / SCORES).read_text(encoding="utf-8"))
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: from an image to a mesh</title><style>{_STYLE}</style></head><body>
<h1>{name}</h1>
<p class="lead">From an image to a mesh: {_summary(records, rows, metrics)}</p>
{_warnings(records, rows, metrics)}
{_result(small, folder, records)}
<h2>Input image</h2>
{_input(folder, records)}
<h2>Elevation</h2>
{_elevation(folder, records)}
<h2>Samples, best first</h2>
{_scores(rows)}
{_samples(rows, samples)}
<h2>Mesh</h2>
{_mesh(folder, metrics)}
<h2>Time and settings</h2>
{_steps(records)}
</body></html>
"""
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _warnings(
    records: dict[str, dict[str, Any]], rows: list[dict[str, Any]], metrics: dict[str, Any]
) -> str:
    items = "".join(
        f"<li>{html.escape(each)}</li>" for each in quality_warnings(records, rows, metrics)
    )
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _summary(
    records: dict[str, dict[str, Any]], rows: list[dict[str, Any]], metrics: dict[str, Any]
) -> str:
    """One line of HTML that summarises the results."""
    of_samples = f"the best of {len(rows)} samples" if len(rows) > 1 else "one sample"
    seconds = sum(record["seconds"] for record in records.values())
    return (
        f"elevation {_degrees(records)}, {of_samples}, {metrics['faces']} faces, "
        f"{seconds:.0f} s in all"
    )


def _degrees(records: dict[str, dict[str, Any]]) -> str:
    """The elevation, as HTML."""
    record = records["elevation"]
    if "uncertainty_deg" not in record["facts"]:
        return f"{record['settings']['elevation']:g} degrees, as given"
    facts = record["facts"]
    return (
        f"{facts['elevation_deg']:.1f} &plusmn; {facts['uncertainty_deg']:.1f} degrees, estimated"
    )


def _result(small: Image.Image, folder: Path, records: dict[str, dict[str, Any]]) -> str:
    video = folder / "rendering.mp4"
    if video.stat().st_size > MAX_VIDEO_BYTES:
        turning = "<p>rendering.mp4 is too large for this page.</p>"
    else:
        source = embed(video, "video/mp4")
        turning = (
            f'<figure><video class="image" src="{source}" autoplay loop muted playsinline '
            f"controls></video><figcaption>the mesh, rendering.mp4</figcaption></figure>"
        )
    facts = records["segment"]["facts"]
    words = f"input image, {facts['width']} x {facts['height']} pixels"
    files = ", ".join(
        f"{name} ({(folder / name).stat().st_size / 2**20:.1f} MiB)" for name in EXPORTED
    )
    return (
        f'<div class="row large">{figure(embed_image(small), words)}{turning}</div>'
        f"<p>Files beside this page: {files}.</p>"
    )


def _input(folder: Path, records: dict[str, dict[str, Any]]) -> str:
    cut_out = read_image(folder / OBJECT)
    segmented, framed = records["segment"]["facts"], records["frame"]["facts"]
    shown = [
        (
            cut_out.getchannel("A"),
            f"mask, {segmented['mask']}: {segmented['covered']:.1%}",
        ),
        (cut_out, "object"),
        (read_image(folder / FRAMED), f"framed, crop size {framed['crop_size']}"),
    ]
    figures = "".join(figure(embed_image(each), words) for each, words in shown)
    return f'<div class="row">{figures}</div>'


def _elevation(folder: Path, records: dict[str, dict[str, Any]]) -> str:
    said = _degrees(records)
    if "uncertainty_deg" not in records["elevation"]["facts"]:
        return f"<p>{said}.</p>"
    said += ": similarity of the drafts, rendered from each elevation, to the input image"
    return figure(embed(folder / CURVE, "image/png"), said, escape=False)


def _scores(rows: list[dict[str, Any]]) -> str:
    parts = [(key, title) for key, title in SCORE_PARTS if any(row.get(key) for row in rows)]
    titles = "".join(f"<th>{title}</th>" for _, title in parts)
    lines = []
    for row in rows:
        numbers = "".join(
            f"<td>{'' if row.get(key) is None else format(row[key], '.3f')}</td>"
            for key, _ in parts
        )
        best = ' class="best"' if row["rank"] == 1 else ""
        lines.append(
            f"<tr{best}><td>{html.escape(row['name'])}</td><td>{row['score']:.3f}</td>{numbers}</tr>"
        )
    return (
        f'<div class="wide"><table><tr><th>sample</th><th>score</th>{titles}</tr>'
        f"{''.join(lines)}</table></div>"
    )


def _samples(rows: list[dict[str, Any]], samples: Sequence[Path]) -> str:
    by_name = {path.name: path for path in samples}
    return "".join(_sample(by_name[row["name"]], row) for row in rows)


def _sample(path: Path, row: dict[str, Any]) -> str:
    name, problem = html.escape(path.name), html.escape(row["problem"])
    tag = '<b class="tag">best</b>' if row["rank"] == 1 else ""
    return (
        f'<article><header><b>{name}</b>{tag}<span class="error">{problem}</span></header>'
        f'<img class="views" alt="views of {name}" src="{embed_image(two_rows(path), "JPEG")}">'
        f"</article>"
    )


def two_rows(path: Path) -> Image.Image:
    """Arrange the views of a strip in two rows that fit a page."""
    strip = read_image(path).convert("RGB")
    if strip.height > VIEW_SIDE:
        strip = strip.resize((strip.width * VIEW_SIDE // strip.height, VIEW_SIDE))
    half = strip.width // 2
    rows = Image.new("RGB", (half, 2 * strip.height))
    rows.paste(strip, (0, 0))
    rows.paste(strip.crop((half, 0, strip.width, strip.height)), (0, strip.height))
    return rows


def _mesh(folder: Path, metrics: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{title}</td><td>{_value(metrics[key], digits)}</td></tr>"
        for key, title, digits in NUMBERS
        if metrics.get(key) is not None
    )
    images = sorted(
        (folder / RECONSTRUCTION / "images").glob("*.jpg"), key=lambda p: (len(p.stem), p.stem)
    )
    figures = "".join(
        figure(
            embed(path, "image/jpeg"),
            f"colours, opacity and normals after {path.stem} steps",
        )
        for path in images[-NUM_TRAINING_IMAGES:]
    )
    return f'<div class="row"><table>{rows}</table>{figures}</div>'


def _value(value: object, digits: int | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if digits is None or not isinstance(value, int | float):
        return html.escape(str(value))
    return f"{value:.{digits}f}"


def _steps(records: dict[str, dict[str, Any]]) -> str:
    total = sum(record["seconds"] for record in records.values())
    longest = max(record["seconds"] for record in records.values()) or 1.0
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{record['seconds']:.1f}</td>"
        f'<td class="text"><div class="bar" style="width: '
        f'{200 * record["seconds"] / longest:.0f}px"></div></td></tr>'
        for name, record in records.items()
    )
    details = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="text">'
        f"{html.escape(_words(record['settings']))}</td>"
        f'<td class="text">{html.escape(_words(record["facts"]))}</td></tr>'
        for name, record in records.items()
    )
    return (
        f"<table><tr><th>step</th><th>seconds</th><th></th></tr>{rows}"
        f"<tr><th>all</th><th>{total:.1f}</th><th></th></tr></table>"
        f"<details><summary>Settings and results of every step</summary>"
        f"<table><tr><th>step</th><th class='text'>settings</th><th class='text'>results</th></tr>"
        f"{details}</table></details>"
    )


def _words(values: dict[str, Any]) -> str:
    def word(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        return json.dumps(value) if isinstance(value, dict | list) else str(value)

    return ", ".join(f"{key} {word(value)}" for key, value in values.items())
