"""The rows of the table: how a part reports them, and how they become Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True)
class Row:
    """One measurement; what is None was not measured, `note` says why."""

    part: str
    work: str = ""
    dtype: str = ""
    mode: str = ""  # eager, compiled, CUDA graphs
    seconds: float | None = None  # of the work, once
    flop: float | None = None  # of the work, once
    memory: float | None = None  # peak, bytes
    note: str = ""

    def line(self) -> str:
        """The row as a line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Row:
        """Read what `line` wrote."""
        return cls(**json.loads(line))


Emit = Callable[[Row], None]
"""Reports a finished row."""

PEAK = "matmul"
"""Part whose rows have the rates with which the others are compared."""


@contextmanager
def surviving(emit: Emit, row: Row) -> Iterator[None]:
    """Turn the failure of one measurement into a row that says so."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        emit(replace(row, note="not enough memory"))
        torch.cuda.empty_cache()
    except Exception as error:  # noqa: BLE001 - whatever it was, the next measurement is tried
        emit(replace(row, note=f"failed: {first_line(error)}"))


def first_line(error: object) -> str:
    """First line of a message, short enough for a table."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown; rates are relative to those of the matmul rows of the same dtype."""
    rows = list(rows)
    peaks = {
        row.dtype: row.flop / row.seconds
        for row in rows
        if row.part == PEAK and row.flop and row.seconds
    }
    lines = [
        "| part | work | dtype | mode | seconds | TFLOP/s | of the peak | memory, GiB | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate = row.flop / row.seconds if row.flop and row.seconds else None
        peak = peaks.get(row.dtype)
        cells = (
            row.part, row.work, row.dtype, row.mode,
            "" if row.seconds is None else f"{row.seconds:.4g}",
            "" if rate is None else f"{rate / 1e12:.3g}",
            "" if rate is None or peak is None else f"{100 * rate / peak:.0f} %",
            "" if row.memory is None else f"{row.memory / 2**30:.2f}",
            row.note.replace("|", "/"),
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
