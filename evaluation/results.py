"""Scores of an object as a table row: printed, or appended to a .csv or .json log."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.files import atomic_write, file_lock, read_text
from common.records import make_writable

NOT_MEASURED = "n/a"


@dataclass(frozen=True)
class Result:
    """The scores of one object, or their mean; None where a metric was not measured."""

    name: str
    psnr: float | None = None  # mean over the views, dB; infinite where a view equals the true one
    ssim: float | None = None  # mean over the views
    ssim_form: str | None = None  # "cropped" (the paper's) or "current", see `image_metrics.ssim`
    lpips: float | None = None  # mean over the views, VGG net
    chamfer: float | None = None  # in units of the object's longest side
    iou: float | None = None  # of the volumes
    normals: float | None = None  # consistency, mean |cosine| at nearest points
    points: float | None = None  # that COLMAP reconstructs; may be fractional in a mean
    points_form: str | None = None  # "dense" (the paper's) or "sparse"
    self_chamfer: float | None = None  # of the views, see `benchmark.self_consistency`
    self_psnr: float | None = None  # dB
    hygiene: dict[str, int | bool] = field(default_factory=dict)  # of the mesh, see `mesh_hygiene`
    per_view: dict[str, list[float]] = field(default_factory=dict)  # by metric; in JSON logs only


BENCHMARK_ONLY = ("self_chamfer", "self_psnr")
COLUMNS = tuple(
    entry.name
    for entry in fields(Result)
    if entry.name not in (*BENCHMARK_ONLY, "hygiene", "per_view")
)
"""Columns of CSV logs, equal for all commands, so that they can share a file."""


def format_value(value: float | str | None) -> str:
    """Format a value for a table: floats with 5 decimals, infinity as `inf`, None as `n/a`."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.5f}" if isinstance(value, float) else escape_unprintable(str(value))


def escape_unprintable(text: str) -> str:
    """Escape unprintable characters (line breaks, invalid UTF-8), which file names may contain."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def table_row(*values: float | str | None) -> str:
    """Join values to a line of a tab-separated table."""
    return "\t".join(map(format_value, values))


def check_log(path: Path | None) -> None:
    """Raise, before a long computation, the errors of `append_result`."""
    if path is None:
        return
    read_log(path)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: the folder {folder} does not exist")
    make_writable(folder, folder)


def append_result(path: Path, result: Result) -> None:
    """Append a result to a log, atomically: `.csv` (rows of `COLUMNS`) or `.json` (objects).

    Raises:
        ValueError: another suffix, or the file is not such a log; it is not changed.
        OSError: the file cannot be written.
    """
    path = path.resolve()  # replaces the target of a link, not the link
    with file_lock(path):
        record = {name: getattr(result, name) for name in COLUMNS}
        if path.suffix == ".json" and result.per_view:
            record["per_view"] = result.per_view
        rows = [*read_log(path), to_json(record)]
        text = _to_csv(rows) if path.suffix == ".csv" else json.dumps(rows, indent=1) + "\n"
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a log; a missing file has none; ValueError as for `append_result`."""
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"{path}: a log is a .csv or a .json file")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: a log must be a file")
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        text = read_text(path)
        return _read_csv(text) if path.suffix == ".csv" else _read_json(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path}: is not a log of this project ({error})") from error


def to_json(value: Any) -> Any:
    """Replace floats that JSON lacks (inf, nan) by their names, also in lists and dicts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value


def from_json(value: Any) -> Any:
    """Restore the floats that `to_json` replaced by their names."""
    if value in ("inf", "-inf", "nan"):
        return float(value)
    if isinstance(value, dict):
        return {key: from_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [from_json(entry) for entry in value]
    return value


def _to_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_csv(text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"expected the columns {','.join(COLUMNS)}")
    rows = list(reader)
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a line has more or fewer values than the header")
    return rows


def _read_json(text: str) -> list[dict[str, Any]]:
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a list of objects")
    return rows
