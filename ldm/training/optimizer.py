"""Trainable parameters, learning rates and the EMA of the weights (paper Sec. 4.1, appendix)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.model import SyncDreamer
from ldm.networks.attention import ImageTokenAttention, TransformerBlock

WARMUP_START = 0.02
"""Learning rate at the beginning of the warm-up, relative to the peak; as published."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rates."""

    learning_rate: float = 5e-5  # of the UNet's layers
    volume_factor: float = 10.0  # ratio to it for the volume networks and their time embedding
    finetune_unet: bool = False  # train the whole UNet instead of its depth attention only
    finetune_projection: bool = False  # train the projection of the image token
    warmup_steps: int = 100
    decay_steps: int = 0  # length of the linear decay to 0 at the end; 0 (the paper): none
    weight_decay: float = 0.01
    gradient_clip: float = 0.0  # maximum norm of all gradients together; 0 does not clip
    accumulate: int = 1  # batches per optimizer step
    ema_decay: float = 0.0  # of the weights' moving average, which checkpoints have; 0: none

    def __post_init__(self) -> None:
        for name in ("learning_rate", "volume_factor", "accumulate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optimizer.{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_steps", "decay_steps", "weight_decay", "gradient_clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"optimizer.{name} must not be negative: {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"optimizer.ema_decay must be from 0 to below 1, got {self.ema_decay}")


def warmup_multiplier(step: int, config: OptimizerConfig) -> float:
    """Linear warm-up factor of the learning rate after `step` steps, then 1."""
    if step >= config.warmup_steps:
        return 1.0
    return WARMUP_START + (1.0 - WARMUP_START) * step / config.warmup_steps


def lr_multiplier(step: int, config: OptimizerConfig, max_steps: int) -> float:
    """Factor of the peak learning rate after `step` of `max_steps` steps: warm-up and decay."""
    remaining = max(max_steps - step, 0)
    decay = min(1.0, remaining / config.decay_steps) if config.decay_steps else 1.0
    return warmup_multiplier(step, config) * decay


def peak_lr(group: str, config: OptimizerConfig) -> float:
    """Learning rate of a parameter group after the warm-up."""
    return (config.volume_factor if group == "volumes" else 1.0) * config.learning_rate


def _ineffective_parameters(unet: nn.Module) -> set[Tensor]:
    """Weights that cannot change the UNet's output: queries and keys of attention to one token."""
    found: set[Tensor] = set()
    for module in unet.modules():
        if isinstance(module, TransformerBlock):
            found.update(module.norm2.parameters())
        elif isinstance(module, ImageTokenAttention):
            found.update((*module.to_q.parameters(), *module.to_k.parameters()))
    return found


def trainable_parameter_groups(model: SyncDreamer, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Freeze what is not trained; group the rest for AdamW by `name`, `params` and peak `lr`."""
    model.requires_grad_(False)
    unet = model.unet
    groups = {
        "depth attention": [unet.middle_conditions, unet.output_conditions],
        "volumes": [model.time_embed, model.spatial_volume],
    }
    if config.finetune_unet:
        groups["unet"] = [unet]
    if config.finetune_projection:
        groups["projection"] = [model.cc_projection]
    taken = _ineffective_parameters(unet)
    result = []
    for name, modules in groups.items():
        parameters = [p for module in modules for p in module.parameters() if p not in taken]
        taken.update(parameters)
        for parameter in parameters:
            parameter.requires_grad_(True)
        result.append({"name": name, "params": parameters, "lr": peak_lr(name, config)})
    return result


class EMA:
    """Exponential moving average of the trainable parameters, in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in _trainable(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the averages with the model's parameters, after an optimizer step."""
        for name, parameter in _trainable(model).items():
            mean = self.weights[name].to(parameter.device)
            self.weights[name] = mean.lerp_(parameter.detach(), 1.0 - self.decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Context manager that puts the averaged weights into the model."""
        parameters = _trainable(model)
        original = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = self.weights[name].to(parameter.device)
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = original[name]


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
