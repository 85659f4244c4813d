"""The report of a benchmark: results.csv, tables in Markdown and LaTeX, and an HTML page."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

from common.files import atomic_write
from common.html import data_url, load_template
from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.evaluate import (
    FULL_SCALE,
    STRIPS,
    ObjectRecord,
    find_strips,
    mean_result,
)
from evaluation.benchmark.tables import (
    METRICS,
    Table,
    format_count,
    format_score,
    make_notes,
    make_tables,
    num_measured,
    to_latex,
    to_markdown,
)
from evaluation.mesh_hygiene import PROPERTIES
from evaluation.results import BENCHMARK_ONLY, COLUMNS, Result

TEMPLATE = Path(__file__).parent / "report.html.j2"


class ReportRow(NamedTuple):
    """An object of the report: its files, its record and its folder in the report."""

    files: ObjectFiles
    record: ObjectRecord
    folder: Path


def write_report(out: Path, name: str, rows: list[ReportRow], missing: list[str]) -> None:
    """Write results.csv, table.md, table.tex and index.html of at least one object.

    `name` is the run's in the tables; `missing` are sentences on metrics that are not available.
    """
    results = [row.record.result for row in rows]
    mean = mean_result(results)
    tables = make_tables(name, mean, results)
    failed = [row.files.name for row in rows if row.record.errors]
    notes = make_notes(mean, results, failed) + missing
    contents = {
        "results.csv": _csv(rows, mean),
        "table.md": to_markdown(tables, notes),
        "table.tex": to_latex(tables, notes),
        "index.html": make_html(name, tables, notes, rows),
    }
    for file, text in contents.items():
        with atomic_write(out / file) as temporary:
            temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def _csv(rows: list[ReportRow], mean: Result) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns, hygiene = [*COLUMNS, *BENCHMARK_ONLY], [*PROPERTIES, "faces", "parts", "debris"]
    writer.writerow([*columns, *hygiene, "errors", "warnings"])
    for row in rows:
        errors = "; ".join(f"{part}: {message}" for part, message in row.record.errors.items())
        scores = [getattr(row.record.result, column) for column in columns]
        scores += [row.record.result.hygiene.get(key) for key in hygiene]
        writer.writerow([*scores, errors, "; ".join(row.record.warnings)])
    writer.writerow([*(getattr(mean, c) for c in columns), *[""] * len(hygiene), "", ""])
    return text.getvalue()


def make_html(name: str, tables: list[Table], notes: list[str], rows: list[ReportRow]) -> str:
    """Make the HTML page of a report, one file with embedded images and films."""
    ordered, tags = best_and_worst_first(rows)
    results = [row.record.result for row in rows]
    orders = [
        (f"{metric} {sign if more else -sign}", f"{title}, {end} first")
        for metric, title, more, _ in METRICS
        for sign, end in ((1, "best"), (-1, "worst"))
        if num_measured(results, metric)
    ]
    return load_template(TEMPLATE).render(
        name=name,
        count=format_count(len(rows)),
        tables=tables,
        notes=notes,
        full_scale=f"{FULL_SCALE:.0%}",
        orders=orders,
        cards=[_card(row, tags.get(row.files.name, "")) for row in ordered],
    )


def best_and_worst_first(rows: list[ReportRow]) -> tuple[list[ReportRow], dict[str, str]]:
    """Order objects: the best, the worst, then the others from good to bad, failures last.

    The order is by PSNR if any object has it, else by Chamfer distance. Returns the ordered rows,
    and the tags "best" and "worst" by object name.
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


def _card(row: ReportRow, tag: str) -> dict[str, Any]:
    """What the template shows of an object."""
    record, result = row.record, row.record.result
    scores = [(key, title, getattr(result, key), digits) for key, title, _, digits in METRICS]
    form = {"points": f" ({result.points_form})"}
    strips = None if result.psnr is None else find_strips(row.folder)
    return {
        "name": row.files.name,
        "tag": tag,
        "data": [(key, "" if value is None else value) for key, _, value, _ in scores],
        "numbers": [
            f"{title}{form.get(key, '')} {format_score(value, digits)}"
            for key, title, value, digits in scores
            if value is not None
        ],
        "errors": [f"{part}: {message}" for part, message in record.errors.items()],
        "warnings": record.warnings,
        "strips": [(STRIPS[k], data_url(path, "image/jpeg")) for k, path in (strips or {}).items()],
        "per_view": [
            f"{value:.1f} dB" if math.isfinite(value) else "equal"
            for value in result.per_view.get("psnr", [])
        ],
        "video": row.files.video,
    }
