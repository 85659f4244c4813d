"""Training of the small model's autoencoder (latent diffusion, Sec. 3.1).

The loss is the absolute and squared error of the pixels plus a weak KL divergence that keeps
latents near a standard normal. There is no discriminator and no perceptual loss, since views of 64
pixels have little texture. Finally the latents are rescaled to mean 0 and variance 1 in every
channel over the training images, so that `AutoencoderConfig.scale` is 1.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive
from common.files import atomic_write
from common.signals import StopFlag, stop_on_signals
from ldm.data.loader import DataConfig, TrainingLoader, make_loader, open_dataset, repeat_epochs
from ldm.data.samples import TrainingBatch, to_model_range
from ldm.networks.autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from ldm.training.metrics import open_metrics_file

log = logging.getLogger(__name__)

PREFIX = "first_stage_model."
"""Prefix of the autoencoder's tensors in a checkpoint of the whole model."""
INITIAL_LOG_VARIANCE = -6.0
"""Of the latents' posterior."""
IMAGES_AT_ONCE = 16
"""Images encoded at once to normalise the latents; bounds the memory."""
LAST = "last.ckpt"
RESULT = "autoencoder.ckpt"


@dataclass(frozen=True)
class AutoencoderStepConfig:
    """Optimization of the autoencoder."""

    max_steps: int = 6000
    views: int = 8  # random images per object and step, out of its targets and its input
    learning_rate: float = 1.5e-3  # Adam's peak rate, after the warm-up; decays along a cosine
    warmup_steps: int = 100  # linear
    kl_weight: float = 1e-5  # per latent value, relative to the error per pixel value
    save_every: int = 200  # steps between checkpoints, `last.ckpt`
    report_every: int = 50  # steps between logged metrics

    def __post_init__(self) -> None:
        check_positive(self)
        if not self.learning_rate > 0:
            raise ValueError(f"step.learning_rate must be above 0, got {self.learning_rate}")
        if not self.kl_weight >= 0:
            raise ValueError(f"step.kl_weight must not be negative, got {self.kl_weight}")


@dataclass(frozen=True)
class AutoencoderTrainConfig:
    """All settings of `train_autoencoder.py`."""

    model: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    image_size: int = 256
    num_views: int = 16
    data: DataConfig = field(default_factory=DataConfig)
    step: AutoencoderStepConfig = field(default_factory=AutoencoderStepConfig)

    def __post_init__(self) -> None:
        if self.image_size % self.model.downsampling:
            raise ValueError(
                f"image_size must be a multiple of {self.model.downsampling}, got {self.image_size}"
            )
        if self.step.views > self.num_views + 1:
            images = f"an object has {self.num_views} targets and one input"
            raise ValueError(f"step.views is {self.step.views}, but {images}")


