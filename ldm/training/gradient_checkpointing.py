"""Gradient checkpointing: less memory in training, for a second forward pass."""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint as recompute

from ldm.depth_attention import DepthTransformer
from ldm.model import SyncDreamer
from ldm.networks.attention import SpatialTransformer
from ldm.networks.unet import ResBlock
from ldm.networks.volume_nets import VolumeBlock


def enable_gradient_checkpointing(model: SyncDreamer) -> None:
    """Recompute the activations of the networks' blocks in the backward pass."""
    blocks = (ResBlock, SpatialTransformer, DepthTransformer, VolumeBlock)
    for network in (model.unet, model.spatial_volume):
        for module in network.modules():
            if isinstance(module, blocks):
                forward = partial(recompute, module.forward, use_reentrant=False)
                module.forward = forward  # type: ignore[method-assign]
