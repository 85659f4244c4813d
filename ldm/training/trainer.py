"""Training on one or several GPUs: reports, pictures, checkpoints, resuming (Lightning).

Lightning runs the steps and knows about processes, precision and the states of optimizers; all
else is in this file and those beside it, of which only the three `ldm.training.trainer*` import it.
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

log = logging.getLogger(__name__)

WAIT = timedelta(hours=2)
"""That processes wait for one another, for example while checkpoints are written."""


FIXED = (
    ("optimizer", "finetune_unet"), ("optimizer", "finetune_projection"), ("run", "strategy"),
)  # fmt: skip
"""Settings that say for which tensors, and by which names, the optimizer has a state."""

LOCK_PATIENCE = 15.0
"""Seconds that the lock is waited for: decoding processes of a killed training live on for five."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints are written whole or not at all, and read without running anything in them."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: Any,
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Write a checkpoint."""
        save_atomically(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        return torch.load(path, map_location="cpu", weights_only=True)


def check_resumable(path: Path, config: TrainConfig, seed: int) -> None:
    """See that a checkpoint is of this training.

    Raises:
        FileNotFoundError, ValueError: there is none, it is damaged, or of another model or seed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what damaged files raise has no common base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: the checkpoint is damaged ({reason})") from error
    extra = content.get(EXTRA) if isinstance(content, Mapping) else None
    if extra is None:
        raise ValueError(f"{path}: not a checkpoint of a training that can go on")
    if extra["seed"] != seed:
        raise ValueError(f"{path}: was trained with seed {extra['seed']}, --seed is {seed}")
    check_same_training(path, extra["config"], asdict(config))


def check_same_training(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse what a resumed training cannot change of its settings; say what it does change.

    Settings that were not there yet when the checkpoint was written had their present defaults.
    """
    then = fill_defaults(then, asdict(TrainConfig()))
    if then["model"] != now["model"]:
        raise ValueError(f"{path}: the sizes of its model are not those of the configuration")
    for part, key in FIXED:
        was, wanted = then[part][key], now[part][key]
        if was != wanted:
            raise ValueError(
                f"{path}: was trained with {part}.{key} = {was}, and cannot go on with {wanted}; "
                f"start anew from it: --finetune_from {path} and another --ckptdir and --logdir"
            )
    for part in now:
        for key, value in now[part].items():
            if then.get(part, {}).get(key) != value:
                log.warning("resumed with %s.%s = %s, it was %s",
                            part, key, value, then.get(part, {}).get(key))  # fmt: skip


def fill_defaults(recorded: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Fill in what is not recorded, in nested settings too."""
    both = {
        name: fill_defaults(value, defaults[name])
        for name, value in recorded.items()
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
    }
    return {**defaults, **recorded, **both}


def resolve_precision(config: TrainConfig, device: str) -> Any:
    """Return Lightning's name of the precision; "auto" is bf16 where the GPU computes in it."""
    if config.run.precision != "auto":
        return config.run.precision
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if bf16 else "32-true"


def make_strategy(config: TrainConfig, options: TrainOptions) -> Strategy | str:
    """Return how the processes share the work; one alone needs nothing."""
    local = len(options.gpus) if options.device == "cuda" else config.run.cpu_processes
    if config.run.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=local * options.num_nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            timeout=WAIT,
        )
    return "auto" if local * options.num_nodes == 1 else DDPStrategy(timeout=WAIT)


