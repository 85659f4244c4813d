"""Measure a GPU in one command: denoising, training and reconstruction; write one table.

    python -m benchmarks.gpu --out benchmarks/results/2026-12-01-h100.md

The table is written after every row. Each part runs in a process of its own, in the time that the
others left, so that one that fails, or hangs, does not take the others with it. No checkpoint is
needed: the weights are random.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.gpu.rows import PEAK, Row, first_line, table
from common.cli import HelpFormatter, add_common_flags, run_script
from common.files import atomic_write

PARTS = {
    PEAK: 4, "denoising, bf16": 12, "training": 8, "reconstruction": 7, "small model, denoising": 7,
    "small model, training": 4, "denoising, fp16": 5, "denoising, tf32": 5, "denoising, fp32": 5,
}  # fmt: skip
"""The parts in their order, with their share of the time."""
LEAST_SECONDS = 5


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, help="Markdown file of the table; must not exist")
    add("--seconds", type=float, default=450, help="of all parts together")
    add("--commit", help="commit that is measured (default: git's)")
    add("--tiny", action="store_true", help="tiny sizes, to try the command on a CPU")
    add("--part", choices=PARTS, help="only this part; its rows as JSON on the standard output")
    add_common_flags(parser)
    return parser


def run_part(args: argparse.Namespace) -> None:
    """Run one part in this process."""
    import torch

    from benchmarks.gpu.denoise import measure_denoising
    from benchmarks.gpu.models import Size
    from benchmarks.gpu.reconstruction import measure_reconstruction
    from benchmarks.gpu.timing import TORCH_DTYPES, Bench, measure_peak
    from benchmarks.gpu.training import measure_training
    from common.devices import pick_device

    device = pick_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    deadline = time.monotonic() + 0.9 * args.seconds

    def emit(row: Row) -> None:
        print(row.line(), flush=True)

    bench = Bench(device, emit, deadline, args.tiny)
    part: str = args.part
    size: Size = "full size"
    if args.tiny:
        size = "tiny"
    elif "small" in part:
        size = "small model"
    if part == PEAK:
        emit(Row(PEAK, "device", note=describe(device)))
        measure_peak(bench)
    elif part == "reconstruction":
        measure_reconstruction(bench, part)
    elif part.endswith("training"):
        measure_training(bench, part, size)
    elif part.startswith("small"):
        for dtype in TORCH_DTYPES:
            measure_denoising(bench, part, size, dtype)
    else:
        measure_denoising(bench, part, size, part.rpartition(" ")[2])


def describe(device: object) -> str:
    """The device, and the versions that matter."""
    import torch

    kind = getattr(device, "type", "cpu")
    name = torch.cuda.get_device_name() if kind == "cuda" else platform.processor() or kind
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"


def run_in_process(part: str, seconds: float, given: list[str]) -> Iterator[Row]:
    """Run a part in a process that is ended, with all that it started, after `seconds`."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", part, "--seconds", str(seconds)]
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            [*command, *given], stdout=subprocess.PIPE, stderr=errors, text=True,
            start_new_session=True,
        )  # fmt: skip
        late = threading.Event()

        def end() -> None:
            late.set()
            kill(process)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                with suppress(ValueError, TypeError):  # what a library prints
                    yield Row.from_line(line)
            process.wait()
        finally:
            timer.cancel()
            kill(process)
        if late.is_set():
            yield Row(part, "the rest", note=f"ended after {seconds:.0f} s")
        elif process.returncode:
            errors.seek(0)
            last = next((line for line in reversed(errors.read().splitlines()) if line.strip()), "")
            found = first_line(last or f"exit code {process.returncode}")
            yield Row(part, "the rest", note=f"failed: {found}")


def kill(process: subprocess.Popen[str]) -> None:
    """End a process, and those that compile for it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def git_commit() -> str:
    """The short name of the commit, "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def measure_all(out: Path, seconds: float, title: str, given: list[str]) -> None:
    """Run all parts; write the table after every row."""
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print("  ".join(table([row]).splitlines()[-1].strip("| ").split(" | ")), flush=True)
        with atomic_write(out) as temporary:
            temporary.write_text(f"{title}\n{table(rows)}", encoding="utf-8")

    end, shares = time.monotonic() + seconds, sum(PARTS.values())
    for part, share in PARTS.items():
        limit = (end - time.monotonic()) * share / shares
        shares -= share
        if limit < LEAST_SECONDS:
            add(Row(part, note="no time was left"))
            continue
        for row in run_in_process(part, limit, given):
            add(row)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.part:
        run_part(args)
        return
    if args.out is None:
        parser.error("--out is needed")
    if args.out.exists():
        raise FileExistsError(f"{args.out} exists; choose another --out")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    date, commit = datetime.now(timezone.utc).date(), args.commit or git_commit()
    title = (
        f"# python -m benchmarks.gpu\n\n{date}, commit {commit}, device {args.device}"
        f"{', tiny sizes' if args.tiny else ''}. Random weights. Rates count products and "
        "convolutions; the peak is that of square matrix products of the same precision.\n"
    )
    given = ["--device", args.device, *(["--tiny"] if args.tiny else [])]
    measure_all(args.out, args.seconds, title, given)


if __name__ == "__main__":
    run_script(main)
