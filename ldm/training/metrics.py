"""Training metrics: loss by timestep, time per part of a step, memory; and their files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from common.files import atomic_write

NOISE_LEVELS = 10
"""Number of equally wide bins of timesteps."""
PARTS = ("data", "encoders", "volume", "unet", "optimizer", "other")
"""Parts of a step whose time is measured; networks with their forward and backward passes."""


class StepTimer:
    """Measures the time of each part of a step; on a GPU by events, without synchronising."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[tuple[str, Any]] = [("", self._now())]

    def _now(self) -> Any:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event
        return time.perf_counter()

    def mark(self, part: str) -> None:
        """Assign the time since the last call to `part`."""
        self.marks.append((part, self._now()))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let `timed` blocks report to this timer meanwhile."""
        global _active
        _active = self
        try:
            yield
        finally:
            _active = None

    def split(self) -> dict[str, float]:
        """Return the seconds of each part since the last call."""
        on_gpu, seconds = self.device.type == "cuda", dict.fromkeys(PARTS, 0.0)
        if on_gpu:
            torch.cuda.synchronize(self.device)
        for (_, before), (part, after) in pairwise(self.marks):
            seconds[part] += before.elapsed_time(after) / 1e3 if on_gpu else after - before
        self.marks = self.marks[-1:]
        return seconds


_active: StepTimer | None = None


@contextmanager
def timed(part: str, inputs: Sequence[Tensor] = ()) -> Iterator[None]:
    """Assign the time of a block to a part of the step, if a timer is active.

    So is that of its backward pass, which ends when the gradients of its `inputs` are complete.
    """
    yield
    timer = _active
    if timer is None:
        return
    timer.mark(part)
    if inputs and torch.is_grad_enabled():
        torch.autograd.graph.register_multi_grad_hook(inputs, lambda _: timer.mark(part))


class LossByTimestep:
    """Sum and number of the losses in each bin of timesteps, on the device."""

    def __init__(self, timesteps: int, device: torch.device) -> None:
        self.timesteps = timesteps
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPU lacks
        self.totals = torch.zeros(2, NOISE_LEVELS, dtype=dtype, device=device)

    def add(self, timesteps: Tensor, losses: Tensor) -> None:
        """Add the losses (B, T) of samples at `timesteps` (B,)."""
        level = timesteps * NOISE_LEVELS // self.timesteps
        level = level[:, None].expand_as(losses).flatten()
        values = losses.detach().to(self.totals.dtype).flatten()
        self.totals[0].index_add_(0, level, values)
        self.totals[1].index_add_(0, level, torch.ones_like(values))

    def pop(self) -> Tensor:
        """Return sums and numbers, (2, NOISE_LEVELS), and reset them."""
        totals, self.totals = self.totals, torch.zeros_like(self.totals)
        return totals


def mean_losses(totals: Tensor) -> tuple[float, list[float | None]]:
    """Return the mean loss of all samples and of each bin, None for an empty bin."""
    sums, counts = totals.tolist()
    levels = [s / n if n else None for s, n in zip(sums, counts, strict=True)]
    return sum(sums) / max(sum(counts), 1.0), levels


def memory_gib(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of this process on another device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    except (OSError, StopIteration):
        return math.nan


def open_metrics_file(path: Path, step: int) -> TextIO:
    """Open a JSON-lines file of metrics for appending, without lines after `step`."""
    kept = []
    for text in path.read_text().splitlines() if step and path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if line["step"] <= step:
            kept.append(json.dumps(line) + "\n")
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept))
    return path.open("a")


class MetricLogger:
    """Writes metrics to `steps.jsonl` and TensorBoard; drops entries after `step` on resuming."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.file = open_metrics_file(folder / "steps.jsonl", step)
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log(self, metrics: dict[str, Any]) -> None:
        """Write the metrics of `metrics["step"]`."""
        self.file.write(json.dumps(metrics) + "\n")
        self.file.flush()
        step = metrics["step"]
        for name, value in metrics.items():
            parts = dict(enumerate(value)) if isinstance(value, list) else value
            if not isinstance(parts, dict):
                parts = {} if name == "step" else {"": parts}
            for part, number in parts.items():
                if number is not None:
                    self.writer.add_scalar(f"{name}/{part}".rstrip("/"), number, step)

    def log_image(self, name: str, image: Any, step: int) -> None:
        """Add an image, uint8 (H, W, 3), to TensorBoard."""
        self.writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the files."""
        self.file.close()
        self.writer.close()
