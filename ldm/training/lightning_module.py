"""The model as Lightning trains it: one step, the optimizer, what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from ldm.data.loader import TrainingLoader, make_loader
from ldm.data.samples import ObjectDataset, TrainingBatch
from ldm.depth_attention import DepthTransformer
from ldm.model import SyncDreamer
from ldm.networks.attention import SpatialTransformer
from ldm.networks.unet import Block, ResBlock
from ldm.networks.volume_nets import VolumeBlock
from ldm.spatial_volume import ViewGeometry
from ldm.training.config import TrainConfig
from ldm.training.latent_cache import LatentCache
from ldm.training.loss import Encoded, draw_samples, encode_batch, view_losses
from ldm.training.metrics import LossByTimestep, StepTimer
from ldm.training.optimizer import EMA, lr_multiplier, peak_lr, trainable_parameter_groups

EXTRA = "syncdreamer_training"
"""Of a checkpoint: what goes on in a resumed run beside Lightning's own entries."""

Item = tuple[TrainingBatch, dict[str, Any]]
"""A batch, and the position in the data behind it."""


class InfiniteLoader:
    """Epoch after epoch, each batch with the position behind it."""

    def __init__(self, loader: TrainingLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Item]:
        """Yield batches for ever."""
        while True:
            for batch in self.loader:
                yield batch, self.loader.state_dict()


def enable_gradient_checkpointing(model: SyncDreamer) -> None:
    """Let the networks' blocks keep no activations but compute them again."""
    kinds = (ResBlock, SpatialTransformer, DepthTransformer, VolumeBlock)
    for network in (model.unet, model.spatial_volume):
        for module in network.modules():
            if isinstance(module, kinds):
                forward = partial(recompute, module.forward, use_reentrant=False)
                module.forward = forward  # type: ignore[method-assign]


