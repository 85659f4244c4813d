"""Training a small autoencoder for views (latent diffusion, Sec. 3.1), before the model itself.

Absolute and squared differences of pixels, plus a little of the KL divergence that keeps latents
near a standard normal; no discriminator and no perceptual loss: views of 64 pixels have little
texture.
When it is trained, its last layer is rescaled so that every latent channel of the training images
has mean 0 and variance 1: `AutoencoderConfig.scale` is then 1.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from common.config import check_positive
from common.files import atomic_write
from common.signals import stop_on_signals
from ldm.data.loader import DataConfig, TrainingLoader, make_loader, open_dataset
from ldm.data.samples import TrainingBatch, to_model_range
from ldm.networks.autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from ldm.training.metrics import open_metrics_file

log = logging.getLogger(__name__)

PREFIX = "first_stage_model."
"""Of the autoencoder's names in a checkpoint of the whole model."""
FIRST_LOG_VARIANCE = -6.0
TOGETHER = 16
"""Images that are encoded at once when the latents are normalised; bounds the memory."""
LAST = "last.ckpt"
RESULT = "autoencoder.ckpt"


@dataclass(frozen=True)
class AutoencoderStepConfig:
    """One step of the optimizer, and how many there are.

    Attributes:
        max_steps: of the optimizer.
        views: images of an object in a step, drawn from its targets and its input.
        learning_rate: Adam's, after a warm-up; falls to 0 along a cosine.
        warmup_steps: over which the rate rises on a line.
        kl_weight: of the KL divergence of a latent value, against the error of a pixel value.
        save_every: steps between writing `last.ckpt`.
        report_every: steps between reports.
    """

    max_steps: int = 6000
    views: int = 8
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    kl_weight: float = 1e-5
    save_every: int = 200
    report_every: int = 50

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
            raise ValueError(
                f"step.views is {self.step.views}, an object has {self.num_views} targets and an "
                f"input"
            )


