"""The report of a benchmark: results.csv, a Markdown and a LaTeX table, and one HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
import math
from dataclasses import dataclass
from pathlib import Path

from evaluation.gallery import FULL_SCALE, STRIPS
from evaluation.image_metrics import SSIM_FORMS
from evaluation.objects import ObjectFiles, Record, mean_result
from evaluation.results import COLUMNS, Result, as_text
from multiview.runtime import atomic_write

PAPER_VIEWS: tuple[tuple[str, float, float, float, int], ...] = (
    ("RealFusion", 15.26, 0.722, 0.283, 4010),
    ("Zero123", 18.93, 0.779, 0.166, 95),
    ("SyncDreamer", 20.05, 0.798, 0.146, 1123),
)
"""Paper, Table 1: method, PSNR, SSIM, LPIPS, points of COLMAP (dense)."""
PAPER_MESHES: tuple[tuple[str, float, float], ...] = (
    ("RealFusion", 0.0819, 0.2741),
    ("Magic123", 0.0516, 0.4528),
    ("One-2-3-45", 0.0629, 0.4086),
    ("Point-E", 0.0426, 0.2875),
    ("Shap-E", 0.0436, 0.3584),
    ("Zero123", 0.0339, 0.5035),
    ("SyncDreamer", 0.0261, 0.5421),
)
"""Paper, Table 2: method, Chamfer distance, volume IoU."""
LARGEST_VIDEO = 20 * 2**20
"""Bytes; larger videos are left out of the page."""

METRICS: tuple[tuple[str, str, bool, int], ...] = (
    ("psnr", "PSNR", True, 2),
    ("ssim", "SSIM", True, 3),
    ("lpips", "LPIPS", False, 3),
    ("points", "COLMAP points", True, 0),
    ("chamfer", "Chamfer dist.", False, 4),
    ("iou", "Volume IoU", True, 4),
)
"""Metric, its name, whether more is better, decimals in the tables."""


@dataclass(frozen=True)
class Table:
    """A table with the paper's rows and ours, every cell as text.

    Attributes:
        caption: what it shows.
        header: names of the columns.
        rows: the last one is this run's.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Entry:
    """An object of the report."""

    files: ObjectFiles
    record: Record
    folder: Path


def write_report(out: Path, name: str, entries: list[Entry]) -> None:
    """Write results.csv, table.md, table.tex and index.html.

    Args:
        out: folder of the report.
        name: of this run, for its row of the tables.
        entries: the objects, at least one.
    """
    mean = mean_result([entry.record.result for entry in entries])
    tables = make_tables(name, mean, [entry.record.result for entry in entries])
    notes = make_notes(mean, entries)
    contents = {
        "results.csv": _csv(entries, mean),
        "table.md": _markdown(tables, notes),
        "table.tex": _latex(tables, notes),
        "index.html": _page(name, tables, notes, entries),
    }
    for file, text in contents.items():
        with atomic_write(out / file) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def make_tables(name: str, mean: Result, results: list[Result]) -> list[Table]:
    """Put this run's means under the paper's rows.

    Args:
        name: of this run.
        mean: over its objects.
        results: of its objects.
    """
    caption = "Mean over {} objects; the other rows are the paper's, over 30 objects"
    ours = {metric: _cell(getattr(mean, metric), digits) for metric, _, _, digits in METRICS}
    if mean.points_form:
        ours["points"] += f" ({mean.points_form})"
    views = Table(
        "Novel views. " + caption.format(_count(results, "psnr")),
        ("Method", "PSNR ↑", "SSIM ↑", "LPIPS ↓", "COLMAP points ↑"),
        (
            *((m, f"{p:.2f}", f"{s:.3f}", f"{lp:.3f}", str(n)) for m, p, s, lp, n in PAPER_VIEWS),
            (name, ours["psnr"], ours["ssim"], ours["lpips"], ours["points"]),
        ),
    )
    meshes = Table(
        "Surfaces. " + caption.format(_count(results, "chamfer")),
        ("Method", "Chamfer dist. ↓", "Volume IoU ↑"),
        (
            *((method, f"{c:.4f}", f"{i:.4f}") for method, c, i in PAPER_MESHES),
            (name, ours["chamfer"], ours["iou"]),
        ),
    )
    return [views, meshes] if mean.chamfer is not None else [views]


def make_notes(mean: Result, entries: list[Entry]) -> list[str]:
    """What a reader of the tables has to know."""
    results = [entry.record.result for entry in entries]
    notes = []
    if mean.ssim_form:
        notes.append(f"SSIM is {SSIM_FORMS[mean.ssim_form]}.")
    if mean.points_form == "sparse":
        notes.append(
            "COLMAP points are sparse (triangulated features): not comparable with the paper's, "
            "which are dense (fused; they need CUDA). Nor are RealFusion's, inflated by noise."
        )
    elif mean.points_form:
        notes.append(f"COLMAP points are {mean.points_form}. RealFusion's are inflated by noise.")
    if mean.psnr is not None and mean.lpips is None:
        notes.append("LPIPS is missing: the machine had no VGG16 weights for it.")
    for metric, title, _, _ in METRICS:
        measured = _count(results, metric)
        if 0 < measured < len(results) and metric not in ("chamfer", "iou"):
            notes.append(f"{title} is the mean over {measured} of {len(results)} objects only.")
    broken = [entry.files.name for entry in entries if entry.record.errors]
    if broken:
        notes.append(f"Failed, in whole or in part: {', '.join(broken)}.")
    return notes


def _count(results: list[Result], metric: str) -> int:
    return sum(getattr(result, metric) is not None for result in results)


def _cell(value: float | None, digits: int) -> str:
    return as_text(None) if value is None else f"{value:.{digits}f}"


