"""Interface of the three reconstruction methods, and the data that they share. R: rays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from multiview.cameras import Cameras
from multiview.visual_hull import silhouette_distance
from renderer.rays import pixel_grid, pixel_rays


@dataclass(frozen=True)
class Views:
    """The N views of one object.

    Attributes:
        images: on white, in [0, 1], (N, S, S, 3) float32.
        masks: opacity in [0, 1], (N, S, S) float32; None where masks are not used.
        cameras: for S x S images; the object is at the origin, its longest side about 1.
        replaced: views whose masks were bad and are replaced by the hull of the others; their
            images may be wrong too.
        to_given: matrix (4, 4) from the renderer's world to that of the given cameras; None where
            they are the same.
    """

    images: np.ndarray
    masks: np.ndarray | None
    cameras: Cameras
    replaced: tuple[int, ...] = ()
    to_given: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.images.shape[1]

    def trusted(self) -> Views:
        """Return the views whose masks were not replaced; only these are used for colour."""
        kept = np.setdiff1d(np.arange(len(self.images)), self.replaced)
        return self if len(kept) == len(self.images) else self.subset(kept)

    def subset(self, numbers: np.ndarray) -> Views:
        """Return the views with the given numbers, (K,) int64."""
        cameras = Cameras(*(getattr(self.cameras, item.name)[numbers] for item in fields(Cameras)))
        masks = None if self.masks is None else self.masks[numbers]
        replaced = tuple(map(int, np.flatnonzero(np.isin(numbers, self.replaced))))
        return Views(self.images[numbers], masks, cameras, replaced, self.to_given)


@dataclass(frozen=True)
class Rays:
    """R rays with the colours (on white) and masks (None if not used) of their pixels.

    Origins, unit directions and colours are (R, 3), masks (R,).
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
    """Cast a ray, see `pixel_rays`, through every pixel, view by view, row by row, float32."""
    cameras = (views.cameras.intrinsics, views.cameras.world_to_camera)
    intrinsics, poses = (torch.from_numpy(array)[:, None] for array in cameras)
    pixels = pixel_grid(views.size, views.size).double()
    origins, directions = pixel_rays(pixels, intrinsics, poses, pixel_offset)

    def flat(values: Tensor, channels: int) -> Tensor:
        return values.reshape(-1, channels).to(device, torch.float32)

    masks = None if views.masks is None else flat(torch.from_numpy(views.masks), 1)[:, 0]
    colors = flat(torch.from_numpy(views.images), 3)
    return Rays(flat(origins, 3), flat(directions, 3), colors, masks)


def near_masks(masks: np.ndarray, pixels: float) -> np.ndarray:
    """Masks (N, S, S) dilated by a number of pixels, counted from their outlines, bool."""
    return np.stack([silhouette_distance(mask >= 0.5) for mask in masks]) <= pixels


@dataclass(frozen=True)
class StepResult:
    """Loss of a training step with its graph; detached squared error of the colours, for PSNR."""

    loss: Tensor
    squared_error: Tensor


@dataclass(frozen=True)
class RenderedRays:
    """Colour on white and opacity in [0, 1], (R, 3) and (R,), of R rays.

    The normals, world axes, (R, 3), are weighted with the opacity.
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
    """Signed distances, negative inside, indexed x, y, z, (V, V, V) float32.

    `first` is the coordinate of index 0 on all axes, `spacing` that between neighbours.
    """

    sdf: np.ndarray
    first: float
    spacing: float


class Method(Protocol):
    """A reconstruction method; the classes are also `torch.nn.Module`s.

    All that training changes is in the `state_dict` of the module, in that of the optimizer and in
    the state of the generator, from which a run resumes bit by bit. Shapes of parameters and
    buffers never change. What depends on views and configuration alone is made in the constructor
    and not saved.
    """

    num_steps: int
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
