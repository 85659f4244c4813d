"""What a configuration file of `train_syncdreamer.py` may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.config import check_positive
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.data.loader import DataConfig
from ldm.training.loss import StepConfig
from ldm.training.optimizer import OptimizerConfig

REQUIREMENTS = "requirements/train.txt"
"""What training needs on top."""


@dataclass(frozen=True)
class ValidationConfig:
    """Pictures that are made while training, of the images in `data.validation`.

    Attributes:
        every: steps between them; there are none where `data.validation` is empty.
        sampler: how the views are drawn.
        views_at_once: bounds the memory.
    """

    every: int = 1000
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    views_at_once: int = 4

    def __post_init__(self) -> None:
        check_positive(self)


@dataclass(frozen=True)
class RunConfig:
    """How the training runs; nothing here changes what is learned, but for rounding.

    Attributes:
        max_steps: of the optimizer.
        save_every: steps between writing `last.ckpt`.
        keep_every: steps between checkpoints that stay, `step=........ckpt`; a multiple of
            `save_every`.
        report_every: steps between reports; there is one before every checkpoint too.
        precision: "auto" is bf16-mixed on GPUs that compute in bf16, else 32-true.
        strategy: "ddp" keeps the whole model on every GPU, "fsdp" parts of what is trained.
        cpu_processes: where the training is on a CPU.
        gradient_checkpointing: compute activations again in the backward pass: less memory.
        compile: compile the networks; begins slowly.
        clip_from: CLIP's weights: "auto" (the file to start from, else ckpt/ViT-L-14.pt), a file,
            or "random" for tests.
        cache: folder in which to keep what the frozen encoders make of the images, about 1 MB an
            object; empty for none.
    """

    max_steps: int = 80_000
    save_every: int = 1000
    keep_every: int = 10_000
    report_every: int = 50
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    cpu_processes: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    clip_from: str = "auto"
    cache: str = ""

    def __post_init__(self) -> None:
        check_positive(self)
        if self.keep_every % self.save_every:
            raise ValueError(
                f"run.keep_every ({self.keep_every}) must be a multiple of run.save_every "
                f"({self.save_every})"
            )


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training; the defaults are the published ones where there are such."""

    model: SyncDreamerConfig = field(default_factory=SyncDreamerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    step: StepConfig = field(default_factory=StepConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.step.target_views > self.model.cameras.num_views:
            raise ValueError(
                f"step.target_views is {self.step.target_views}, but an object has "
                f"{self.model.cameras.num_views} views"
            )
        if self.run.strategy == "fsdp" and self.optimizer.ema_decay:
            raise ValueError("optimizer.ema_decay is not available with run.strategy=fsdp")
        if self.step.pure_noise and self.model.prediction != "v":
            raise ValueError(
                f"step.pure_noise is {self.step.pure_noise}, but of pure noise a model with "
                f"model.prediction={self.model.prediction} has nothing to learn; v has"
            )


@dataclass(frozen=True)
class TrainOptions:
    """What the command line says beside the configuration.

    Attributes:
        name: of the configuration; the folders inside the next two are called so.
        logdir: reports, pictures and the resolved configuration.
        ckptdir: checkpoints.
        seed: of all random numbers.
        finetune_from: Zero123's checkpoint; None starts from nothing.
        resume: go on from `last.ckpt`.
        gpus: indices on each machine; empty for what `device` says.
        device: "cpu", "mps" or "cuda".
        num_nodes: machines.
    """

    name: str
    logdir: Path
    ckptdir: Path
    seed: int
    finetune_from: Path | None
    resume: bool
    gpus: tuple[int, ...]
    device: str
    num_nodes: int
