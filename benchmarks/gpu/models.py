"""Models for measurements: the configured sizes, with random weights made on the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from common.cli import project_file
from common.config import load_config
from demo.model import choose_model_class
from ldm.checkpoint.load import empty_model, storage_dtype
from ldm.config import model_buffers
from ldm.model import SyncDreamer
from ldm.training.config import TrainConfig

Size = Literal["full size", "small model", "tiny"]
_FILES: dict[Size, str] = {
    "full size": "configs/syncdreamer-train.yaml",
    "small model": "configs/demo-train.yaml",
    "tiny": "configs/tiny.yaml",
}
_TINY = (
    "model.cameras.image_size=64", "model.volume.voxels=8", "model.volume.depth_planes=8",
    "model.unet.res_blocks=1", "model.unet.attention_levels=[2]",
)  # fmt: skip


def read_config(size: Size) -> TrainConfig:
    """Settings of the published model, of the bundled small one, or of a tiny one for tests."""
    changes = _TINY if size == "tiny" else ()
    return load_config(TrainConfig, project_file(Path(_FILES[size])), changes)


def random_model(config: TrainConfig, device: torch.device, dtype: torch.dtype) -> SyncDreamer:
    """Build a model whose activations stay near 1; each call gives the same weights."""
    torch.manual_seed(0)
    model = empty_model(config.model, choose_model_class(config.model))
    state = {name: tensor.to(device) for name, tensor in model_buffers(config.model).items()}
    for name, empty in model.named_parameters():
        kind = storage_dtype(name, dtype)
        if empty.ndim > 1:
            width = max(1, empty[0].numel())
            state[name] = torch.randn(empty.shape, device=device, dtype=kind) / width**0.5
        else:
            fill = float(name.endswith("weight"))
            state[name] = torch.full(empty.shape, fill, device=device, dtype=kind)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Step:
    """One evaluation of the denoiser for all views of B samples, with guidance."""

    views_at_once: int
    samples: int

    def __str__(self) -> str:
        samples = "1 sample" if self.samples == 1 else f"{self.samples} samples"
        return f"step, {samples}, {self.views_at_once} views at once"