def reconstruction_and_kl(
    posterior: DiagonalGaussian, images: Tensor, decoded: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the mean error per pixel value and the mean KL divergence per latent value."""
    mean, variance = posterior.mean, posterior.std.square()
    divergence = 0.5 * (mean.square() + variance - 1.0 - variance.clamp_min(1e-30).log())
    difference = decoded - images
    return 0.5 * difference.abs().mean() + 2.0 * difference.square().mean(), divergence.mean()


def learning_rate(step: int, config: AutoencoderStepConfig) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, cosine decay."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.max_steps))


def sample_images(batch: TrainingBatch, views: int, seed: int, step: int) -> Tensor:
    """Pick random images of each object, (B views, 3, H, W) in [-1, 1], by seed and step."""
    generator = np.random.Generator(np.random.PCG64([seed, step]))
    images = torch.cat([batch.target_images, batch.input_images[:, None]], dim=1)
    chosen = np.stack([generator.permutation(images.shape[1])[:views] for _ in range(len(batch))])
    rows = torch.arange(len(batch))[:, None]
    return to_model_range(images[rows, torch.from_numpy(chosen)].flatten(0, 1))


@torch.no_grad()
def pca_init(autoencoder: Autoencoder, images: Tensor) -> None:
    """Initialise an autoencoder as the best linear one of images (B, 3, H, W).

    The principal components of their blocks are the weights of the shortcuts
    (`AutoencoderConfig.shortcut`); the networks initially add nothing to them.
    """
    channels, side = autoencoder.config.latent_channels, autoencoder.config.downsampling
    blocks = F.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1)
    mean = blocks.reshape(len(blocks), 3, -1).mean(dim=(0, 2))  # of each colour
    centred = blocks - mean.repeat_interleave(side * side)
    variances, components = torch.linalg.eigh(centred.T @ centred / len(blocks))
    largest = components[:, -channels:].flip(1)
    # The sign of an eigenvector is arbitrary: make the sum positive.
    largest = largest * torch.where(largest.sum(dim=0) < 0, -1.0, 1.0)
    scale = variances[-channels:].flip(0).sqrt()
    kernel = largest.T.reshape(channels, 3, side, side)

    encode, decode = autoencoder.encoder_shortcut, autoencoder.decoder_shortcut
    for layer in (encode, autoencoder.encoder.conv_out, autoencoder.decoder.conv_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(_bias(layer))
    encode.weight[:channels] = kernel / scale[:, None, None, None]
    _bias(encode)[:channels] = -torch.einsum("kcij,c->k", kernel, mean) / scale
    _bias(encode)[channels:] = INITIAL_LOG_VARIANCE
    decode.weight.copy_(kernel * scale[:, None, None, None])
    _bias(decode).copy_(mean)
    for layer in (autoencoder.quant_conv, autoencoder.post_quant_conv):
        layer.weight.copy_(torch.eye(len(layer.weight))[:, :, None, None])
        nn.init.zeros_(_bias(layer))


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


@torch.no_grad()
def normalise_latents(autoencoder: Autoencoder, images: Tensor) -> None:
    """Rescale the latents to mean 0 and variance 1 in every channel; decoding does not change."""
    posteriors = [autoencoder.encode(part) for part in images.split(IMAGES_AT_ONCE)]
    latents = torch.cat([posterior.mean for posterior in posteriors])
    variance = torch.cat([posterior.std.square() for posterior in posteriors])
    mean = latents.mean(dim=(0, 2, 3))
    std = (latents.var(dim=(0, 2, 3)) + variance.mean(dim=(0, 2, 3))).sqrt()
    channels = len(mean)
    out, back = autoencoder.quant_conv, autoencoder.post_quant_conv
    out.weight[:channels] /= std[:, None, None, None]
    _bias(out)[:channels] = (_bias(out)[:channels] - mean) / std
    _bias(out)[channels:] -= 2 * std.log()  # they are log variances
    _bias(back).add_(back.weight[:, :, 0, 0] @ mean)
    back.weight *= std[None, :, None, None]


class AutoencoderTraining:
    """The autoencoder, its optimizer and the number of steps done."""

    def __init__(self, config: AutoencoderTrainConfig, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.autoencoder = Autoencoder(config.model).to(device)
        self.optimizer = torch.optim.Adam(self.autoencoder.parameters(), betas=(0.9, 0.99))
        self.steps_done = 0

    def step(self, batch: TrainingBatch) -> dict[str, float]:
        """Take one optimizer step; return its metrics."""
        config = self.config.step
        images = sample_images(batch, config.views, self.seed, self.steps_done).to(self.device)
        if self.steps_done == 0 and self.config.model.shortcut:
            pca_init(self.autoencoder, images)
        posterior = self.autoencoder.encode(images)
        generator = torch.Generator().manual_seed(self.seed + self.steps_done)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
        decoded = self.autoencoder.decode(posterior.sample(noise))
        error, divergence = reconstruction_and_kl(posterior, images, decoded)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps_done, config)
        self.optimizer.zero_grad()
        (error + config.kl_weight * divergence).backward()
        torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), 1.0)
        self.optimizer.step()
        self.steps_done += 1
        squared = ((decoded.detach() - images) / 2).square().mean().item()
        if not math.isfinite(squared):
            advice = "try a smaller step.learning_rate"
            raise FloatingPointError(f"training diverged at step {self.steps_done}; {advice}")
        psnr = -10 * math.log10(max(squared, 1e-12))
        return {"error": error.item(), "divergence": divergence.item(), "psnr": psnr}

    def state_dict(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the state, with the loader's, `data`."""
        return {
            "autoencoder": self.autoencoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.steps_done,
            "seed": self.seed,
            "model": asdict(self.config.model),
            "data": data,
        }

    def load_state(self, path: Path) -> dict[str, Any]:
        """Restore a checkpoint; return the loader's state; ValueError if it does not fit."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            same = state["seed"] == self.seed and state["model"] == asdict(self.config.model)
            if same:
                self.autoencoder.load_state_dict(state["autoencoder"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.steps_done, data = state["step"], state["data"]
        except Exception as error:  # damaged files raise all kinds of errors
            raise ValueError(f"{path}: damaged, or not an autoencoder training's") from error
        if not same:
            raise ValueError(f"{path}: has another seed, or an autoencoder of other sizes")
        return data


def train_autoencoder(
    config: AutoencoderTrainConfig, folder: Path, seed: int, resume: bool, device: torch.device
) -> int:
    """Train, and write `autoencoder.ckpt`, the initial checkpoint of the model's training.

    `folder` also gets `last.ckpt`, from which `resume` continues (FileExistsError without it), and
    `steps.jsonl`. Returns the number of the signal that stopped the training early, else 0.
    """
    last = folder / LAST
    if last.exists() and not resume:
        raise FileExistsError(f"{last}: is of an earlier training")
    training = AutoencoderTraining(config, seed, device)
    source = open_dataset(config.data.source)
    loader = make_loader(source, config.data, config.num_views, config.image_size, seed)
    folder.mkdir(parents=True, exist_ok=True)
    if last.exists():
        loader.load_state_dict(training.load_state(last))
    metrics_file = open_metrics_file(folder / "steps.jsonl", training.steps_done)
    with stop_on_signals() as stop, metrics_file as metrics:
        train_loop(training, loader, folder, metrics, stop)
    if training.steps_done >= config.step.max_steps:
        save_result(training, next(repeat_epochs(loader)), folder / RESULT)
    return stop.signal or 0


def train_loop(
    training: AutoencoderTraining,
    loader: TrainingLoader,
    folder: Path,
    out: TextIO,
    stop: StopFlag,
) -> None:
    """Take the remaining steps, log metrics and save checkpoints."""
    config = training.config.step
    batches, logged_step, logged_at = repeat_epochs(loader), training.steps_done, time.monotonic()
    for step in range(training.steps_done + 1, config.max_steps + 1):
        metrics = training.step(next(batches))
        ends = step == config.max_steps or stop.signal is not None  # read once, so that it is saved
        if ends or step % config.report_every == 0:
            now = time.monotonic()
            pace = (now - logged_at) / (step - logged_step)
            logged_step, logged_at = step, now
            out.write(json.dumps({"step": step, **metrics, "seconds": pace}) + "\n")
            out.flush()
            values = (step, config.max_steps, metrics["psnr"], metrics["divergence"], pace)
            log.info("step %d of %d: PSNR %.1f dB, KL %.2f, %.2f s a step", *values)
        if ends or step % config.save_every == 0:
            with atomic_write(folder / LAST) as path:
                torch.save(training.state_dict(loader.state_dict()), path)
        if ends:
            break


def save_result(training: AutoencoderTraining, batch: TrainingBatch, path: Path) -> None:
    """Write the autoencoder, with normalised latents, under its names in the whole model."""
    autoencoder = training.autoencoder
    images = sample_images(batch, training.config.num_views + 1, training.seed, training.steps_done)
    normalise_latents(autoencoder, images.to(training.device))
    state = {f"{PREFIX}{name}": value.cpu() for name, value in autoencoder.state_dict().items()}
    with atomic_write(path) as temporary:
        torch.save({"state_dict": state}, temporary)
    log.info("wrote %s", path)
