"""The report of a benchmark: results.csv, a Markdown and a LaTeX table, and one HTML page."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from common.files import atomic_write
from evaluation.benchmark.evaluate import mean_result
from evaluation.benchmark.html_report import Entry, make_page
from evaluation.benchmark.tables import make_notes, make_tables, to_latex, to_markdown
from evaluation.results import COLUMNS, Result


def write_report(out: Path, name: str, entries: list[Entry], missing: list[str]) -> None:
    """Write results.csv, table.md, table.tex and index.html.

    Args:
        out: folder of the report.
        name: of this run, for its row of the tables.
        entries: the objects, at least one.
        missing: sentences on what was left out on this machine.
    """
    results = [entry.record.result for entry in entries]
    mean = mean_result(results)
    tables = make_tables(name, mean, results)
    broken = [entry.files.name for entry in entries if entry.record.errors]
    notes = make_notes(mean, results, broken) + missing
    contents = {
        "results.csv": _csv(entries, mean),
        "table.md": to_markdown(tables, notes),
        "table.tex": to_latex(tables, notes),
        "index.html": make_page(name, tables, notes, entries),
    }
    for file, text in contents.items():
        with atomic_write(out / file) as temporary:
            temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def _csv(entries: list[Entry], mean: Result) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "errors", "warnings"])
    for entry in entries:
        errors = "; ".join(f"{part}: {said}" for part, said in entry.record.errors.items())
        writer.writerow(
            [
                *(getattr(entry.record.result, c) for c in COLUMNS),
                errors,
                "; ".join(entry.record.warnings),
            ]
        )
    writer.writerow([*(getattr(mean, c) for c in COLUMNS), "", ""])
    return text.getvalue()
