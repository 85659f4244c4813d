"""SyncDreamer as a LightningModule: training step, optimizer, content of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from ldm.data.loader import make_loader, repeat_epochs
from ldm.data.samples import ObjectDataset, TrainingBatch
from ldm.depth_attention import DepthTransformer
from ldm.model import SyncDreamer
from ldm.networks.unet import Block
from ldm.networks.volume_nets import VolumeBlock
from ldm.spatial_volume import ViewGeometry
from ldm.training.config import TrainConfig
from ldm.training.gradient_checkpointing import enable_gradient_checkpointing
from ldm.training.latent_cache import LatentCache
from ldm.training.loss import Loss, diffusion_loss, encode_batch
from ldm.training.metrics import LossByTimestep, StepTimer
from ldm.training.optimizer import EMA, lr_multiplier, peak_lr, trainable_parameter_groups
from ldm.training.random_draws import sample_training_noise

EXTRA = "syncdreamer_training"
"""Entry of a checkpoint with what a resumed run needs besides Lightning's entries."""

Item = tuple[TrainingBatch, dict[str, Any]]
"""A batch, and the loader's state after it.

Lightning prefetches a batch, so the loader is ahead of the training: the state travels with its
batch, and a checkpoint saves that of the batch which was used last.
"""


class SyncDreamerTraining(L.LightningModule):
    """SyncDreamer's training step and optimizer; tensors have the model's names, no prefix."""

    network: SyncDreamer

    def __init__(
        self,
        network: SyncDreamer,
        config: TrainConfig,
        seed: int,
        dataset: ObjectDataset,
        loss: Loss = diffusion_loss,
    ) -> None:
        super().__init__()
        self.loss = loss
        # Checkpoints must have the published names, without a prefix "network.". A hook could not
        # remove it, since FSDP reads a file by this module's names before any hook. So `network` is
        # not registered by __setattr__, and this module shares its tables of children and buffers.
        self.__dict__["network"] = network
        self._modules, self._buffers = network._modules, network._buffers
        self.config, self.seed, self.dataset = config, seed, dataset
        self.groups = trainable_parameter_groups(network, config.optimizer)
        self.samples_seen = 0  # of all processes; numbers the samples' random numbers
        self.data_state: dict[str, Any] | None = None  # after the last batch that was used
        decay = config.optimizer.ema_decay
        self.ema = EMA(network, decay) if decay else None
        self.latent_cache: LatentCache | None = None
        if config.run.gradient_checkpointing:
            enable_gradient_checkpointing(network)
        self.geometry: ViewGeometry | None = None
        self.timer = StepTimer(torch.device("cpu"))
        self.losses_by_timestep = LossByTimestep(1, torch.device("cpu"))

    def configure_model(self) -> None:
        """Apply FSDP and compile the networks, if configured."""
        network = self.network
        if self.config.run.strategy == "fsdp" and not hasattr(network.unet, "unshard"):
            assert self.device_mesh is not None
            apply_fsdp(network, self.device_mesh["data_parallel"])
        if self.config.run.compile:
            network.compile_networks()

    def train(self, mode: bool = True) -> SyncDreamerTraining:
        """Set the mode; the frozen encoders stay in evaluation mode."""
        super().train(mode)
        self.network.first_stage_model.eval()
        self.network.clip_image_encoder.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Build AdamW and its learning rate schedule."""
        config = self.config.optimizer
        if self.config.run.strategy == "fsdp":  # sharding has replaced the parameters
            self.groups = trainable_parameter_groups(self.network, config)
        optimizer = torch.optim.AdamW(self.groups, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_multiplier(step, config, self.config.run.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> Iterator[Item]:
        """Iterate over this process's batches without end, from the position of the checkpoint."""
        config, cameras = self.config, self.config.model.cameras
        on_gpu, hash_images = self.device.type == "cuda", bool(config.run.cache)
        loader = make_loader(
            self.dataset, config.data, cameras.num_views, cameras.image_size, self.seed,
            self.global_rank, self.trainer.world_size, on_gpu, hash_images,
        )  # fmt: skip
        if self.data_state is not None:
            loader.load_state_dict(self.data_state)
        return ((batch, loader.state_dict()) for batch in repeat_epochs(loader))

    def on_train_start(self) -> None:
        """Set up what all steps share, on the device, after a checkpoint was loaded."""
        self._apply_configured_rates()
        self.geometry = self.network.view_geometry()
        if self.config.run.cache:
            self.latent_cache = LatentCache(Path(self.config.run.cache), self.network)
        self.timer = StepTimer(self.device)
        self.losses_by_timestep = LossByTimestep(self.config.model.schedule.timesteps, self.device)

    def _apply_configured_rates(self) -> None:
        """Replace a checkpoint's learning rates and weight decay by the configured ones."""
        config, schedule = self.config.optimizer, self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        groups = schedule.optimizer.param_groups
        schedule.base_lrs = [peak_lr(group["name"], config) for group in groups]
        multiplier = lr_multiplier(schedule.last_epoch, config, self.config.run.max_steps)
        for group, peak in zip(groups, schedule.base_lrs, strict=True):
            group["initial_lr"] = peak
            group["lr"] = peak * multiplier
            group["weight_decay"] = config.weight_decay

    def training_step(self, item: Item) -> Tensor:
        """Return the loss of this process's batch."""
        batch, state = item
        assert self.geometry is not None
        config, count = self.config, len(batch)
        first = self.samples_seen + self.global_rank * count
        shape, timesteps = config.model.latent_shape, config.model.schedule.timesteps
        numbers = range(first, first + count)
        noise = sample_training_noise(self.seed, numbers, shape, timesteps, config.step)
        noise = noise.to(self.device)
        self.timer.mark("data")
        encode = self.latent_cache.encode if self.latent_cache else encode_batch
        encoded = encode(self.network, batch)
        self.timer.mark("encoders")
        with self.timer.active():
            arguments = (encoded, batch.input_elevations, noise, self.geometry)
            losses = self.loss(self.network, *arguments, config.step.drop_conditions)
        self.losses_by_timestep.add(noise.timesteps, losses)
        self.samples_seen += count * self.trainer.world_size
        self.data_state = state
        return losses.mean()

    def on_after_backward(self) -> None:
        """Measure the end of the backward pass, which is that of the volume networks."""
        self.timer.mark("volume")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs; save the EMA as the weights, and the weights beside it."""
        extra = {
            "seed": self.seed,
            "config": asdict(self.config),
            "samples_seen": self.samples_seen,
            "data": self.data_state,
            "trained": {},
        }
        if self.ema is not None:
            state = checkpoint["state_dict"] = dict(checkpoint["state_dict"])
            extra["trained"] = {name: state[name] for name in self.ema.weights}
            state.update(self.ema.weights)
        checkpoint[EXTRA] = extra

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of `on_save_checkpoint`."""
        extra = checkpoint[EXTRA]
        self.samples_seen, self.data_state = extra["samples_seen"], extra["data"]
        state = checkpoint.get("state_dict", {})  # FSDP has loaded the weights already
        if self.ema is not None:
            names = self.ema.weights
            self.ema.weights = {name: state[name].clone() for name in names}
        checkpoint["state_dict"] = {**state, **extra["trained"]}


def apply_fsdp(network: SyncDreamer, mesh: Any) -> None:
    """Shard the trainable modules with FSDP2; the frozen encoders are replicated."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for module in [*network.unet.modules(), *network.spatial_volume.modules()]:
        if isinstance(module, (Block, DepthTransformer, VolumeBlock)):
            fully_shard(module, mesh=mesh)
        if isinstance(module, DepthTransformer):
            register_fsdp_forward_method(module, "null_residual")
    roots: list[nn.Module] = [network.time_embed, network.cc_projection, network.spatial_volume]
    for root in [*roots, network.unet]:
        fully_shard(root, mesh=mesh)
    for name in ("build_spatial_volume", "view_frustums"):
        register_fsdp_forward_method(network.spatial_volume, name)