def losses(posterior: DiagonalGaussian, images: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """Return the error of a pixel's value, and the KL divergence of a latent value.

    Absolute differences keep edges sharp; squared ones see that colours are learned early, too.
    """
    mean, variance = posterior.mean, posterior.std.square()
    divergence = 0.5 * (mean.square() + variance - 1.0 - variance.clamp_min(1e-30).log())
    difference = decoded - images
    return 0.5 * difference.abs().mean() + 2.0 * difference.square().mean(), divergence.mean()


def learning_rate(step: int, config: AutoencoderStepConfig) -> float:
    """Rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.max_steps))


def sample_images(batch: TrainingBatch, views: int, seed: int, step: int) -> Tensor:
    """Pick images of each object, (B views, 3, H, W) in [-1, 1]; they follow from seed and step."""
    generator = np.random.Generator(np.random.PCG64([seed, step]))
    images = torch.cat([batch.target_images, batch.input_images[:, None]], dim=1)
    chosen = np.stack([generator.permutation(images.shape[1])[:views] for _ in range(len(batch))])
    rows = torch.arange(len(batch))[:, None]
    return to_model_range(images[rows, torch.from_numpy(chosen)].flatten(0, 1))


@torch.no_grad()
def pca_init(autoencoder: Autoencoder, images: Tensor) -> None:
    """Let a fresh autoencoder begin as the best linear one: by principal components of blocks.

    Its networks begin by adding nothing to their shortcuts.

    Args:
        autoencoder: with `AutoencoderConfig.shortcut`.
        images: from which the components are worked out, (B, 3, H, W).
    """
    channels, side = autoencoder.config.latent_channels, autoencoder.config.downsampling
    blocks = F.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1)
    mean = blocks.reshape(len(blocks), 3, -1).mean(dim=(0, 2))  # of each colour
    centred = blocks - mean.repeat_interleave(side * side)
    variances, components = torch.linalg.eigh(centred.T @ centred / len(blocks))
    largest = components[:, -channels:].flip(1)
    # Eigenvectors have no sign of their own.
    largest = largest * torch.where(largest.sum(dim=0) < 0, -1.0, 1.0)
    scale = variances[-channels:].flip(0).sqrt()
    kernel = largest.T.reshape(channels, 3, side, side)

    encode, decode = autoencoder.encoder_shortcut, autoencoder.decoder_shortcut
    assert encode.bias is not None
    assert decode.bias is not None
    for layer in (encode, autoencoder.encoder.conv_out, autoencoder.decoder.conv_out):
        nn.init.zeros_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    encode.weight[:channels] = kernel / scale[:, None, None, None]
    encode.bias[:channels] = -torch.einsum("kcij,c->k", kernel, mean) / scale
    encode.bias[channels:] = FIRST_LOG_VARIANCE
    decode.weight.copy_(kernel * scale[:, None, None, None])
    decode.bias.copy_(mean)
    for layer in (autoencoder.quant_conv, autoencoder.post_quant_conv):
        layer.weight.copy_(torch.eye(len(layer.weight))[:, :, None, None])
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def normalise_latents(autoencoder: Autoencoder, images: Tensor) -> None:
    """Give every latent channel of the images mean 0 and variance 1; decoding stays the same."""
    posteriors = [autoencoder.encode(some) for some in images.split(TOGETHER)]
    latents = torch.cat([posterior.mean for posterior in posteriors])
    variance = torch.cat([posterior.std.square() for posterior in posteriors])
    mean = latents.mean(dim=(0, 2, 3))
    std = (latents.var(dim=(0, 2, 3)) + variance.mean(dim=(0, 2, 3))).sqrt()
    channels = len(mean)
    out, back = autoencoder.quant_conv, autoencoder.post_quant_conv
    assert out.bias is not None
    assert back.bias is not None
    out.weight[:channels] /= std[:, None, None, None]
    out.bias[:channels] = (out.bias[:channels] - mean) / std
    out.bias[channels:] -= 2 * std.log()  # of the logarithm of the variance
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= std[None, :, None, None]


class AutoencoderTraining:
    """An autoencoder, its optimizer, and the position in the data: what a resumed run needs."""

    def __init__(self, config: AutoencoderTrainConfig, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.autoencoder = Autoencoder(config.model).to(device)
        self.optimizer = torch.optim.Adam(self.autoencoder.parameters(), betas=(0.9, 0.99))
        self.step = 0

    def advance(self, batch: TrainingBatch) -> dict[str, float]:
        """Make one step."""
        config = self.config.step
        images = sample_images(batch, config.views, self.seed, self.step).to(self.device)
        if self.step == 0 and self.config.model.shortcut:
            pca_init(self.autoencoder, images)
        posterior = self.autoencoder.encode(images)
        generator = torch.Generator().manual_seed(self.seed + self.step)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
        decoded = self.autoencoder.decode(posterior.sample(noise))
        error, divergence = losses(posterior, images, decoded)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config)
        self.optimizer.zero_grad()
        (error + config.kl_weight * divergence).backward()
        torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        squared = ((decoded.detach() - images) / 2).square().mean().item()
        if not math.isfinite(squared):
            raise FloatingPointError(
                f"the training broke down at step {self.step}; try a smaller step.learning_rate"
            )
        return {
            "error": error.item(),
            "divergence": divergence.item(),
            "psnr": -10 * math.log10(max(squared, 1e-12)),
        }

    def state(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return all of it as tensors and plain values."""
        return {
            "autoencoder": self.autoencoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seed": self.seed,
            "model": asdict(self.config.model),
            "data": data,
        }

    def load_state(self, path: Path) -> dict[str, Any]:
        """Go back to a checkpoint; returns the position in the data.

        Raises:
            ValueError: it is damaged, or of another seed or model; names the file.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            own = state["seed"] == self.seed and state["model"] == asdict(self.config.model)
            if own:
                self.autoencoder.load_state_dict(state["autoencoder"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.step, data = state["step"], state["data"]
        except Exception as error:  # what damaged files raise has no common base
            raise ValueError(f"{path}: no checkpoint of such a training, or damaged") from error
        if not own:
            raise ValueError(f"{path}: is of another seed, or of an autoencoder of other sizes")
        return data


def _endless(loader: TrainingLoader) -> Iterator[TrainingBatch]:
    while True:
        yield from loader


def train_autoencoder(
    config: AutoencoderTrainConfig, folder: Path, seed: int, resume: bool, device: torch.device
) -> int:
    """Train, and write `autoencoder.ckpt`, from which the model's training starts.

    Args:
        config: all settings.
        folder: of `last.ckpt`, `steps.jsonl` and the result.
        seed: of all random numbers.
        resume: go on from `last.ckpt` if it is there.
        device: where to compute.

    Returns:
        number of the signal that ended it early, else 0.

    Raises:
        FileExistsError: there is a checkpoint, and this is not to go on from it.
        FileNotFoundError, ValueError, OSError, FloatingPointError: naming what is wrong.
    """
    last = folder / LAST
    if last.exists() and not resume:
        raise FileExistsError(f"{last}: is of a former training; go on from it with --resume")
    training = AutoencoderTraining(config, seed, device)
    loader = make_loader(
        open_dataset(config.data.source), config.data, config.num_views, config.image_size, seed
    )
    folder.mkdir(parents=True, exist_ok=True)
    if last.exists():
        loader.load_state_dict(training.load_state(last))
    report_file = open_metrics_file(folder / "steps.jsonl", training.step)
    with stop_on_signals() as stop, report_file as report:
        train_loop(training, loader, folder, report, stop)
    if training.step >= config.step.max_steps:
        save_result(training, next(_endless(loader)), folder / RESULT)
    return stop.signal or 0


def train_loop(
    training: AutoencoderTraining, loader: TrainingLoader, folder: Path, report: Any, stop: Any
) -> None:
    """Make the steps that are left, with reports and checkpoints between them."""
    config = training.config.step
    batches, reported, since = _endless(loader), training.step, time.monotonic()
    bar = tqdm(total=config.max_steps, initial=training.step, disable=not sys.stderr.isatty())
    for step in range(training.step + 1, config.max_steps + 1):
        values = training.advance(next(batches))
        bar.update()
        ends = step == config.max_steps or stop.signal is not None  # asked once: then it is saved
        if ends or step % config.report_every == 0:
            now = time.monotonic()
            pace = (now - since) / (step - reported)
            reported, since = step, now
            report.write(json.dumps({"step": step, **values, "seconds": pace}) + "\n")
            report.flush()
            log.info("step %d of %d: PSNR %.1f dB, KL %.2f, %.2f s a step", step,
                     config.max_steps, values["psnr"], values["divergence"], pace)  # fmt: skip
        if ends or step % config.save_every == 0:
            with atomic_write(folder / LAST) as path:
                torch.save(training.state(loader.state_dict()), path)
        if ends:
            break
    bar.close()


def save_result(training: AutoencoderTraining, batch: TrainingBatch, path: Path) -> None:
    """Write the autoencoder with its latents normalised, by its names in the whole model."""
    autoencoder = training.autoencoder
    images = sample_images(batch, training.config.num_views + 1, training.seed, training.step)
    normalise_latents(autoencoder, images.to(training.device))
    state = {f"{PREFIX}{name}": value.cpu() for name, value in autoencoder.state_dict().items()}
    with atomic_write(path) as temporary:
        torch.save({"state_dict": state}, temporary)
    log.info("wrote %s", path)
