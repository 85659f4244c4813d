"""Seconds and memory of a training step: batch sizes, precisions, gradient checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.gpu.models import Size, random_model, read_config
from benchmarks.gpu.rows import Row
from benchmarks.gpu.timing import Bench, count_flop, set_tf32
from demo.loss import choose_loss
from ldm.data.samples import TrainingBatch
from ldm.model import SyncDreamer
from ldm.training.config import TrainConfig
from ldm.training.gradient_checkpointing import enable_gradient_checkpointing
from ldm.training.loss import encode_batch
from ldm.training.optimizer import trainable_parameter_groups
from ldm.training.random_draws import sample_training_noise


@dataclass(frozen=True)
class Setting:
    """How a training step is computed."""

    dtype: str  # bf16 and fp16 by autocast
    mode: str  # eager or compiled
    checkpointing: bool
    batch: int


def settings(bench: Bench, size: Size) -> Iterator[Setting]:
    """All settings, the likeliest use first."""
    if bench.tiny:
        yield from (Setting("fp32", "eager", checkpointing, 1) for checkpointing in (False, True))
        return
    batches = (1, 2, 4, 8, 16, 32) if size == "full size" else (8, 32, 128)
    for checkpointing in (False, True):
        yield from (Setting("bf16", "eager", checkpointing, batch) for batch in batches)
    for dtype in ("tf32", "fp16", "fp32"):
        if dtype != "tf32" or bench.device.type == "cuda":
            yield Setting(dtype, "eager", False, batches[0])
    yield Setting("bf16", "compiled", False, batches[1])


def make_step(model: SyncDreamer, config: TrainConfig, setting: Setting) -> Callable[[], None]:
    """A training step on random images: the encoders, the loss, its gradients, AdamW."""
    device, cameras, count = model.azimuth.device, config.model.cameras, setting.batch
    groups = trainable_parameter_groups(model, config.optimizer)
    optimizer = torch.optim.AdamW(groups)
    uids = [str(number) for number in range(count)]
    batch = TrainingBatch.empty(uids, cameras.num_views, cameras.image_size)
    for images in (batch.target_images, batch.input_images):
        images.random_(0, 256)
    batch.input_elevations.zero_()
    batch = batch.to(device)
    shape, timesteps = config.model.latent_shape, config.model.schedule.timesteps
    noise = sample_training_noise(0, range(count), shape, timesteps, config.step).to(device)
    geometry, loss = model.view_geometry(), choose_loss(config.model)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(setting.dtype)

    def step() -> None:
        with torch.autocast(device.type, kind, enabled=kind is not None):
            encoded = encode_batch(model, batch)
            elevations, drop = batch.input_elevations, config.step.drop_conditions
            losses = loss(model, encoded, elevations, noise, geometry, drop)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure_training(bench: Bench, part: str, size: Size) -> None:
    """Measure the settings; after one that does not fit into the memory, no larger batch."""
    config = read_config(size)
    too_large: set[tuple[str, str, bool]] = set()
    flop_of_one = None
    for setting in settings(bench, size):
        kind = (setting.dtype, setting.mode, setting.checkpointing)
        how = ", gradient checkpointing" if setting.checkpointing else ""
        objects = "1 object" if setting.batch == 1 else f"{setting.batch} objects"
        row = Row(part, f"step, {objects}{how}", setting.dtype, setting.mode)
        if kind in too_large:
            continue
        too_large.add(kind)  # until it is done
        with bench.attempt(row) as timely:
            if not timely:
                continue
            set_tf32(setting.dtype)
            model = random_model(config, bench.device, torch.float32)
            if setting.checkpointing:
                enable_gradient_checkpointing(model)
            step = make_step(model, config, setting)
            if setting.mode == "compiled":
                model.compile_networks()
            if flop_of_one is None:  # without what checkpointing computes again
                flop_of_one = count_flop(step) / setting.batch
            for _ in range(2):
                step()
            bench.measure(row, step, flop_of_one * setting.batch)
            too_large.discard(kind)
