"""Training on one or several GPUs, with resuming.

Lightning runs the steps and handles processes, precision and the optimizer's state. What it offers
besides is off, since `ldm.training.callbacks` promises more. ModelCheckpoint has no checkpoint of
the step at which a signal arrived and stores its own state in the file; CSVLogger has no lists
and keeps what a killed run logged after its last checkpoint; WeightAveraging copies the frozen
encoders too, and begins with the weights after the first step; the progress bar has no end without
epochs; profilers do not split a step's backward pass.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only

from common.files import atomic_write, file_lock
from common.optional import import_optional
from ldm.checkpoint.files import save_atomically
from ldm.checkpoint.initialise import FIRST_LAYER, init_model, load_pretrained
from ldm.data.folder import ValidationImage, read_validation_set
from ldm.data.loader import open_dataset
from ldm.model import SyncDreamer
from ldm.training.callbacks import LAST, TrainingCallback
from ldm.training.config import REQUIREMENTS, TrainConfig, TrainOptions
from ldm.training.lightning_module import EXTRA, SyncDreamerTraining
from ldm.training.loss import Loss, diffusion_loss

log = logging.getLogger(__name__)

PROCESS_TIMEOUT = timedelta(hours=2)
"""Processes wait so long for each other, for example while checkpoints are written."""

FIXED_SETTINGS = (
    ("optimizer", "finetune_unet"),
    ("optimizer", "finetune_projection"),
    ("run", "strategy"),
)
"""Settings that determine for which tensors, and by which names, the optimizer has a state."""

LOCK_TIMEOUT = 15.0
"""Seconds to wait for the lock: workers of a killed training hold it for about five."""


class ResumeError(ValueError):
    """A training run cannot be resumed from its checkpoint with these settings."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically and reads them without running code in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *_: Any, **__: Any) -> None:
        """Write a checkpoint completely or not at all."""
        save_atomically(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint's tensors and plain values."""
        return torch.load(path, map_location="cpu", weights_only=True)


def check_resumable(path: Path, config: TrainConfig, seed: int) -> None:
    """Raise ResumeError if a checkpoint is missing, damaged, or of another model or seed."""
    if not path.is_file():
        raise ResumeError(f"{path}: no checkpoint to resume from")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged files raise all kinds of errors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResumeError(f"{path}: the checkpoint is damaged ({reason})") from error
    extra = content.get(EXTRA) if isinstance(content, Mapping) else None
    if extra is None:
        raise ResumeError(f"{path}: not a training checkpoint")
    if extra["seed"] != seed:
        raise ResumeError(f"{path}: was trained with seed {extra['seed']}, not {seed}")
    check_same_training(path, extra["config"], asdict(config))


def check_same_training(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise ResumeError for changed settings that must not change; warn of other changes.

    Settings that did not exist when the checkpoint was written had their present defaults; those
    that no longer exist are ignored.
    """
    old = fill_defaults(old, asdict(TrainConfig()))
    if old["model"] != new["model"]:
        raise ResumeError(f"{path}: the sizes of its model differ from those of the configuration")
    for section, key in FIXED_SETTINGS:
        if old[section][key] != new[section][key]:
            raise ResumeError(
                f"{path}: was trained with {section}.{key} = {old[section][key]}, which cannot "
                f"change to {new[section][key]}"
            )
    for section, settings in new.items():
        for key, value in settings.items():
            before = old.get(section, {}).get(key)
            if before != value:
                log.warning("resumed with %s.%s = %s, it was %s", section, key, value, before)


def fill_defaults(recorded: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Take the present settings from the recorded ones, or their defaults, recursively."""
    return {
        name: fill_defaults(recorded.get(name, {}), default)
        if isinstance(default, dict)
        else recorded.get(name, default)
        for name, default in defaults.items()
    }


def make_strategy(config: TrainConfig, options: TrainOptions) -> Strategy | str:
    """Return Lightning's strategy for one or several processes."""
    local = len(options.gpus) if options.device == "cuda" else config.run.cpu_processes
    if config.run.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=local * options.num_nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=PROCESS_TIMEOUT,
        )
    return "auto" if local * options.num_nodes == 1 else DDPStrategy(timeout=PROCESS_TIMEOUT)


def make_trainer(config: TrainConfig, options: TrainOptions, callbacks: list[Any]) -> L.Trainer:
    """Build Lightning's trainer, without its loggers, checkpoints and progress bars."""
    on_gpu, precision = options.device == "cuda", config.run.precision
    if precision == "auto":
        bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    return L.Trainer(
        accelerator="gpu" if on_gpu else options.device,
        devices=list(options.gpus) if on_gpu else config.run.cpu_processes,
        num_nodes=options.num_nodes,
        strategy=make_strategy(config, options),
        precision=precision,
        max_epochs=-1,
        max_steps=config.run.max_steps,
        accumulate_grad_batches=config.optimizer.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def train(
    config: TrainConfig,
    options: TrainOptions,
    callbacks: Sequence[L.Callback] = (),
    model_class: type[SyncDreamer] = SyncDreamer,
    loss: Loss = diffusion_loss,
) -> int:
    """Train until `max_steps` or a signal; return the signal's number, else 0.

    Folders, data and files are checked before the model is built.

    Raises:
        FileExistsError: the folder has checkpoints and `options.resume` is false.
        ResumeError: `options.resume` is true, but the checkpoint does not allow it.
        FileNotFoundError, ValueError, OSError, FloatingPointError: anything else that is wrong.
    """
    silence_lightning()
    import_optional("tensorboard", "Logging the training", REQUIREMENTS)
    folder = options.ckptdir / options.name
    main_process = is_first_process() and os.environ.get("NODE_RANK", "0") == "0"
    with ExitStack() as stack:
        if main_process:
            existing = sorted(folder.glob("*.ckpt"))
            if existing and not options.resume:
                raise FileExistsError(
                    f"{folder}: has checkpoints of an earlier training ({existing[-1].name})"
                )
            folder.mkdir(parents=True, exist_ok=True)
            lock = file_lock(folder / "training", wait=False, patience=LOCK_TIMEOUT)
            stack.enter_context(lock)
            for partial in folder.glob(".*.tmp.ckpt"):  # from a process killed while writing
                partial.unlink()
        if options.resume:
            check_resumable(folder / LAST, config, options.seed)
        dataset = open_dataset(config.data.source)
        images: list[ValidationImage] = []
        if config.data.validation:
            size = config.model.cameras.image_size
            images = read_validation_set(Path(config.data.validation), size)
        log.info("%d objects, %d validation images", len(dataset.uids), len(images))
        network = init_network(config, options, model_class)
        module = SyncDreamerTraining(network, config, options.seed, dataset, loss)
        log_trainable_parameters(module)
        if main_process:
            write_config(config, options)
        callback = TrainingCallback(config, options, images)
        stack.callback(callback.teardown)  # Lightning does not call it after a failure
        trainer = make_trainer(config, options, [callback, *callbacks])
        resumed = str(folder / LAST) if options.resume else None
        if options.device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32
        try:
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
        except SystemExit as error:
            if isinstance(error.__context__, KeyboardInterrupt):  # Lightning turns it into exit 1
                raise KeyboardInterrupt from None
            raise
    # Lightning kills the first process, which may be writing, if another exits with an error.
    return (callback.stop.signal or 0) if trainer.local_rank == 0 else 0


def init_network(
    config: TrainConfig, options: TrainOptions, model_class: type[SyncDreamer] = SyncDreamer
) -> SyncDreamer:
    """Build the model with its initial weights; a resumed run loads its checkpoint later."""
    network = init_model(config.model, options.seed, model_class)
    if options.resume:
        return network
    if options.finetune_from is None:
        log.warning("no initial checkpoint: the UNet starts from random weights")
    report = load_pretrained(network, options.finetune_from, config.run.clip_from)
    for line in report.lines():
        log.info("%s", line)
    if any(name.startswith("first_stage_model.") for name in report.initialised):
        log.warning("the autoencoder has random weights, which are never trained")
    if FIRST_LAYER in report.initialised and not config.optimizer.finetune_unet:
        log.warning(
            "the UNet has random weights, most of which are never trained (optimizer.finetune_unet)"
        )
    return network


def log_trainable_parameters(module: SyncDreamerTraining) -> None:
    """Log the parameter groups that are trained."""
    for group in module.groups:
        count = sum(parameter.numel() for parameter in group["params"])
        log.info(
            "trained: %s, %d tensors, %.1f M values, learning rate %g",
            *(group["name"], len(group["params"]), count / 1e6, group["lr"]),
        )


def write_config(config: TrainConfig, options: TrainOptions) -> None:
    """Write the resolved configuration beside the metrics."""
    from omegaconf import OmegaConf

    folder = options.logdir / options.name
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "config.yaml") as path:
        path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")


def is_first_process() -> bool:
    """Whether this process has rank 0."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def silence_lightning() -> None:
    """Turn off Lightning's info messages and warnings, and logging by ranks above 0."""
    lightning = "lightning.pytorch"
    for name in ("lightning", lightning, "lightning.fabric", f"{lightning}.utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    if not is_first_process():
        logging.getLogger("ldm").setLevel(logging.WARNING)
