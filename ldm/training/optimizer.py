"""What is trained, how fast, and a moving average of it (paper Sec. 4.1, appendix)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.model import SyncDreamer
from ldm.networks.attention import ImageTokenAttention, TransformerBlock


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning rates.

    Attributes:
        learning_rate: of the UNet's layers.
        volume_factor: times that, for the volume networks and their time embedding.
        finetune_unet: train the whole UNet, not only its depth attention.
        finetune_projection: train the projection of the image token.
        warmup_steps: over which the rates rise on a line.
        warmup_start: where they begin, as a part of the full rates.
        decay_steps: last steps of the training, over which the rates fall on a line to 0; 0 keeps
            them, as the paper does.
        weight_decay: AdamW's.
        gradient_clip: largest norm of all gradients together; 0 does not clip.
        accumulate: batches whose gradients are added up before a step.
        ema_decay: of the moving average of the weights that checkpoints then hold; 0 has none.
    """

    learning_rate: float = 5e-5
    volume_factor: float = 10.0
    finetune_unet: bool = False
    finetune_projection: bool = False
    warmup_steps: int = 100
    warmup_start: float = 0.02
    decay_steps: int = 0
    weight_decay: float = 0.01
    gradient_clip: float = 0.0
    accumulate: int = 1
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "volume_factor", "accumulate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"optimizer.{name} must be above 0, got {getattr(self, name)}")
        for name in (
            "warmup_steps", "warmup_start", "decay_steps", "weight_decay", "gradient_clip",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise ValueError(f"optimizer.{name} must not be negative: {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"optimizer.ema_decay must be from 0 to below 1, got {self.ema_decay}")


def warmup_multiplier(step: int, config: OptimizerConfig) -> float:
    """Part of the full learning rates after `step` steps: a line up to 1, then 1 for ever."""
    if step >= config.warmup_steps:
        return 1.0
    return config.warmup_start + (1.0 - config.warmup_start) * step / config.warmup_steps


def lr_multiplier(step: int, config: OptimizerConfig, max_steps: int) -> float:
    """Part of the full learning rates in the step after `step` steps of `max_steps`."""
    left = max_steps - step
    fall = min(1.0, max(left, 0) / config.decay_steps) if config.decay_steps else 1.0
    return warmup_multiplier(step, config) * fall


def peak_lr(group: str, config: OptimizerConfig) -> float:
    """Learning rate of a group after the warm-up."""
    return (config.volume_factor if group == "volumes" else 1.0) * config.learning_rate


def _without_effect(unet: nn.Module) -> set[Tensor]:
    """Weights that cannot change the UNet's result: queries and keys of a single token."""
    found: set[Tensor] = set()
    for module in unet.modules():
        if isinstance(module, TransformerBlock):
            found.update(module.norm2.parameters())
        elif isinstance(module, ImageTokenAttention):
            found.update((*module.to_q.parameters(), *module.to_k.parameters()))
    return found


def trainable_parameter_groups(model: SyncDreamer, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Freeze the whole model but for what is trained; return that in groups for the optimizer.

    Returns:
        AdamW's groups, with their `name`, `params` and full learning rate `lr`.
    """
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
    taken = _without_effect(unet)
    result = []
    for name, modules in groups.items():
        parameters = [p for module in modules for p in module.parameters() if p not in taken]
        taken.update(parameters)
        for parameter in parameters:
            parameter.requires_grad_(True)
        result.append({"name": name, "params": parameters, "lr": peak_lr(name, config)})
    return result


class EMA:
    """Exponential moving average of the weights that are trained, in float32."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in _trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights of the model, after a step of the optimizer."""
        for name, parameter in _trained(model).items():
            mean = self.weights[name].to(parameter.device)
            self.weights[name] = mean.lerp_(parameter.detach(), 1.0 - self.decay)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights meanwhile."""
        parameters = _trained(model)
        former = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = self.weights[name].to(parameter.device)
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = former[name]


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
