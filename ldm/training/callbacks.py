"""What happens between the steps of a training: reports, pictures and checkpoints."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from common.files import atomic_write
from common.optional import import_optional
from common.signals import StopFlag, stop_on_signals
from ldm.data.folder import ValidationImage
from ldm.model import SyncDreamer
from ldm.training.config import REQUIREMENTS, TrainConfig, TrainOptions, ValidationConfig
from ldm.training.lightning_module import SyncDreamerTraining
from ldm.training.metrics import MetricLogger, mean_losses, memory_gib
from ldm.training.optimizer import lr_multiplier
from multiview.images import to_uint8

log = logging.getLogger(__name__)

LAST = "last.ckpt"


@torch.no_grad()
def validation_grid(
    network: SyncDreamer, images: Sequence[ValidationImage], config: ValidationConfig, seed: int
) -> np.ndarray:
    """Make views of each image: a row of the input and its N views, uint8 (rows H, W', 3)."""
    network.forget_precomputed()  # the weights have changed
    device, rows = network.azimuth.device, []
    for number, image in enumerate(images):
        generator = torch.Generator().manual_seed(seed + number)

        def draw(shape: tuple[int, ...], generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        features = network.encode_image(image.image[None].to(device))
        latents = network.sample(
            features, image.elevation, config.sampler, draw, config.views_at_once
        )
        with torch.autocast(device.type, enabled=False):
            views = network.decode(latents.float(), config.views_at_once).cpu()
        row = torch.cat([image.image[None], views.nan_to_num()])
        rows.append(rearrange(row, "n c h w -> h (n w) c"))
    network.forget_precomputed()
    return to_uint8(torch.cat(rows).numpy())


class TrainingCallback(L.Callback):
    """After each step of the optimizer: report, picture and checkpoint where they are due."""

    def __init__(
        self, config: TrainConfig, options: TrainOptions, images: Sequence[ValidationImage]
    ) -> None:
        self.config, self.images, self.seed = config, images, options.seed
        self.log_folder = options.logdir / options.name
        self.ckpt_folder = options.ckptdir / options.name
        self.files: MetricLogger | None = None
        self.stop = StopFlag()
        self.exit = ExitStack()
        self.bar: Any = None
        self.done = self.reported = 0
        self.since = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the files; take over the signals from Lightning."""
        assert isinstance(pl_module, SyncDreamerTraining)
        self.done = self.reported = trainer.global_step
        self.stop = self.exit.enter_context(stop_on_signals())
        if trainer.is_global_zero:
            tensorboard = import_optional(
                "torch.utils.tensorboard", "The report of a training", REQUIREMENTS
            )
            self.files = MetricLogger(self.log_folder, self.done, tensorboard)
            self.exit.callback(self.files.close)
            if self.done and not self._kept().exists():  # killed just before
                self._keep(self.ckpt_folder / LAST)
        self.bar = tqdm(
            total=self.config.run.max_steps, initial=self.done, unit="step",
            disable=not (trainer.is_global_zero and sys.stderr.isatty()),
        )  # fmt: skip
        self.exit.callback(self.bar.close)
        self.since = time.monotonic()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Close what is open."""
        self.exit.close()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: SyncDreamerTraining, *_: Any
    ) -> None:
        """Do what is due."""
        step, run = trainer.global_step, self.config.run
        if step == self.done:  # gradients are being accumulated
            return
        self.done = step
        if pl_module.ema is not None:
            pl_module.ema.update(pl_module.network)
        pl_module.timer.mark("optimizer")
        self.bar.update()
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(self.stop.signal is not None, False)
            trainer.should_stop |= asked
        else:
            trainer.should_stop |= self.stop.signal is not None
        save = step % run.save_every == 0 or step >= run.max_steps or trainer.should_stop
        if save or step % run.report_every == 0:
            self._report(trainer, pl_module)
        if self.images and (step % self.config.validation.every == 0 or step >= run.max_steps):
            self._draw(trainer, pl_module)
        if save:
            self._save(trainer)
        pl_module.timer.mark("other")

    def _report(self, trainer: L.Trainer, module: SyncDreamerTraining) -> None:
        totals = trainer.strategy.reduce(module.losses_by_timestep.take(), reduce_op="sum")
        loss, levels = mean_losses(totals)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training broke down: nan or infinite losses by step {self.done}. The last "
                f"checkpoint that was good is kept; try a smaller optimizer.learning_rate"
            )
        steps, now = self.done - self.reported, time.monotonic()
        seconds = {name: s / steps for name, s in module.timer.split().items()}
        part = lr_multiplier(self.done - 1, self.config.optimizer, self.config.run.max_steps)
        groups = trainer.optimizers[0].param_groups
        rates = {group["name"]: group["initial_lr"] * part for group in groups}
        line = {
            "step": self.done,
            "loss": loss,
            "loss_by_noise_level": levels,
            "learning_rate": rates,
            "seconds_per_step": seconds,
            "samples": module.samples_seen,
            "memory_gib": memory_gib(module.device),
        }
        pace = (now - self.since) / steps
        self.reported, self.since = self.done, now
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        if self.files is not None:
            self.files.write(line)
            if not sys.stderr.isatty():
                left = pace * (self.config.run.max_steps - self.done)
                log.info("step %d of %d: loss %.4f, %.2f s a step, %.1f GiB, about %.1f h left",
                         self.done, self.config.run.max_steps, loss, pace, line["memory_gib"],
                         left / 3600)  # fmt: skip

    def _draw(self, trainer: L.Trainer, module: SyncDreamerTraining) -> None:
        ema = module.ema
        with (
            ema.swapped_in(module.network) if ema else nullcontext(),
            trainer.precision_plugin.forward_context(),
        ):
            picture = validation_grid(
                module.network, self.images, self.config.validation, self.seed
            )
        if self.files is not None:
            folder = self.log_folder / "images" / "val"
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / f"{self.done}.jpg") as path:
                Image.fromarray(picture).save(path, "JPEG", quality=90)
            self.files.add_image("validation", picture, self.done)

    def _save(self, trainer: L.Trainer) -> None:
        last = self.ckpt_folder / LAST
        trainer.save_checkpoint(last)
        if trainer.is_global_zero:
            self._keep(last)

    def _kept(self) -> Path:
        return self.ckpt_folder / f"step={self.done:08d}.ckpt"

    def _keep(self, last: Path) -> None:
        """Let a checkpoint stay where one is due."""
        if self.done % self.config.run.keep_every == 0:
            with atomic_write(self._kept()) as path:
                try:  # the next `last.ckpt` replaces the name, not the content
                    os.link(last, path)
                except OSError:
                    shutil.copyfile(last, path)
