"""Actions between training steps: metrics, validation images and checkpoints."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from common.files import atomic_write
from common.signals import StopFlag, stop_on_signals
from ldm.data.folder import ValidationImage
from ldm.model import SyncDreamer
from ldm.sampling.sampler import sample
from ldm.training.config import TrainConfig, TrainOptions, ValidationConfig
from ldm.training.lightning_module import SyncDreamerTraining
from ldm.training.metrics import MetricLogger, mean_losses, memory_gib
from ldm.training.optimizer import lr_multiplier
from multiview.images import to_uint8

log = logging.getLogger(__name__)

LAST = "last.ckpt"


@torch.no_grad()
def generate_validation_row(
    network: SyncDreamer, image: ValidationImage, config: ValidationConfig, seed: int
) -> Tensor:
    """Generate the N views of an image; return it and them side by side, uint8 (H, W', 3)."""
    device = network.azimuth.device
    generator = torch.Generator().manual_seed(seed)

    def sample_noise(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    features = network.encode_image(image.image[None].to(device))
    latents = sample(
        network, features, image.elevation, config.sampler, sample_noise, config.views_at_once
    )
    with torch.autocast(device.type, enabled=False):
        views = network.decode(latents.float(), config.views_at_once).cpu()
    row = torch.cat([image.image[None], views.nan_to_num()])
    return torch.from_numpy(to_uint8(rearrange(row, "n c h w -> h (n w) c").numpy()))


def share_of_images(count: int, rank: int, world_size: int) -> list[int]:
    """List a rank's validation images; all ranks have equally many, the last may be repetitions."""
    rows = -(-count // world_size)
    return [(rank + world_size * row) % count for row in range(rows)]


class TrainingCallback(L.Callback):
    """Logs metrics, generates validation images and saves checkpoints after optimizer steps."""

    def __init__(
        self, config: TrainConfig, options: TrainOptions, images: Sequence[ValidationImage]
    ) -> None:
        self.config, self.images, self.seed = config, images, options.seed
        self.log_folder = options.logdir / options.name
        self.ckpt_folder = options.ckptdir / options.name
        self.logger: MetricLogger | None = None
        self.stop = StopFlag()
        self.exit_stack = ExitStack()
        self.step = self.logged_step = 0
        self.logged_at = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the metric files and handle signals instead of Lightning."""
        assert isinstance(pl_module, SyncDreamerTraining)
        self.step = self.logged_step = trainer.global_step
        self.stop = self.exit_stack.enter_context(stop_on_signals())
        if trainer.is_global_zero:
            self.logger = MetricLogger(self.log_folder, self.step)
            self.exit_stack.callback(self.logger.close)
            if self.step and not self._kept_path().exists():  # killed just before keeping it
                self._keep_checkpoint()
        self.logged_at = time.monotonic()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Close the files and restore the signal handlers."""
        self.exit_stack.close()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SyncDreamerTraining, *_: Any
    ) -> None:
        """Update the EMA; log, validate and save if due; stop after a signal on any rank."""
        step, run = trainer.global_step, self.config.run
        if step == self.step:  # gradients are being accumulated
            return
        self.step = step
        if pl_module.ema is not None:
            pl_module.ema.update(pl_module.network)
        pl_module.timer.mark("optimizer")
        stop = self.stop.signal is not None
        if trainer.world_size > 1:
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        trainer.should_stop |= stop
        save = step % run.save_every == 0 or step >= run.max_steps or trainer.should_stop
        if save or step % run.report_every == 0:
            self._log_metrics(trainer, pl_module)
        if self.images and (step % self.config.validation.every == 0 or step >= run.max_steps):
            self._log_validation_images(trainer, pl_module)
        if save:
            trainer.save_checkpoint(self.ckpt_folder / LAST)
            if trainer.is_global_zero:
                self._keep_checkpoint()
        pl_module.timer.mark("other")

    def _log_metrics(self, trainer: L.Trainer, module: SyncDreamerTraining) -> None:
        totals = trainer.strategy.reduce(module.losses_by_timestep.pop(), reduce_op="sum")
        loss, levels = mean_losses(totals)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"training diverged: nan or infinite losses by step {self.step}. The last good "
                f"checkpoint is kept; try a smaller optimizer.learning_rate"
            )
        steps, now = self.step - self.logged_step, time.monotonic()
        seconds = {name: s / steps for name, s in module.timer.split().items()}
        max_steps = self.config.run.max_steps
        multiplier = lr_multiplier(self.step - 1, self.config.optimizer, max_steps)
        groups = trainer.optimizers[0].param_groups
        metrics = {
            "step": self.step,
            "loss": loss,
            "loss_by_noise_level": levels,
            "learning_rate": {g["name"]: g["initial_lr"] * multiplier for g in groups},
            "seconds_per_step": seconds,
            "samples": module.samples_seen,
            "memory_gib": memory_gib(module.device),
        }
        pace = (now - self.logged_at) / steps
        self.logged_step, self.logged_at = self.step, now
        if self.logger is not None:
            self.logger.log(metrics)
            hours = pace * (max_steps - self.step) / 3600
            message = "step %d of %d: loss %.4f, %.2f s a step, %.1f GiB, about %.1f h left"
            log.info(message, self.step, max_steps, loss, pace, metrics["memory_gib"], hours)

    def _log_validation_images(self, trainer: L.Trainer, module: SyncDreamerTraining) -> None:
        """Generate the images' views, shared between the ranks; rank 0 writes them."""
        network, settings = module.network, self.config.validation
        numbers = share_of_images(len(self.images), trainer.global_rank, trainer.world_size)
        averaged = module.ema.swapped_in(network) if module.ema else nullcontext()
        with averaged, trainer.precision_plugin.forward_context():
            draws = [(network, self.images[n], settings, self.seed + n) for n in numbers]
            rows = torch.stack([generate_validation_row(*draw) for draw in draws])
        gathered = rows[None]
        if trainer.world_size > 1:
            gathered = trainer.strategy.all_gather(rows.to(module.device)).cpu()
        ordered = rearrange(gathered, "rank row h w c -> (row rank) h w c")[: len(self.images)]
        grid = rearrange(ordered, "n h w c -> (n h) w c").numpy()
        if self.logger is not None:
            folder = self.log_folder / "images" / "val"
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / f"{self.step}.jpg") as path:
                Image.fromarray(grid).save(path, "JPEG", quality=90)
            self.logger.log_image("validation", grid, self.step)

    def _kept_path(self) -> Path:
        return self.ckpt_folder / f"step={self.step:08d}.ckpt"

    def _keep_checkpoint(self) -> None:
        """Keep the last checkpoint for good if that is due."""
        last = self.ckpt_folder / LAST
        if self.step % self.config.run.keep_every == 0:
            with atomic_write(self._kept_path()) as path:
                try:  # the next `last.ckpt` replaces the name, not the content
                    os.link(last, path)
                except OSError:
                    shutil.copyfile(last, path)