def make_trainer(config: TrainConfig, options: TrainOptions, callbacks: list[Any]) -> L.Trainer:
    """Build Lightning's trainer; its own files, bars and checks are off."""
    on_gpu = options.device == "cuda"
    clip = config.optimizer.gradient_clip
    return L.Trainer(
        accelerator="gpu" if on_gpu else options.device,
        devices=list(options.gpus) if on_gpu else config.run.cpu_processes,
        num_nodes=options.num_nodes,
        strategy=make_strategy(config, options),
        precision=resolve_precision(config, options.device),
        max_epochs=-1,
        max_steps=config.run.max_steps,
        accumulate_grad_batches=config.optimizer.accumulate,
        gradient_clip_val=clip or None,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def train(config: TrainConfig, options: TrainOptions, callbacks: Sequence[L.Callback] = ()) -> int:
    """Train until `max_steps`, or until a signal asks for an end.

    What can be wrong with folders, data and files is found before the model is built.

    Returns:
        number of the signal that ended it early, else 0.

    Raises:
        FileExistsError: the folder has checkpoints, and this is not to go on with them.
        FileNotFoundError, ValueError, OSError, FloatingPointError: one line that says what to do.
    """
    silence_lightning()
    import_optional("tensorboard", "The report of a training", REQUIREMENTS)
    folder = options.ckptdir / options.name
    first = is_first_process() and os.environ.get("NODE_RANK", "0") == "0"
    with ExitStack() as stack:
        if first:
            there = sorted(folder.glob("*.ckpt"))
            if there and not options.resume:
                raise FileExistsError(
                    f"{folder}: has checkpoints of a former training ({there[-1].name}); go on "
                    f"with --resume, or choose another --ckptdir and --logdir"
                )
            folder.mkdir(parents=True, exist_ok=True)
            lock = file_lock(folder / "training", wait=False, patience=LOCK_PATIENCE)
            stack.enter_context(lock)
            for left in folder.glob(".*.tmp.ckpt"):  # of a process that was killed while writing
                left.unlink()
        if options.resume:
            check_resumable(folder / LAST, config, options.seed)
        source = open_dataset(config.data.source)
        images: list[ValidationImage] = []
        if config.data.validation:
            size = config.model.cameras.image_size
            images = read_validation_set(Path(config.data.validation), size)
        log.info("%d objects, %d validation images", len(source.uids), len(images))
        network = init_network(config, options)
        module = SyncDreamerTraining(network, config, options.seed, source)
        log_trainable_parameters(module)
        if first:
            write_config(config, options)
        callback = TrainingCallback(config, options, images)
        stack.callback(callback.teardown)  # after a failure Lightning does not call it
        trainer = make_trainer(config, options, [callback, *callbacks])
        resumed = str(folder / LAST) if options.resume else None
        if options.device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 for what is not in bf16
        try:
            trainer.fit(module, ckpt_path=resumed, weights_only=True)
        except SystemExit as end:
            if isinstance(end.__context__, KeyboardInterrupt):  # Lightning makes exit code 1 of it
                raise KeyboardInterrupt from None
            raise
    # Lightning kills the first process, which may be writing, when another ends with a code.
    return (callback.stop.signal or 0) if trainer.local_rank == 0 else 0


def init_network(config: TrainConfig, options: TrainOptions) -> SyncDreamer:
    """Build the model with the weights to start from; a resumed run reads them later."""
    network = init_model(config.model, options.seed)
    if options.resume:
        return network
    if options.finetune_from is None:
        log.warning("no --finetune_from: the UNet starts from random weights")
    report = load_pretrained(network, options.finetune_from, config.run.clip_from)
    for line in report.lines():
        log.info("%s", line)
    if any(name.startswith("first_stage_model.") for name in report.random):
        log.warning("the autoencoder has random weights, which are never trained")
    if FIRST_LAYER in report.random and not config.optimizer.finetune_unet:
        log.warning("the UNet has random weights, most of which are never trained "
                    "(optimizer.finetune_unet)")  # fmt: skip
    return network


def log_trainable_parameters(module: SyncDreamerTraining) -> None:
    """Log what is trained."""
    for group in module.groups:
        count = sum(parameter.numel() for parameter in group["params"])
        log.info("trained: %s, %d tensors, %.1f M values, rate %g",
                 group["name"], len(group["params"]), count / 1e6, group["lr"])  # fmt: skip


def write_config(config: TrainConfig, options: TrainOptions) -> None:
    """Write the resolved configuration beside the reports."""
    from omegaconf import OmegaConf

    folder = options.logdir / options.name
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "config.yaml") as path:
        path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")


def is_first_process() -> bool:
    """Whether this process is not one that another, or a launcher, has started beside the first."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def silence_lightning() -> None:
    """Leave out what Lightning says about itself, and warnings that are not about this project."""
    for name in (
        "lightning",
        "lightning.pytorch",
        "lightning.fabric",
        "lightning.pytorch.utilities",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    if not is_first_process():
        logging.getLogger("ldm").setLevel(logging.WARNING)
