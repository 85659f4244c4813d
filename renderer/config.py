"""The root of the configuration files of `train_renderer.py`, and the three presets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from common.config import check_positive, load_config
from multiview.segmentation import Backend
from renderer.methods.nerf import NeRFConfig
from renderer.methods.neus_grid import GridNeuSConfig
from renderer.methods.neus_mlp import MLPNeuSConfig

log = logging.getLogger(__name__)

Kind = Literal["grid", "mlp", "nerf"]
Preset = Literal["fast", "default", "best"]

PRESETS: dict[Kind, dict[Preset, tuple[str, ...]]] = {
    "grid": {
        "fast": (
            "grid.resolution=64",
            "grid.levels=[16,32,64]",
            "grid.level_steps=[0,25,50]",
            "grid.steps=150",
        ),
        "default": (),
        "best": (
            "grid.resolution=128",
            "grid.levels=[32,64,128]",
            "grid.steps=500",
            "grid.smoothness=0.01",
        ),
    },
    "mlp": {
        "fast": (
            "mlp.steps=1000",
            "mlp.learning_rate.interval=500",
            "mlp.rays=1536",
            "mlp.resolution=256",
        ),
        "default": (),
        "best": ("mlp.steps=6000", "mlp.learning_rate.interval=3000"),
    },
    "nerf": {
        "fast": ("nerf.steps=800",),
        "default": (),
        "best": ("nerf.steps=5000",),
    },
}
"""What a preset changes of each kind's defaults; the file's values give way to it."""

NO_EFFECT_ON_RESULTS = ("log_every", "save_every")


class Section(Protocol):
    """What the configurations of all kinds have."""

    @property
    def rays(self) -> int:
        """Rays of a training step, which decide how much memory it needs."""

    @property
    def pixel_offset(self) -> float:
        """Where in a pixel its ray goes through, see `renderer.rays.pixel_rays`."""


@dataclass(frozen=True)
class RendererConfig:
    """One reconstruction.

    Attributes:
        kind: `grid` is the fast method, `mlp` the published NeuS, `nerf` a radiance field.
        use_mask: find the object in each view and use its outline.
        segmenter: what finds it where the views have no alpha; `white` is for views on white.
        repair_masks: replace masks that contradict most of the others.
        grid: of this kind; sections of kinds that are not chosen have no effect.
        mlp: of this kind.
        nerf: of this kind.
        log_every: steps between pictures.
        save_every: seconds between checkpoints.
    """

    kind: Kind = "grid"
    use_mask: bool = True
    segmenter: Backend = "white"
    repair_masks: bool = True
    grid: GridNeuSConfig = field(default_factory=GridNeuSConfig)
    mlp: MLPNeuSConfig = field(default_factory=MLPNeuSConfig)
    nerf: NeRFConfig = field(default_factory=NeRFConfig)
    log_every: int = 250
    save_every: float = 60.0

    def __post_init__(self) -> None:
        check_positive(self)

    @property
    def section(self) -> Section:
        """The configuration of the kind that is chosen."""
        match self.kind:
            case "mlp":
                return self.mlp
            case "nerf":
                return self.nerf
            case "grid":
                return self.grid

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as plain values: what a checkpoint must agree with."""
        sections = set(PRESETS) - {self.kind}
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in sections and key not in NO_EFFECT_ON_RESULTS
        }


def load_renderer_config(
    path: Path, preset: Preset = "default", overrides: Sequence[str] = (), half: bool = False
) -> RendererConfig:
    """Read a configuration file; a preset goes before it, and `key=value` before the preset.

    Args:
        path: YAML file.
        preset: of the kind that the file, or an override, chooses.
        overrides: dotted keys, e.g. "mlp.steps=500".
        half: turn on half precision.

    Raises:
        FileNotFoundError, ValueError: see `load_config`.
    """
    kind = load_config(RendererConfig, path, overrides).kind
    changes = [*PRESETS[kind][preset], *overrides]
    if half and kind == "grid":
        log.warning("half precision has no effect on kind grid, which has no networks")
    elif half:
        changes.append(f"{kind}.half=true")
    return load_config(RendererConfig, path, changes)