class SyncDreamerTraining(L.LightningModule):
    """A thin wrapper; the names of its tensors are the model's, without a prefix."""

    network: SyncDreamer

    def __init__(
        self, network: SyncDreamer, config: TrainConfig, seed: int, source: ObjectDataset
    ) -> None:
        super().__init__()
        self.__dict__["network"] = network  # no child: the tensors' names would get a prefix
        # The two share their tables of tensors, so that checkpoints have the published names.
        self._modules, self._buffers = network._modules, network._buffers
        self.config, self.seed, self.source = config, seed, source
        self.groups = trainable_parameter_groups(network, config.optimizer)
        self.samples_seen = 0
        self.data_state: dict[str, Any] | None = None
        decay = config.optimizer.ema_decay
        self.ema = EMA(network, decay) if decay else None
        self.encode: Callable[[SyncDreamer, TrainingBatch], Encoded] = encode_batch
        if config.run.gradient_checkpointing:
            enable_gradient_checkpointing(network)
        self.geometry: ViewGeometry | None = None
        self.timer = StepTimer(torch.device("cpu"))
        self.losses_by_timestep = LossByTimestep(1, torch.device("cpu"))

    def configure_model(self) -> None:
        """Share out what is trained between the GPUs (FSDP2), and compile the networks."""
        network = self.network
        if self.config.run.strategy == "fsdp" and not hasattr(network.unet, "unshard"):
            assert self.device_mesh is not None
            apply_fsdp(network, self.device_mesh["data_parallel"])
        if self.config.run.compile:
            volume = network.spatial_volume
            for part in (
                network.unet,
                volume.target_encoder,
                volume.spatial_volume_feats,
                volume.frustum_volume_feats,
            ):
                part.compile()

    def train(self, mode: bool = True) -> SyncDreamerTraining:
        """Set the mode; the frozen encoders stay as they are for inference."""
        super().train(mode)
        self.network.first_stage_model.eval()
        self.network.clip_image_encoder.eval()
        return self

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up."""
        config = self.config.optimizer
        if self.config.run.strategy == "fsdp":  # its parameters are new ones
            self.groups = trainable_parameter_groups(self.network, config)
        optimizer = torch.optim.AdamW(self.groups, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_multiplier(step, config, self.config.run.max_steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def train_dataloader(self) -> InfiniteLoader:
        """Build this process's loader, where the checkpoint left it."""
        model = self.config.model
        loader = make_loader(
            self.source, self.config.data, model.cameras.num_views, model.cameras.image_size,
            self.seed, self.global_rank, self.trainer.world_size, self.device.type == "cuda",
        )  # fmt: skip
        if self.data_state is not None:
            loader.load_state_dict(self.data_state)
        return InfiniteLoader(loader)

    def on_train_start(self) -> None:
        """Prepare what the steps share, on the device, now that a checkpoint has been read."""
        self._take_rates()
        self.network.forget_precomputed()
        self.geometry = self.network.view_geometry()
        if self.config.run.cache:
            self.encode = LatentCache(Path(self.config.run.cache), self.network).encode
        self.timer = StepTimer(self.device)
        self.losses_by_timestep = LossByTimestep(self.config.model.schedule.timesteps, self.device)

    def _take_rates(self) -> None:
        """Let the configuration's rates and weight decay win over those of a checkpoint."""
        config, schedule = self.config.optimizer, self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        groups = schedule.optimizer.param_groups
        schedule.base_lrs = [peak_lr(group["name"], config) for group in groups]
        part = lr_multiplier(schedule.last_epoch, config, self.config.run.max_steps)
        for group, full in zip(groups, schedule.base_lrs, strict=True):
            group["initial_lr"] = full
            group["lr"] = full * part
            group["weight_decay"] = config.weight_decay

    def training_step(self, item: Item) -> Tensor:
        """Return the loss of this process's part of a batch."""
        batch, state = item
        assert self.geometry is not None
        config, count = self.config, len(batch)
        first = self.samples_seen + self.global_rank * count
        draws = draw_samples(
            self.seed,
            range(first, first + count),
            config.model.latent_shape,
            config.model.schedule.timesteps,
            config.step,
        ).to(self.device)
        self.timer.mark("data")
        encoded = self.encode(self.network, batch)
        self.timer.mark("encoders")
        losses = view_losses(
            self.network, encoded, batch.input_elevations, draws, config.step, self.geometry,
            self.timer.mark,
        )  # fmt: skip
        self.losses_by_timestep.add(draws.timesteps, losses)
        self.samples_seen += count * self.trainer.world_size
        self.data_state = state
        return losses.mean()

    def on_after_backward(self) -> None:
        """Count the rest of the backward pass, the volumes'."""
        self.timer.mark("volume")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs; put the averaged weights in the place of the trained."""
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
        """Go back to where a checkpoint was written."""
        extra = checkpoint[EXTRA]
        self.samples_seen, self.data_state = extra["samples_seen"], extra["data"]
        state = checkpoint.get("state_dict", {})  # with FSDP the weights are loaded already
        if self.ema is not None:
            names = self.ema.weights
            self.ema.weights = {name: state[name].clone() for name in names}
        checkpoint["state_dict"] = {**state, **extra["trained"]}


def apply_fsdp(network: SyncDreamer, mesh: Any) -> None:
    """Keep a part of what is trained on each GPU; the frozen encoders stay whole on all."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for module in [*network.unet.modules(), *network.spatial_volume.modules()]:
        if isinstance(module, (Block, DepthTransformer, VolumeBlock)):
            fully_shard(module, mesh=mesh)
        if isinstance(module, DepthTransformer):
            register_fsdp_forward_method(module, "null_residual")
    roots: list[nn.Module] = [network.time_embed, network.cc_projection, network.spatial_volume]
    for root in [*roots, network.unet]:
        fully_shard(root, mesh=mesh)
    for name in ("build", "view_frustums"):
        register_fsdp_forward_method(network.spatial_volume, name)
