"""The HTML page of a report: tables, scores and strips in one self-contained file."""

from __future__ import annotations

import base64
import html
import math
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.error_maps import FULL_SCALE, STRIPS, find_strips
from evaluation.benchmark.evaluate import ObjectRecord
from evaluation.benchmark.tables import METRICS, Table, format_count, format_score, num_measured

MAX_VIDEO_BYTES = 20 * 2**20
"""Larger videos are not embedded."""


@dataclass(frozen=True)
class ReportRow:
    """An object of the report: its files, its record and its folder in the report."""

    files: ObjectFiles
    record: ObjectRecord
    folder: Path


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1.5rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 0; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; }
.tables tr:last-child td { font-weight: 600; background: #f3f6fa; }
caption { caption-side: top; text-align: left; color: #555; white-space: nowrap; }
.notes { color: #555; }
article { border: 1px solid #ddd; border-radius: 8px; padding: 1rem; margin: 1rem 0; }
article header { display: flex; gap: 1.2rem; flex-wrap: wrap; align-items: baseline; }
article header span { color: #444; }
.tag { background: #1d6f42; color: #fff; border-radius: 4px; padding: 0 .5rem; font-size: .85rem; }
.tag.worst { background: #a3243b; }
.strips { overflow-x: auto; margin-top: .8rem; }
.strips img { display: block; height: 128px; width: 2048px; max-width: none; }
.strips div { display: flex; align-items: center; }
.strips b { position: sticky; left: 0; background: #fffc; width: 5.5rem; flex: none; z-index: 1;
  font-weight: 500; }
.values { margin-left: 5.5rem; width: 2048px; }
.values span { width: 128px; text-align: center; color: #555; font-size: .85rem; }
.error { color: #a3243b; } .warning { color: #8a5a00; } p { margin: .4rem 0; }
video { max-width: 256px; margin-top: .8rem; }
"""

_SCRIPT = """
const list = document.getElementById('objects'), by = document.getElementById('by');
const first = [...list.children];
by.onchange = () => {
  if (by.value === '') { list.append(...first); return; }
  const [metric, sign] = by.value.split(' ');
  const value = card => {
    const text = card.dataset[metric];
    if (metric === 'name') return text;
    return text === '' ? -Infinity : sign * (text === 'inf' ? Infinity : Number(text));
  };
  const cards = [...list.children].map(card => [value(card), card]);
  cards.sort(([a], [b]) => metric === 'name' ? a.localeCompare(b) : a === b ? 0 : a < b ? 1 : -1);
  list.append(...cards.map(([, card]) => card));
};
"""


def make_html(name: str, tables: list[Table], notes: list[str], rows: list[ReportRow]) -> str:
    """Make the HTML page of a report, with embedded images and videos.

    Args:
        name: name of this run.
        tables: see `make_tables`.
        notes: see `make_notes`.
        rows: the objects.
    """
    ordered, tags = best_and_worst_first(rows)
    cards = "\n".join(_card(row, tags.get(row.files.name, "")) for row in ordered)
    orders = "".join(
        f'<option value="{metric} {sign if more else -sign}">{title}, {end} first</option>'
        for metric, title, more, _ in METRICS
        for sign, end in ((1, "best"), (-1, "worst"))
        if num_measured([row.record.result for row in rows], metric)
    )
    notes_html = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(name)}: evaluation</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(name)}: evaluation of {format_count(len(rows))}</h1>
<div class="tables">{"".join(map(_table_html, tables))}</div>
<ul class="notes">{notes_html}</ul>
<p>For each object: ground truth, prediction and error map (white: equal; dark: a mean difference of
{FULL_SCALE:.0%} or more). Below each view: its PSNR.
<label>Order: <select id="by"><option value="">best and worst first</option>
<option value="name 1">name</option>{orders}</select></label></p>
<main id="objects">
{cards}
</main><script>{_SCRIPT}</script></body></html>
"""


def best_and_worst_first(rows: list[ReportRow]) -> tuple[list[ReportRow], dict[str, str]]:
    """Order objects: the best, the worst, then the others from good to bad, failures last.

    The order is by PSNR if any object has it, else by Chamfer distance.

    Returns:
        the ordered rows, and the tags "best" and "worst" by object name.
    """
    by_psnr = any(row.record.result.psnr is not None for row in rows)

    def score(row: ReportRow) -> float | None:
        result = row.record.result
        if by_psnr:
            return result.psnr
        return None if result.chamfer is None else -result.chamfer

    scored = sorted(
        ((value, row) for row in rows if (value := score(row)) is not None),
        key=lambda pair: (-pair[0], pair[1].files.name),
    )
    ranked = [row for _, row in scored]
    rest = [row for row in rows if score(row) is None]
    if len(ranked) < 2 or scored[0][0] == scored[-1][0]:
        return ranked + rest, {}
    order = [ranked[0], ranked[-1], *ranked[1:-1], *rest]
    return order, {ranked[0].files.name: "best", ranked[-1].files.name: "worst"}


def _table_html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return f"<table><caption>{html.escape(table.caption)}</caption><tr>{head}</tr>{body}</table>"


def _card(row: ReportRow, tag: str) -> str:
    record, name = row.record, html.escape(row.files.name)
    numbers, data = [], [f'data-name="{name}"']
    for metric, title, _, digits in METRICS:
        value = getattr(record.result, metric)
        data.append(f'data-{metric}="{"" if value is None else value}"')
        if value is not None:
            form = f" ({record.result.points_form})" if metric == "points" else ""
            numbers.append(f"<span>{title}{form} {format_score(value, digits)}</span>")
    label = f'<b class="tag {tag}">{tag}</b>' if tag else ""
    messages = [
        f'<p class="error">{html.escape(f"{part}: {message}")}</p>'
        for part, message in record.errors.items()
    ]
    messages += [f'<p class="warning">{html.escape(message)}</p>' for message in record.warnings]
    return (
        f"<article {' '.join(data)}><header><h2>{name}</h2>{label}{''.join(numbers)}</header>"
        f"{''.join(messages)}{_strips(row)}{_video(row.files)}</article>"
    )


def _strips(row: ReportRow) -> str:
    paths = find_strips(row.folder)
    if paths is None or row.record.result.psnr is None:
        return ""
    strips = "".join(
        f'<div><b>{STRIPS[name]}</b><img alt="{STRIPS[name]}" src="{_embed(path, "image/jpeg")}">'
        f"</div>"
        for name, path in paths.items()
    )
    per_view = row.record.result.per_view.get("psnr", [])
    values = "".join(
        f"<span>{f'{value:.1f} dB' if math.isfinite(value) else 'equal'}</span>"
        for value in per_view
    )
    return f'<div class="strips">{strips}<div class="values">{values}</div></div>'


def _video(files: ObjectFiles) -> str:
    if files.video is None:
        return ""
    if files.video.stat().st_size > MAX_VIDEO_BYTES:
        return f"<p>{html.escape(files.video.name)} is too large to be embedded.</p>"
    source = _embed(files.video, "video/mp4")
    return f'<video src="{source}" autoplay loop muted controls></video>'


def _embed(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
