"""The report of a benchmark: results.csv, tables in Markdown and LaTeX, and an HTML page."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from common.files import atomic_write
from evaluation.benchmark.evaluate import mean_result
from evaluation.benchmark.html_report import ReportRow, make_html
from evaluation.benchmark.tables import make_notes, make_tables, to_latex, to_markdown
from evaluation.results import COLUMNS, Result


def write_report(out: Path, name: str, rows: list[ReportRow], missing: list[str]) -> None:
    """Write results.csv, table.md, table.tex and index.html.

    Args:
        out: folder of the report.
        name: name of this run in the tables.
        rows: the objects, at least one.
        missing: sentences on metrics that are not available on this machine.
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
    writer.writerow([*COLUMNS, "errors", "warnings"])
    for row in rows:
        errors = "; ".join(f"{part}: {message}" for part, message in row.record.errors.items())
        scores = [getattr(row.record.result, column) for column in COLUMNS]
        writer.writerow([*scores, errors, "; ".join(row.record.warnings)])
    writer.writerow([*(getattr(mean, c) for c in COLUMNS), "", ""])
    return text.getvalue()
