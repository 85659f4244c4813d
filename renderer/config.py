"""Configuration of a reconstruction, and its three presets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.config import check_positive, load_config
from multiview.segmentation import Backend
from renderer.methods.nerf import NeRFConfig
from renderer.methods.neus_grid import GridNeuSConfig
from renderer.methods.neus_mlp import MLPNeuSConfig

log = logging.getLogger(__name__)

Kind = Literal["grid", "mlp", "nerf"]
Preset = Literal["fast", "default", "best"]

_FAST_GRID = "grid.resolution=64 grid.steps=150 faces=10000"
_BEST_GRID = "grid.resolution=128 grid.steps=500 grid.smoothness=0.02"
_FAST_MLP = "mlp.steps=1000 mlp.learning_rate.interval=500 mlp.rays=1536 mlp.resolution=256"
_BEST_MLP = "mlp.steps=6000 mlp.learning_rate.interval=3000"
PRESETS: dict[Kind, dict[Preset, list[str]]] = {
    "grid": {"fast": _FAST_GRID.split(), "default": [], "best": _BEST_GRID.split()},
    "mlp": {"fast": _FAST_MLP.split(), "default": [], "best": _BEST_MLP.split()},
    "nerf": {"fast": ["nerf.steps=800"], "default": [], "best": ["nerf.steps=5000"]},
}
"""What each preset changes of each kind's defaults; presets take precedence over the file."""

NO_EFFECT_ON_RESULTS = ("log_every", "save_every")
_IMAGE_LIMITS = {"texture_size": (64, 8192), "film_size": (16, 2160)}
"""Lowest and highest numbers of pixels a side."""
_OF_EXPORT = {"faces", *_IMAGE_LIMITS}
"""Settings that have no effect on the training."""


@dataclass(frozen=True)
class RendererConfig:
    """Settings of a reconstruction.

    Attributes:
        kind: `grid` is the fast method, `mlp` the published NeuS, `nerf` a radiance field.
        use_mask: segment the object in each view, and use the masks.
        segmenter: for views without alpha; `white` is for views on white.
        repair_masks: replace masks that contradict most others.
        grid, mlp, nerf: settings of this kind; those of the other kinds have no effect.
        faces: most triangles of the textured mesh.
        texture_size: pixels a side of the textured mesh's texture.
        film_size: pixels a side of the film; a radiance field's is as large as the views.
        log_every: steps between preview images.
        save_every: seconds between checkpoints.
    """

    kind: Kind = "grid"
    use_mask: bool = True
    segmenter: Backend = "white"
    repair_masks: bool = True
    grid: GridNeuSConfig = field(default_factory=GridNeuSConfig)
    mlp: MLPNeuSConfig = field(default_factory=MLPNeuSConfig)
    nerf: NeRFConfig = field(default_factory=NeRFConfig)
    faces: int = 30_000
    texture_size: int = 1024
    film_size: int = 512
    log_every: int = 250
    save_every: float = 60.0

    def __post_init__(self) -> None:
        check_positive(self)
        if not self.save_every > 0:
            raise ValueError(f"RendererConfig.save_every must be positive, got {self.save_every}")
        for name, (low, high) in _IMAGE_LIMITS.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ValueError(f"{name} must be from {low} to {high} pixels, got {value}")

    @property
    def section(self) -> GridNeuSConfig | MLPNeuSConfig | NeRFConfig:
        """The settings of the chosen kind."""
        section: GridNeuSConfig | MLPNeuSConfig | NeRFConfig = getattr(self, self.kind)
        return section

    def settings(self) -> dict[str, Any]:
        """Return all that the result depends on, as plain values."""
        without = {*PRESETS, *NO_EFFECT_ON_RESULTS} - {self.kind}
        return {key: value for key, value in asdict(self).items() if key not in without}

    def training_settings(self) -> dict[str, Any]:
        """Return those `settings` that the training depends on; resuming requires the same."""
        return {k: value for k, value in self.settings().items() if k not in _OF_EXPORT}


def load_renderer_config(
    path: Path, preset: Preset = "default", overrides: Sequence[str] = (), half: bool = False
) -> RendererConfig:
    """Read a YAML file, changed by the preset of its kind, and then by `key=value` overrides.

    Keys are dotted, e.g. "mlp.steps=500"; for errors see `load_config`.
    """
    kind = load_config(RendererConfig, path, overrides).kind
    changes = [*PRESETS[kind][preset], *overrides]
    if half and kind == "grid":
        log.warning("half precision has no effect on kind grid, which has no networks")
    elif half:
        changes.append(f"{kind}.half=true")
    return load_config(RendererConfig, path, changes)
