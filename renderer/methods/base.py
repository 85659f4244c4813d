"""Interface of the three reconstruction methods, and the data that they share.

The methods are a fast grid of signed distances (`neus_grid`), the published networks of NeuS
(`neus_mlp`), and a radiance field (`nerf`). Shape letters: R rays.
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
    """The views of one object.

    Attributes:
        images: on white, in [0, 1], (N, S, S, 3) float32.
        masks: the object's opacity in [0, 1], (N, S, S) float32; None where masks are not used.
        cameras: N, for S x S images.
        replaced: numbers of the views whose masks were bad and are replaced by the hull of the
            other views; their images may be wrong too.
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
        """Return the views whose masks were not replaced; only these are used for colour."""
        kept = np.setdiff1d(np.arange(len(self.images)), self.replaced)
        if len(kept) == len(self.images):
            return self
        cameras = Cameras(*(getattr(self.cameras, item.name)[kept] for item in fields(Cameras)))
        masks = None if self.masks is None else self.masks[kept]
        return Views(self.images[kept], masks, cameras)


@dataclass(frozen=True)
class Rays:
    """R rays with the colours and masks of their pixels.

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
        """Return the rays with the given numbers, (R,) int64."""
        masks = None if self.masks is None else self.masks[index]
        return Rays(self.origins[index], self.directions[index], self.colors[index], masks)


def all_rays(views: Views, pixel_offset: float, device: torch.device) -> Rays:
    """Cast a ray through every pixel of every view, view by view, row by row, float32.

    For `pixel_offset` see `pixel_rays`.
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
    """Losses of a training step.

    Attributes:
        loss: scalar with its graph.
        squared_error: mean squared error of the colours, for the PSNR; detached scalar.
        terms: of the loss, detached scalars.
    """

    loss: Tensor
    squared_error: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RenderedRays:
    """Colour, opacity and normal of R rays.

    Attributes:
        color: in front of white, in [0, 1], (R, 3).
        opacity: in [0, 1], (R,).
        normal: weighted with the opacity, world axes, (R, 3).
    """

    color: Tensor
    opacity: Tensor
    normal: Tensor

    @classmethod
    def cat(cls, parts: Sequence[RenderedRays]) -> RenderedRays:
        """Concatenate the results of several chunks of rays."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Sequence[torch.nn.Parameter]
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class SDFGrid:
    """Signed distances on a regular grid.

    Attributes:
        sdf: negative inside, indexed x, y, z, (V, V, V) float32.
        first: coordinate of index 0, the same on all axes.
        spacing: between neighbouring samples.
    """

    sdf: np.ndarray
    first: float
    spacing: float


class Method(Protocol):
    """A reconstruction method; the classes are also `torch.nn.Module`s.

    All that training changes is in the `state_dict` of the module, in that of the optimizer and in
    the state of the generator; a run resumes from these three bit by bit. Shapes of parameters and
    buffers never change. What depends on the views and the configuration alone is computed in the
    constructor and not saved.
    """

    num_steps: int
    """Training steps of a whole run."""
    pixel_offset: float
    """Position of a pixel's ray in the pixel, see `renderer.rays.pixel_rays`."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """Parameters for the optimizer (Adam)."""

    def learning_rates(self, step: int) -> list[float]:
        """Learning rate of each group at a step, counted from 0."""

    def training_step(self, step: int, generator: torch.Generator) -> StepResult:
        """Render a batch of rays and compare it with the views.

        All random numbers come from `generator`, which is on the CPU whatever the device.
        """

    def after_step(self, step: int) -> None:
        """Update what follows the optimizer's step, for example the occupancy grid."""

    def render(self, origins: Tensor, directions: Tensor) -> RenderedRays:
        """Render any number of rays without gradients."""

    def shape(self) -> SDFGrid:
        """Sample the signed distance, or a level-set function scaled to lengths, for the mesh."""