def _csv(entries: list[Entry], mean: Result) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "errors"])
    for entry in entries:
        errors = "; ".join(f"{part}: {said}" for part, said in entry.record.errors.items())
        writer.writerow([*(getattr(entry.record.result, c) for c in COLUMNS), errors])
    writer.writerow([*(getattr(mean, c) for c in COLUMNS), ""])
    return text.getvalue()


def _markdown(tables: list[Table], notes: list[str]) -> str:
    parts = []
    for table in tables:
        lines = [table.header, ("---",) * len(table.header), *table.rows]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        parts.append(table.caption + "\n\n" + "\n".join(f"| {' | '.join(c)} |" for c in escaped))
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex(tables: list[Table], notes: list[str]) -> str:
    parts = ["% \\usepackage{booktabs}"]
    for table in tables:
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in (table.header, *table.rows)]
        parts.append(
            "\n".join([
                r"\begin{table}", r"  \centering", f"  \\caption{{{_tex(table.caption)}.}}",
                f"  \\begin{{tabular}}{{l{'c' * (len(table.header) - 1)}}}", r"    \toprule",
                f"    {lines[0]}", r"    \midrule", *(f"    {line}" for line in lines[1:-1]),
                r"    \midrule", f"    {lines[-1]}", r"    \bottomrule", r"  \end{tabular}",
                r"\end{table}",
            ])
        )  # fmt: skip
    parts.append("\n".join(f"% {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


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
by.onchange = () => {
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


def _page(name: str, tables: list[Table], notes: list[str], entries: list[Entry]) -> str:
    ordered, tags = best_and_worst_first(entries)
    cards = "\n".join(_card(entry, tags.get(entry.files.name, "")) for entry in ordered)
    orders = "".join(
        f'<option value="{metric} {sign if more else -sign}">{title}, {end} first</option>'
        for metric, title, more, _ in METRICS
        for sign, end in ((1, "best"), (-1, "worst"))
        if _count([entry.record.result for entry in entries], metric)
    )
    notes_html = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(name)}: evaluation</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(name)}: evaluation of {len(entries)} objects</h1>
<div class="tables">{"".join(map(_table_html, tables))}</div>
<ul class="notes">{notes_html}</ul>
<p>Rows of each object: ground truth, prediction, and where they differ: white is equal, dark a mean
difference of {FULL_SCALE:.0%} or more. Below each view: its PSNR.
<label>Order: <select id="by"><option value="">best and worst first</option>
<option value="name 1">name</option>{orders}</select></label></p>
<main id="objects">
{cards}
</main><script>{_SCRIPT}</script></body></html>
"""


def best_and_worst_first(entries: list[Entry]) -> tuple[list[Entry], dict[str, str]]:
    """Order objects: the best, the worst, then the rest from good to bad; failures at the end.

    By PSNR, where there is one, else by Chamfer distance.

    Returns:
        the order, and the names of the best and the worst one with these words.
    """
    by_psnr = any(entry.record.result.psnr is not None for entry in entries)

    def score(entry: Entry) -> float | None:
        result = entry.record.result
        if by_psnr:
            return result.psnr
        return None if result.chamfer is None else -result.chamfer

    scored = sorted(
        ((value, entry) for entry in entries if (value := score(entry)) is not None),
        key=lambda pair: (-pair[0], pair[1].files.name),
    )
    ranked = [entry for _, entry in scored]
    rest = [entry for entry in entries if score(entry) is None]
    if len(ranked) < 2:
        return ranked + rest, {}
    order = [ranked[0], ranked[-1], *ranked[1:-1], *rest]
    return order, {ranked[0].files.name: "best", ranked[-1].files.name: "worst"}


def _table_html(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return f"<table><caption>{html.escape(table.caption)}</caption><tr>{head}</tr>{rows}</table>"


def _card(entry: Entry, tag: str) -> str:
    record, name = entry.record, html.escape(entry.files.name)
    numbers, data = [], [f'data-name="{name}"']
    for metric, title, _, digits in METRICS:
        value = getattr(record.result, metric)
        data.append(f'data-{metric}="{"" if value is None else value}"')
        if value is not None:
            form = f" ({record.result.points_form})" if metric == "points" else ""
            numbers.append(f"<span>{title}{form} {_cell(value, digits)}</span>")
    label = f'<b class="tag {tag}">{tag}</b>' if tag else ""
    said = [
        f'<p class="error">{html.escape(f"{part}: {message}")}</p>'
        for part, message in record.errors.items()
    ]
    said += [f'<p class="warning">{html.escape(message)}</p>' for message in record.warnings]
    return (
        f"<article {' '.join(data)}><header><h2>{name}</h2>{label}{''.join(numbers)}</header>"
        f"{''.join(said)}{_strips(entry)}{_video(entry.files)}</article>"
    )


def _strips(entry: Entry) -> str:
    if "views" in entry.record.errors:
        return ""
    rows = "".join(
        f'<div><b>{STRIPS[name]}</b><img alt="{STRIPS[name]}" '
        f'src="{_embed(entry.folder / f"{name}.jpg", "image/jpeg")}"></div>'
        for name in STRIPS
    )
    per_view = entry.record.result.per_view.get("psnr", [])
    values = "".join(f"<span>{_psnr_text(value)}</span>" for value in per_view)
    return f'<div class="strips">{rows}<div class="values">{values}</div></div>'


def _psnr_text(value: float | str) -> str:
    number = float(value)
    return f"{number:.1f} dB" if math.isfinite(number) else "equal"


def _video(files: ObjectFiles) -> str:
    if files.video is None or files.video.stat().st_size > LARGEST_VIDEO:
        return ""
    source = _embed(files.video, "video/mp4")
    return f'<video src="{source}" autoplay loop muted controls></video>'


def _embed(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
