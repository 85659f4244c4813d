"""`python -m benchmarks.gpu` on a CPU, with tiny sizes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.denoise import measure_denoising
from benchmarks.gpu.reconstruction import measure_reconstruction
from benchmarks.gpu.rows import PEAK, Row, surviving, table
from benchmarks.gpu.timing import Bench, measure_peak
from benchmarks.gpu.training import measure_training
from tests.conftest import run


def measured(measure, *arguments: str, modes: tuple[str, ...] = ("eager",)) -> list[Row]:
    rows: list[Row] = []
    deadline = time.monotonic() + 600
    measure(Bench(torch.device("cpu"), rows.append, deadline, True, modes), *arguments)
    return rows


@pytest.mark.integration
@pytest.mark.parametrize(
    ("measure", "arguments", "count"),
    [
        pytest.param(measure_peak, (), 3, id="matmul"),
        pytest.param(measure_denoising, ("denoising", "tiny", "bf16"), 1, id="denoising"),
        pytest.param(measure_training, ("training", "tiny"), 2, id="training"),
    ],
)
def test_a_part_measures_seconds_and_operations(measure, arguments, count):
    rows = measured(measure, *arguments)
    assert len(rows) == count
    assert all(row.seconds > 0 and row.flop > 0 and not row.note for row in rows), rows


@pytest.mark.slow
def test_the_reconstruction_is_timed_and_scored():
    (row,) = measured(measure_reconstruction, "reconstruction")
    assert row.seconds > 0
    assert "volume IoU 0." in row.note


@pytest.mark.slow
def test_compiled_networks_differ_by_rounding():
    arguments = ("denoising", "tiny", "fp32")
    eager, compiled, graphs = measured(
        measure_denoising, *arguments, modes=("eager", "compiled", "CUDA graphs")
    )
    assert compiled.flop == eager.flop
    assert float(compiled.note.rpartition(" ")[2]) < 1e-4
    assert graphs.note == "none on cpu"


def test_a_part_alone_prints_its_rows(capsys):
    main(["--part", "matmul", "--device", "cpu", "--tiny"])
    rows = [Row.from_line(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.dtype for row in rows] == ["", "bf16", "fp16", "fp32"]
    assert f"torch {torch.__version__}" in rows[0].note


@pytest.mark.integration
def test_the_command_ends_in_time_and_reports_every_part(tmp_path: Path):
    """Most parts are cut off: each says so, and the others go on."""
    out = tmp_path / "tables" / "gpu.md"
    command = ("-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--seconds", "12")
    done = run(*command, "--out", out, "--commit", "abc123", timeout=120)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert "commit abc123, device cpu, tiny sizes" in text
    for part in ("matmul", "denoising, bf16", "training", "small model, denoising"):
        assert f"| {part} |" in text
    assert "ended after" in text or "no time was left" in text
    again = run(*command, "--out", out)
    assert again.returncode == 1
    assert "gpu.md exists; choose another --out" in again.stderr


def test_rates_are_relative_to_the_products_of_the_same_precision():
    rows = [
        Row(PEAK, "1 x 1", "bf16", "eager", 0.5, 4e14),
        Row("a", "b", "bf16", "eager", 1.0, 2e14, 2.0**31, "x | y"),
        Row("a", "b", "fp32", "eager", 1.0, 2e14),
    ]
    assert table(rows).splitlines()[3:] == [
        "| a | b | bf16 | eager | 1 | 200 | 25 % | 2.00 | x / y |",
        "| a | b | fp32 | eager | 1 | 200 |  |  |  |",
    ]
    assert Row.from_line(rows[1].line()) == rows[1]


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "not enough memory"),
        (RuntimeError("no kernel\nmore"), "failed: no kernel"),
        (ImportError("No module named 'x'"), "failed: No module named 'x'"),
    ],
)
def test_a_failed_measurement_is_a_row(error, note):
    rows: list[Row] = []
    with surviving(rows.append, Row("a", "b")):
        raise error
    assert [row.note for row in rows] == [note]
