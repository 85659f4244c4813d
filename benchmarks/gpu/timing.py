"""Seconds, floating-point operations and peak memory of a piece of work on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.gpu.rows import PEAK, Emit, Row, surviving

Shape = tuple[int, ...]
MODES = ("eager", "compiled", "CUDA graphs")
SECONDS = 1.0
"""Measuring time of a piece of work, after a run that is not counted."""


@dataclass(frozen=True)
class Bench:
    """A device, where rows go, and when to stop."""

    device: torch.device
    emit: Emit
    deadline: float  # of time.monotonic()
    tiny: bool
    modes: Sequence[str] = MODES

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clock(self, work: Callable[[], object]) -> float:
        """Seconds of one run."""
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start

    def measure(self, row: Row, work: Callable[[], object], flop: float | None = None) -> None:
        """Time the work, which has run before; emit the row with its median and memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        runs = [self.clock(work)]
        while sum(runs) < SECONDS and len(runs) < 20 and not self.tiny:
            runs.append(self.clock(work))
        memory = None
        if self.device.type == "cuda":
            memory = float(torch.cuda.max_memory_allocated(self.device))
        self.emit(replace(row, seconds=statistics.median(runs), flop=flop, memory=memory))

    @contextmanager
    def attempt(self, row: Row) -> Iterator[bool]:
        """Run the block if there is time (else false is given); its failure is a row, see there."""
        late = time.monotonic() > self.deadline
        if late:
            self.emit(replace(row, note="no time was left"))
        with surviving(self.emit, row):
            yield not late


def count_flop(work: Callable[[], object]) -> float:
    """Floating-point operations of products and convolutions in a run of eager work."""

    def attention(q: Shape, k: Shape, v: Shape, *_: object, **__: object) -> int:
        return sdpa_flop_count(q, k, v)

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        work()
    return float(counter.get_total_flops())


def set_tf32(dtype: str) -> None:
    """Let products of float32 be computed in TF32 for "tf32" only."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"


TORCH_DTYPES = {
    "bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32,
}  # fmt: skip


def dtypes(device: torch.device) -> list[str]:
    """The precisions that a device can be measured in."""
    return [name for name in TORCH_DTYPES if name != "tf32" or device.type == "cuda"]


def measure_peak(bench: Bench) -> None:
    """Measure the rate of square matrix products in each precision."""
    side = 256 if bench.tiny else 8192
    for dtype in dtypes(bench.device):
        row = Row(PEAK, f"{side} x {side}", dtype, "eager")
        with bench.attempt(row) as timely:
            if timely:
                set_tf32(dtype)
                kind = TORCH_DTYPES[dtype]
                a, b = torch.randn(2, side, side, device=bench.device, dtype=kind)
                for _ in range(3):
                    bench.clock(lambda: a @ b)  # noqa: B023 - called here
                bench.measure(row, lambda: a @ b, 2.0 * side**3)  # noqa: B023
