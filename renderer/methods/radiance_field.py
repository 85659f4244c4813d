"""Radiance field: hash grid, two small networks (Instant-NGP, Sec. 5.4). P points, F features."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import check_positive
from multiview.cameras import OBJECT_HALF_SIDE
from renderer.methods.hash_grid import (
    SPHERICAL_HARMONICS,
    HashGrid,
    HashGridConfig,
    spherical_harmonics,
)

_FEATURES = 15
"""F, outputs of the density network for the colour network (Instant-NGP)."""
DENSITY_SCALE = 10.0
"""The density is this times softplus(network + blob); published."""
_BLOB, _BLOB_RADIUS = 10.0, 0.25
"""Added to the network at the centre; falls linearly, to 0 at this radius in world units."""


@dataclass(frozen=True)
class FieldConfig:
    """Encoding of points, and width of all hidden layers; the defaults are the published ones."""

    grid: HashGridConfig = field(default_factory=HashGridConfig)
    width: int = 64

    def __post_init__(self) -> None:
        check_positive(self)


def _network(inputs: int, width: int, depth: int, outputs: int) -> nn.Sequential:
    """`depth` hidden linear layers with ReLU between them; Instant-NGP has 1 and 2."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class RadianceField(nn.Module):
    """Hash grid, density network and colour network."""

    def __init__(self, config: FieldConfig, half: bool = False) -> None:
        super().__init__()
        self.half_on_cuda = half
        self.encoding = HashGrid(config.grid)
        self.density_network = _network(config.grid.outputs, config.width, 1, 1 + _FEATURES)
        self.color_network = _network(SPHERICAL_HARMONICS + _FEATURES, config.width, 2, 3)

    def _autocast(self, device: torch.device) -> torch.autocast:
        """Half precision if it is turned on: bfloat16, whose gradients need no scaling."""
        enabled = self.half_on_cuda and device.type == "cuda"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)

    def geometry(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the density (P,), features for the colour (P, F) at points (P, 3)."""
        encoded = self.encoding((points + OBJECT_HALF_SIDE) / (2 * OBJECT_HALF_SIDE))
        with self._autocast(points.device):
            out = self.density_network(encoded).float()
        radii = points.norm(dim=-1) / _BLOB_RADIUS
        return out[:, 0] + _BLOB * (1 - radii), out[:, 1:]

    def to_density(self, logits: Tensor) -> Tensor:
        """Density per world unit from its logits."""
        return DENSITY_SCALE * F.softplus(logits)

    def density(self, points: Tensor) -> Tensor:
        """Density per world unit at points (P, 3)."""
        return self.to_density(self.geometry(points)[0])

    def color(self, features: Tensor, directions: Tensor) -> Tensor:
        """Colours in [0, 1], (P, 3), of points seen along unit directions (P, 3)."""
        inputs = torch.cat([spherical_harmonics(directions), features], dim=-1)
        with self._autocast(features.device):
            return torch.sigmoid(self.color_network(inputs).float())
