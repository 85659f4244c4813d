"""Rows of results: what is printed, and the log files to which rows are appended."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.files import atomic_write, file_lock

NOT_MEASURED = "n/a"


@dataclass(frozen=True)
class Result:
    """The numbers of one object; None is what was not measured.

    Attributes:
        name: of the object or the run.
        psnr: mean over the views, dB; infinite where a view is equal to the true one.
        ssim: mean over the views.
        ssim_form: "cropped" (the paper's) or "current", see `image_metrics.ssim`.
        lpips: mean over the views, VGG net.
        chamfer: distance between visible surfaces, in units of the object's longest side.
        iou: volume intersection over union.
        points: number of points that COLMAP reconstructs; a mean of several may be broken.
        points_form: "dense" (the paper's) or "sparse".
        per_view: metric -> its value for each view; only JSON logs keep it.
    """

    name: str
    psnr: float | None = None
    ssim: float | None = None
    ssim_form: str | None = None
    lpips: float | None = None
    chamfer: float | None = None
    iou: float | None = None
    points: float | None = None
    points_form: str | None = None
    per_view: dict[str, list[float]] = field(default_factory=dict)


COLUMNS = tuple(entry.name for entry in fields(Result) if entry.name != "per_view")
"""Columns of CSV logs, the same for every command, so that all may share one file."""


def as_text(value: float | str | None) -> str:
    """Format a value as the tables show it: floats with 5 decimals, infinity as `inf`."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.5f}" if isinstance(value, float) else one_line(str(value))


def one_line(text: str) -> str:
    """Escape what would break a line or a file of UTF-8, as folders may be called anything."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def table_row(*values: float | str | None) -> str:
    """One line for stdout, separated by tabs."""
    return "\t".join(map(as_text, values))


def angle(text: str) -> float:
    """Read an angle in degrees, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is not a finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not an angle in degrees")
    return value


def row_name(text: str) -> str:
    """Check the name of a row, for argparse: not empty, printable, in one line.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name in one line")
    return text


def add_log_flag(parser: argparse.ArgumentParser) -> None:
    """Add --log, which every evaluation command has."""
    parser.add_argument("--log", type=Path, help="append the result to this .csv or .json file too")


def check_log(path: Path | None) -> None:
    """Find out before the work whether `append` will be able to add to a log.

    Raises:
        ValueError, OSError: see `append`.
    """
    if path is None:
        return
    read_log(path)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: the folder {folder} cannot be written to")


def append(path: Path, result: Result) -> None:
    """Append a row to a log; whatever happens, the file is whole, with or without the row.

    Args:
        path: `.csv` (one line a result, `COLUMNS`) or `.json` (a list of objects).
        result: the row.

    Raises:
        ValueError: another suffix, or the file holds something else; it is left as it is.
        OSError: the file cannot be written.
    """
    path = path.resolve()  # a link stays one
    with file_lock(path):
        rows = [*read_log(path), _as_record(result, per_view=path.suffix == ".json")]
        text = _to_csv(rows) if path.suffix == ".csv" else json.dumps(rows, indent=1) + "\n"
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a log, see `append`; no rows where there is no file.

    Raises:
        ValueError: another suffix, or the file holds something else.
    """
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"{path}: a log is a .csv or a .json file")
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: a log is a file, this is none")
    if not path.exists() or not path.stat().st_size:
        return []
    try:
        text = path.read_text(encoding="utf-8")
        return _read_csv(text) if path.suffix == ".csv" else _read_json(text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"{path}: is not a log of this project ({error}); choose another file for --log"
        ) from error


def to_json(value: Any) -> Any:
    """Replace floats that JSON cannot say (inf, nan) by their names, in lists and dicts too."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value


def from_json(value: Any) -> Any:
    """Put the floats back that `to_json` replaced by their names."""
    if value in ("inf", "-inf", "nan"):
        return float(value)
    if isinstance(value, dict):
        return {key: from_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [from_json(entry) for entry in value]
    return value


def _as_record(result: Result, per_view: bool) -> dict[str, Any]:
    record = {name: getattr(result, name) for name in COLUMNS}
    if per_view and result.per_view:
        record["per_view"] = result.per_view
    return to_json(record)


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
