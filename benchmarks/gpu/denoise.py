"""Seconds of a denoising step with guidance: eager, compiled, and with CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.gpu.models import Size, Step, random_model, read_config
from benchmarks.gpu.rows import Row
from benchmarks.gpu.timing import TORCH_DTYPES, Bench, count_flop, dtypes, set_tf32
from ldm.depth_attention import CONDITIONAL, UNCONDITIONAL
from ldm.model import SyncDreamer

FULL_SIZE = (Step(16, 1), Step(8, 1), Step(4, 1), Step(16, 4))
SMALL = (Step(16, 1), Step(8, 1), Step(16, 4), Step(16, 16))
TINY = (Step(16, 1),)


def prepare(model: SyncDreamer, step: Step) -> Callable[[], Tensor]:
    """Inputs of a step, from fixed random numbers; the result predicts once."""
    config, device = model.config, model.azimuth.device
    generator, size = torch.Generator().manual_seed(1), config.cameras.image_size

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    image = torch.rand(step.samples, 3, size, size, generator=generator).to(device) * 2 - 1
    elevations = torch.zeros(step.samples, device=device)
    noise = normal(step.samples, *config.latent_shape[1:])
    conditioning = model.make_conditioning(model.encode_image(image), elevations, noise)
    latents, cache = normal(step.samples, *config.latent_shape), model.sampling_cache()
    branches = (CONDITIONAL, UNCONDITIONAL)
    return lambda: model(latents, 501, conditioning, cache, branches, step.views_at_once)


@torch.no_grad()
def measure_denoising(bench: Bench, part: str, size: Size, dtype: str) -> None:
    """Measure all batch sizes in each mode; compiled results are compared with eager ones."""
    if dtype not in dtypes(bench.device):
        bench.emit(Row(part, "steps", dtype, note=f"none on {bench.device}"))
        return
    set_tf32(dtype)
    steps = {"full size": FULL_SIZE, "small model": SMALL, "tiny": TINY}[size]
    model = random_model(read_config(size), bench.device, TORCH_DTYPES[dtype])
    expected: dict[Step, tuple[Tensor, float]] = {}
    for step in steps:
        row = Row(part, str(step), dtype, "eager")
        with bench.attempt(row) as timely:
            if timely:
                predict = prepare(model, step)
                flop = count_flop(predict)
                expected[step] = (predict().cpu(), flop)
                bench.measure(row, predict, flop)
    for mode in bench.modes[1:]:
        measure_compiled(bench, part, model, steps, dtype, mode, expected)


def measure_compiled(
    bench: Bench,
    part: str,
    model: SyncDreamer,
    steps: Sequence[Step],
    dtype: str,
    mode: str,
    expected: dict[Step, tuple[Tensor, float]],
) -> None:
    """Measure the batch sizes in one of the two compiled modes."""
    if mode == "CUDA graphs" and bench.device.type != "cuda":
        bench.emit(Row(part, "steps", dtype, mode, note=f"none on {bench.device}"))
        return
    torch.compiler.reset()
    model.compile_networks(cuda_graphs=mode == "CUDA graphs")
    for step in steps:
        row = Row(part, str(step), dtype, mode)
        with bench.attempt(row) as timely:
            if timely:
                predict = prepare(model, step)
                start = time.perf_counter()
                for _ in range(3):  # compiles; warms up; records the graphs
                    found = predict()
                first = time.perf_counter() - start
                note, flop = f"first three runs {first:.0f} s", None
                if step in expected:
                    wanted, flop = expected[step]
                    error = float((found.cpu() - wanted).norm() / wanted.norm())
                    note += f"; differs from eager by {error:.1e}"
                bench.measure(replace(row, note=note), predict, flop)
