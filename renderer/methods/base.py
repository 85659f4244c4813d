"""What every way of reconstruction has in common: what it is given, and what it must answer.

Three follow it: a fast grid of signed distances (`grid_neus`), the published networks of NeuS
(`mlp_neus`), and a radiance field (`nerf`). Shape letters: R rays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from multiview.cameras import Cameras
from renderer.rays import pixel_grid, pixel_rays


@dataclass(frozen=True)
class Views:
    """What one object's reconstruction is made of.

    Attributes:
        images: on white, in [0, 1], (N, S, S, 3) float32.
        masks: the object's opacity in [0, 1], (N, S, S) float32; None where masks are not used.
        cameras: N, for S x S images.
        replaced: numbers of the views whose masks were spoiled. What the others say stands in the
            masks; the images there may show anything.
    """

    images: np.ndarray
    masks: np.ndarray | None
    cameras: Cameras
    replaced: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.images.shape[1]

    def trusted(self) -> Views:
        """Return the views whose masks are their own: those that colours are taken from."""
        kept = np.setdiff1d(np.arange(len(self.images)), self.replaced)
        if len(kept) == len(self.images):
            return self
        cameras = Cameras(*(getattr(self.cameras, item.name)[kept] for item in fields(Cameras)))
        masks = None if self.masks is None else self.masks[kept]
        return Views(self.images[kept], masks, cameras)


@dataclass(frozen=True)
class Rays:
    """R rays and what the views show there.

    Attributes:
        origins: (R, 3).
        directions: unit, (R, 3).
        colors: on white, in [0, 1], (R, 3).
        masks: in [0, 1], (R,); None where masks are not used.
    """

    origins: Tensor
    directions: Tensor
    colors: Tensor
    masks: Tensor | None

    def __len__(self) -> int:
        return len(self.origins)

    def at(self, index: Tensor) -> Rays:
        """Return the rays of a list of numbers, (R,) int64."""
        masks = None if self.masks is None else self.masks[index]
        return Rays(self.origins[index], self.directions[index], self.colors[index], masks)


def all_rays(views: Views, pixel_offset: float, device: torch.device) -> Rays:
    """Make a ray of every pixel of every view, view by view, row by row.

    Args:
        views: N of S x S pixels.
        pixel_offset: see `pixel_rays`.
        device: of the result.

    Returns:
        float32, R = N * S * S.
    """
    intrinsics, poses = (
        torch.from_numpy(array)[:, None]
        for array in (views.cameras.intrinsics, views.cameras.world_to_camera)
    )
    pixels = pixel_grid(views.size, views.size).double()
    origins, directions = pixel_rays(pixels, intrinsics, poses, pixel_offset)

    def flat(values: Tensor, channels: int) -> Tensor:
        return values.reshape(-1, channels).to(device, torch.float32)

    masks = None if views.masks is None else flat(torch.from_numpy(views.masks), 1)[:, 0]
    return Rays(
        flat(origins, 3), flat(directions, 3), flat(torch.from_numpy(views.images), 3), masks
    )


@dataclass(frozen=True)
class StepResult:
    """What one training step says.

    Attributes:
        loss: a scalar with its graph.
        squared_error: mean squared difference of the colours, for the PSNR; a scalar, detached.
        terms: single terms of the loss for the log, detached scalars.
    """

    loss: Tensor
    squared_error: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedRays:
    """What R rays see.

    Attributes:
        color: in front of white, in [0, 1], (R, 3).
        opacity: in [0, 1], (R,).
        normal: weighted with the opacity, world axes, (R, 3).
    """

    color: Tensor
    opacity: Tensor
    normal: Tensor


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Sequence[torch.nn.Parameter]
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class SDFGrid:
    """Signed distances on a lattice.

    Attributes:
        sdf: negative inside, indexed x, y, z, (V, V, V) float32.
        first: the coordinate of index 0 along every axis.
        spacing: between neighbouring samples.
    """

    sdf: np.ndarray
    first: float
    spacing: float


class Method(Protocol):
    """One way to find an object's shape and colours; the classes are `torch.nn.Module`s too.

    All that training changes is in the module's `state_dict` (buffers included), in the optimizer's
    and in the generator's state: with these three a run goes on exactly where it was. Shapes of
    parameters and buffers never change. What follows from the views and the configuration alone is
    made in the constructor and not saved.
    """

    num_steps: int
    """Training steps of a whole run."""
    pixel_offset: float
    """Position of a pixel's ray in the pixel, see `renderer.rays.pixel_rays`."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimizer (Adam) changes."""

    def learning_rates(self, step: int) -> list[float]:
        """Learning rate of each of the groups at a step, counted from 0."""

    def training_step(self, step: int, generator: torch.Generator) -> StepResult:
        """Render a batch of rays and compare it with the views.

        All random numbers come from `generator`, which is a CPU one on every device.
        """

    def after_step(self, step: int) -> None:
        """Do what must follow the optimizer's step: keep to bounds, renew the occupancy grid."""

    def render(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        """Render rays for looking at, without gradients; any R, in chunks of its own."""

    def shape(self) -> SDFGrid:
        """Sample the signed distance for the mesh (or what stands for it, times a length)."""
