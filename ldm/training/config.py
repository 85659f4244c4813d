"""Configuration of training: the settings of `train_syncdreamer.py`'s files, and its options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.config import check_positive
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.data.loader import DataConfig
from ldm.training.optimizer import OptimizerConfig

REQUIREMENTS = "requirements/train.txt"
"""Lists the additional packages that training needs."""


@dataclass(frozen=True)
class StepConfig:
    """Settings of the training loss."""

    target_views: int = 1  # views of an object whose noise is predicted; the paper has 1
    drop_conditions: bool = False  # of a fifth of the samples, see `condition_dropout`
    timestep_power: float = 0.0  # p of the density t^p of the timesteps; the paper has 0
    # Fraction of samples that are pure noise of a random temperature at the last timestep, like the
    # sampler's first step; not in the paper. The schedule leaves a trace of the object there, on
    # which a model learns to rely (Lin et al. 2024, Sec. 2).
    pure_noise: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self)
        if not 0 <= self.timestep_power < math.inf:
            raise ValueError(f"step.timestep_power must not be below 0, got {self.timestep_power}")
        if not 0 <= self.pure_noise <= 1:
            raise ValueError(f"step.pure_noise must be from 0 to 1, got {self.pure_noise}")


@dataclass(frozen=True)
class ValidationConfig:
    """Validation: views of the images in `data.validation`, generated after `every` steps."""

    every: int = 1000
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    views_at_once: int = 4

    def __post_init__(self) -> None:
        check_positive(self)


@dataclass(frozen=True)
class RunConfig:
    """Steps, files and hardware; only `max_steps` changes results beyond rounding."""

    max_steps: int = 80_000
    save_every: int = 1000  # steps between checkpoints, `last.ckpt`
    keep_every: int = 10_000  # steps between those that are kept; a multiple of `save_every`
    report_every: int = 50  # steps between logged metrics; they precede each checkpoint, too
    # "auto" is bf16-mixed on GPUs with bf16, else 32-true
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    strategy: Literal["ddp", "fsdp"] = "ddp"  # replicate the model, or shard what is trained
    cpu_processes: int = 1  # number of processes when training on a CPU
    gradient_checkpointing: bool = False  # recompute activations, to save memory
    compile: bool = False  # compile the networks; takes minutes at the start
    # CLIP's weights: "auto" (the initial checkpoint, else ckpt/ViT-L-14.pt), a file, or "random"
    clip_from: str = "auto"
    cache: str = ""  # folder for the outputs of the frozen encoders, 1 MB per object; empty: none

    def __post_init__(self) -> None:
        check_positive(self)
        if self.keep_every % self.save_every:
            found = f"run.keep_every ({self.keep_every})"
            raise ValueError(f"{found} must be a multiple of run.save_every ({self.save_every})")


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training run; the published ones by default."""

    model: SyncDreamerConfig = field(default_factory=SyncDreamerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    step: StepConfig = field(default_factory=StepConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        views, found = self.model.cameras.num_views, self.step.target_views
        if found > views:
            raise ValueError(f"step.target_views is {found}, but an object has {views} views")
        if self.run.strategy == "fsdp" and self.optimizer.ema_decay:
            raise ValueError("optimizer.ema_decay is not available with run.strategy=fsdp")
        if self.step.pure_noise and self.model.prediction != "v":
            raise ValueError(
                f"step.pure_noise is {self.step.pure_noise}, which needs model.prediction=v: with "
                f"{self.model.prediction} there is nothing to learn from pure noise"
            )


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training run that are not in its configuration."""

    name: str  # of the run, and of its folders in the next two
    logdir: Path
    ckptdir: Path
    seed: int
    finetune_from: Path | None  # checkpoint of Zero123 or this project; None: random weights
    resume: bool
    gpus: tuple[int, ...]  # indices on each machine; empty unless `device` is "cuda"
    device: str
    num_nodes: int  # number of machines
