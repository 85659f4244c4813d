"""Training on one or several GPUs, with resuming.

Lightning runs the steps and handles processes, precision and the optimizer's state. Its loggers,
checkpoints, EMA and progress bar are off: `ldm.training.callbacks` also saves at the step of a
signal, and drops metrics after the checkpoint that a run resumes from.
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
from omegaconf import OmegaConf

from common.files import atomic_write, file_lock
from common.optional import import_optional
from ldm.checkpoint.files import (
    AGAIN,
    choose_weights,
    describe_state_dict,
    detect_format,
    load_torch_file,
    read_state_dict,
    save_atomically,
)
from ldm.checkpoint.initialise import FIRST_LAYER, init_model, load_pretrained
from ldm.data.folder import read_validation_set
from ldm.data.loader import open_dataset
from ldm.model import SyncDreamer
from ldm.training.callbacks import LAST, TrainingCallback
from ldm.training.config import REQUIREMENTS, TrainConfig, TrainOptions
from ldm.training.lightning_module import EXTRA, SyncDreamerTraining
from ldm.training.loss import Loss, diffusion_loss

log = logging.getLogger(__name__)

PROCESS_TIMEOUT = timedelta(hours=2)
"""Processes wait so long for each other, for example while checkpoints are written."""
FIXED_SETTINGS = ("optimizer.finetune_unet", "optimizer.finetune_projection", "run.strategy")
"""Settings that determine for which tensors, and by which names, the optimizer has a state."""
ENTRIES = {"seed", "config", "samples_seen", "data", "trained", "optimizer_states", "loops"}
"""Of a checkpoint and its part `EXTRA`, which resuming needs."""
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
        file_format = detect_format(path)
        if file_format == "safetensors":
            content: Any = read_state_dict(path)
        else:
            content = load_torch_file(path, mapped=file_format == "zip")
    except (ValueError, OSError) as error:
        kept = sorted(path.parent.glob("step=*.ckpt"))
        advice = f"; to go on from {kept[-1].name}, copy it to {path.name}" if kept else ""
        raise ResumeError(f"{str(error).removesuffix(AGAIN)}{advice}") from error
    extra = content.get(EXTRA) if isinstance(content, Mapping) else None
    if not isinstance(extra, Mapping) or not {*content, *extra} >= ENTRIES:
        kind = describe_state_dict(choose_weights(content)[0])
        raise ResumeError(
            f"{path}: holds no state of a training of this project to go on from; it looks like "
            f"{kind}, which --finetune_from can start a new training from"
        )
    if extra["seed"] != seed:
        raise ResumeError(f"{path}: was trained with seed {extra['seed']}, not {seed}")
    check_same_training(path, extra["config"], asdict(config))


def check_same_training(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise ResumeError for changed settings that must not change; warn of other changes.

    Settings that are new since the checkpoint had their present defaults; old ones are ignored.
    """
    old = fill_defaults(old, asdict(TrainConfig()))
    if old["model"] != new["model"]:
        raise ResumeError(f"{path}: the sizes of its model differ from those of the configuration")
    for setting in FIXED_SETTINGS:
        section, key = setting.split(".")
        if old[section][key] != new[section][key]:
            raise ResumeError(
                f"{path}: was trained with {setting} = {old[section][key]}, which cannot change to "
                f"{new[section][key]}"
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


def make_trainer(config: TrainConfig, options: TrainOptions, callbacks: list[Any]) -> L.Trainer:
    """Build Lightning's trainer, without its loggers, checkpoints and progress bars."""
    on_gpu, precision = options.device == "cuda", config.run.precision
    if precision == "auto":
        bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    processes = len(options.gpus) if on_gpu else config.run.cpu_processes
    strategy: Strategy | str = "auto"
    if config.run.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            data_parallel_size=processes * options.num_nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=PROCESS_TIMEOUT,
        )
    elif processes * options.num_nodes > 1:
        strategy = DDPStrategy(timeout=PROCESS_TIMEOUT)
    return L.Trainer(
        accelerator="gpu" if on_gpu else options.device,
        devices=list(options.gpus) if on_gpu else processes,
        num_nodes=options.num_nodes,
        strategy=strategy,
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

    Folders, data and files are checked before the model is built. FileExistsError if the folder has
    checkpoints and `options.resume` is false, ResumeError if the one to resume does not allow it.
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
            stack.enter_context(file_lock(folder / "training", wait=False, patience=LOCK_TIMEOUT))
            for partial in folder.glob(".*.tmp.ckpt"):  # from a process killed while writing
                partial.unlink()
        if options.resume:
            check_resumable(folder / LAST, config, options.seed)
        dataset = open_dataset(config.data.source)
        folder_of_images, size = config.data.validation, config.model.cameras.image_size
        images = read_validation_set(Path(folder_of_images), size) if folder_of_images else []
        log.info("%d objects, %d validation images", len(dataset.uids), len(images))
        network = init_network(config, options, model_class)
        module = SyncDreamerTraining(network, config, options.seed, dataset, loss)
        for group in module.groups:
            count = sum(parameter.numel() for parameter in group["params"])
            message = "trained: %s, %d tensors, %.1f M values, learning rate %g"
            log.info(message, group["name"], len(group["params"]), count / 1e6, group["lr"])
        if main_process:
            settings = OmegaConf.to_yaml(OmegaConf.structured(config))
            log_folder = options.logdir / options.name
            log_folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(log_folder / "config.yaml") as path:
                path.write_text(settings, encoding="utf-8")
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
        log.warning("the UNet has random weights, and optimizer.finetune_unet trains few of them")
    return network


def is_first_process() -> bool:
    """Whether this process has rank 0."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def silence_lightning() -> None:
    """Turn off Lightning's info messages and warnings, and logging by ranks above 0."""
    for name in ("", ".pytorch", ".fabric", ".pytorch.utilities"):
        logging.getLogger(f"lightning{name}").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    if not is_first_process():
        logging.getLogger("ldm").setLevel(logging.WARNING)
