"""Render a coarse visual hull of an object, textured by its views, in tenths of a second.

It tells whether views are consistent, or the elevation of an image; it is not meant for display.
Shape letters: N views, S pixels a side, V lattice points a side, P points, D samples a ray. Pixel
coordinates start at the image's edge: the centre of the first pixel is at 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import OBJECT_HALF_SIDE, PIXEL_CENTRE, Cameras
from multiview.segmentation import segment_white
from multiview.visual_hull import cell_centres, silhouette_distance

SAMPLES_PER_RAY = 56
"""Along a ray through the lattice."""
OCCLUSION_MARGIN = 0.05
"""World units: points deeper than a view's depth map by more are hidden from that view."""
ANGLE_FALLOFF = 20.0
"""Falloff k of a view's blending weight exp(k (cos a - 1)), a the angle between its ray and the
rendered ray: the exponent is -1.2 at 20 degrees."""
NUM_SOURCE_VIEWS = 5
"""Number of views, those with the nearest viewing directions, that colour a rendered view."""
MIN_SLOPE = 1e-6
"""Smallest ray direction component and nearest depth; avoids division by zero."""
HIDDEN_WEIGHT = 1e-5
"""Visibility weight of views that do not see a point; colours points that no view sees."""


@dataclass(frozen=True)
class LowResViews:
    """Downsampled views, with their cameras for S x S images.

    Colours on white, (N, 3, S, S), and soft masks, (N, S, S), are float32 in [0, 1].
    """

    colours: Tensor
    masks: Tensor
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def size(self) -> int:
        """Pixels a side (S)."""
        return self.masks.shape[-1]

    def subset(self, numbers: Sequence[int]) -> LowResViews:
        """Select views by their numbers."""
        index, of = list(numbers), self.cameras
        cameras = Cameras(
            of.intrinsics[index],
            of.world_to_camera[index],
            of.azimuths[index],
            of.elevations[index],
        )
        return LowResViews(self.colours[index], self.masks[index], cameras)


class RenderedView(NamedTuple):
    """The hull rendered for one camera.

    `alpha` in [0, 1] is soft at the silhouette, (S, S); `depth` is the camera-z of the surface,
    infinite where there is none, (S, S); `colours` are on white, in [0, 1], (3, S, S).
    """

    alpha: Tensor
    depth: Tensor
    colours: Tensor


@dataclass(frozen=True)
class TexturedHull:
    """A visual hull as signed distances `field`, world units, (V, V, V), textured by views."""

    views: LowResViews
    field: Tensor

    @cached_property
    def _depths(self) -> dict[int, Tensor]:
        return {}

    def depth(self, k: int) -> Tensor:
        """Depth map (camera-z) of the hull in view k, (S, S)."""
        if k not in self._depths:
            cameras = self.views.cameras
            self._depths[k] = raycast_sdf(
                self.field, cameras.intrinsics[k], cameras.world_to_camera[k], self.views.size
            )[1]
        return self._depths[k]

    def render(self, intrinsics: np.ndarray, pose: np.ndarray, size: int) -> RenderedView:
        """Render the hull, coloured by the views with the nearest directions, see `raycast_sdf`."""
        facing = self.views.cameras.world_to_camera[:, 2, :3] @ pose[2, :3]
        near = [int(k) for k in np.argsort(-facing, kind="stable")[:NUM_SOURCE_VIEWS]]
        alpha, depth = raycast_sdf(self.field, intrinsics, pose, size)
        sources = self.views.subset(near)
        return blend_views(alpha, depth, intrinsics, pose, sources, [self.depth(k) for k in near])


def downsample_views(images: np.ndarray, cameras: Cameras, size: int) -> LowResViews:
    """Downsample views to at most `size` pixels a side and find the object in them.

    Images are on white, uint8 or float in [0, 1], (N, H, H, 3). ValueError if a view has no object.
    """
    side = images.shape[1]
    scaled = images.astype(np.float32) / 255 if images.dtype == np.uint8 else images
    masks = np.stack([segment_white(view) for view in scaled])
    colours = torch.from_numpy(np.ascontiguousarray(scaled, np.float32)).movedim(-1, 1)
    alpha = torch.from_numpy(np.ascontiguousarray(masks, np.float32))
    if size < side:
        colours = F.interpolate(colours, (size, size), mode="area")
        alpha = F.interpolate(alpha[:, None], (size, size), mode="area")[:, 0]
        cameras = cameras.scaled(size / side)
    empty = [str(k) for k, mask in enumerate(alpha) if not (mask >= 0.5).any()]
    if empty:
        raise ValueError(f"there is no object in the views {', '.join(empty)}")
    return LowResViews(colours, alpha, cameras)


def silhouette_distances(views: LowResViews, resolution: int) -> Tensor:
    """Signed distance of lattice points to each view's silhouette cone.

    The visual hull of a subset of the views is where the maximum of their distances is negative.
    World units, negative inside, indexed x, y, z, (N, V, V, V) float32, with V = `resolution`.
    """
    centres = torch.from_numpy(cell_centres(resolution)).float()
    x, y, z = centres[:, None, None], centres[:, None], centres
    distances = torch.empty(len(views), resolution, resolution, resolution)
    matrices = views.cameras.intrinsics @ views.cameras.world_to_camera
    for k, mask in enumerate(views.masks):
        column, row, depth = (float(a) * x + float(b) * y + (float(c) * z + float(d))
                              for a, b, c, d in matrices[k])  # fmt: skip
        places = torch.stack([column / depth, row / depth], dim=-1) * (2 / views.size) - 1
        outline = torch.from_numpy(_soft_distance(mask.numpy()))
        grid = places.reshape(1, resolution, -1, 2)
        found = F.grid_sample(outline[None, None], grid, padding_mode="border", align_corners=False)
        focal = float(views.cameras.intrinsics[k, 0, 0])
        distances[k] = found.reshape(depth.shape) * depth / focal
    return distances


def _soft_distance(mask: np.ndarray) -> np.ndarray:
    """Signed distance to a soft mask's outline, pixels, (S, S); subpixel from alpha."""
    solid = mask >= 0.5
    if solid.all():
        return np.full(mask.shape, -float(len(mask)), np.float32)
    distance = silhouette_distance(solid)
    near = np.abs(distance) <= 0.5
    return np.where(near, 0.5 - mask, distance).astype(np.float32)


def raycast_sdf(
    field: Tensor, intrinsics: np.ndarray, pose: np.ndarray, size: int
) -> tuple[Tensor, Tensor]:
    """Ray cast the zero level of a signed distance lattice (V, V, V), in world units, for a camera.

    Args:
        field: the lattice.
        intrinsics: (3, 3), for S x S images.
        pose: world-to-camera `[R | t]`, (3, 4).
        size: S.

    Returns:
        alpha in [0, 1] and camera-z of the surface (infinite where there is none), (S, S) each.
    """
    middle = torch.arange(size) + PIXEL_CENTRE
    focal, centre = float(intrinsics[0, 0]), float(intrinsics[0, 2])
    right = (middle - centre) / focal
    rotation = torch.from_numpy(pose[:, :3]).float()
    origin = -rotation.T @ torch.from_numpy(pose[:, 3]).float()
    rays = torch.stack(
        [right.expand(size, size), right[:, None].expand(size, size), torch.ones(size, size)], -1
    )
    directions = (rays @ rotation).reshape(-1, 3)
    alpha, depth = torch.zeros(size * size), torch.full((size * size,), torch.inf)
    crossing = _rays_through_box(field, origin, directions)
    if crossing is None:
        return alpha.reshape(size, size), depth.reshape(size, size)
    chosen, nearest, farthest = crossing
    depths = torch.linspace(nearest, farthest, SAMPLES_PER_RAY)

    points = origin + depths[:, None, None] * directions[chosen]  # (D, P, 3)
    values = _sample_field(field, points)
    lowest = values.min(dim=0)
    pixel = depths[lowest.indices] / focal
    alpha[chosen] = (0.5 - lowest.values / pixel).clamp(0, 1)
    solid = values < 0.5 * pixel
    first = solid.int().argmax(dim=0)
    before = (first - 1).clamp_min(0)
    here = values.gather(0, first[None])[0]
    there = values.gather(0, before[None])[0]
    share = (there / (there - here).clamp_min(1e-6)).clamp(0, 1)
    surface = torch.where(
        first > 0, depths[before] + share * (depths[first] - depths[before]), depths[first]
    )
    depth[chosen] = torch.where(solid.any(dim=0), surface, torch.inf)
    return alpha.reshape(size, size), depth.reshape(size, size)


def _rays_through_box(
    field: Tensor, origin: Tensor, directions: Tensor
) -> tuple[Tensor, float, float] | None:
    """Indices of the rays that hit the shape's bounding box, their nearest and farthest depth.

    Rays from `origin`, (3,), have directions scaled to depth 1, (P, 3); None without a hit.
    """
    inside = (field < 2 * 2 * OBJECT_HALF_SIDE / len(field)).nonzero()
    if not len(inside):
        return None
    centres = torch.from_numpy(cell_centres(len(field))).float()
    slope = torch.where(directions.abs() > MIN_SLOPE, directions, MIN_SLOPE)
    first = (centres[inside.amin(dim=0)] - origin) / slope
    second = (centres[inside.amax(dim=0)] - origin) / slope
    enter = torch.minimum(first, second).amax(dim=1).clamp_min(MIN_SLOPE)
    leave = torch.maximum(first, second).amin(dim=1)
    chosen = (enter < leave).nonzero()[:, 0]
    return (chosen, float(enter[chosen].min()), float(leave[chosen].max())) if len(chosen) else None


def _sample_field(field: Tensor, points: Tensor) -> Tensor:
    """Trilinear samples of a lattice (V, V, V) at points (D, P, 3), border values outside."""
    # grid_sample takes z, y, x of a field indexed x, y, z
    places = points.flip(-1) / OBJECT_HALF_SIDE
    return F.grid_sample(
        field[None, None], places[None, None], padding_mode="border", align_corners=False
    )[0, 0, 0]


def blend_views(
    alpha: Tensor,
    depth: Tensor,
    intrinsics: np.ndarray,
    pose: np.ndarray,
    views: LowResViews,
    depths: Sequence[Tensor],
) -> RenderedView:
    """Colour a rendered depth map of the hull, see `raycast_sdf`, by blending views.

    `depths` are depth maps of the hull in these views.
    """
    size = len(alpha)
    colours = torch.ones(3, size, size)
    rows, columns = torch.isfinite(depth).nonzero(as_tuple=True)
    if not len(rows):
        return RenderedView(alpha, depth, colours)
    focal, centre = float(intrinsics[0, 0]), float(intrinsics[0, 2])
    z = depth[rows, columns]
    x = (columns + PIXEL_CENTRE - centre) / focal * z
    y = (rows + PIXEL_CENTRE - centre) / focal * z
    rotation, shift = torch.from_numpy(pose[:, :3]).float(), torch.from_numpy(pose[:, 3]).float()
    points = (torch.stack([x, y, z], dim=-1) - shift) @ rotation
    ray = F.normalize(points + rotation.T @ shift, dim=-1)

    total, weights = torch.zeros(len(points), 3), torch.zeros(len(points))
    for k, hull_depth in enumerate(depths):
        colour, weight = _sample_view(views, k, points, ray, hull_depth)
        total += colour * weight[:, None]
        weights += weight
    blended = total / weights.clamp_min(1e-12)[:, None]
    colours[:, rows, columns] = blended.T * alpha[rows, columns] + 1 - alpha[rows, columns]
    return RenderedView(alpha, depth, colours)


def _sample_view(
    views: LowResViews, k: int, points: Tensor, ray: Tensor, hull_depth: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours (P, 3) of view k at points (P, 3), and their blending weights, (P,)."""
    pose = torch.from_numpy(views.cameras.world_to_camera[k]).float()
    matrix = torch.from_numpy(views.cameras.intrinsics[k]).float()
    in_camera = points @ pose[:, :3].T + pose[:, 3]
    pixels = in_camera @ matrix.T
    places = pixels[:, :2] / pixels[:, 2:]
    layers = torch.cat([views.colours[k], views.masks[k][None]])
    normalised = (places / views.size * 2 - 1)[None, None]
    found = F.grid_sample(layers[None], normalised, padding_mode="border", align_corners=False)
    colour, alpha = found[0, :3, 0].T, found[0, 3, 0]
    column, row = places.long().clamp(0, views.size - 1).unbind(dim=-1)
    visible = in_camera[:, 2] < hull_depth[row, column] + OCCLUSION_MARGIN
    own = F.normalize(in_camera, dim=-1) @ pose[:, :3]
    angular = (ANGLE_FALLOFF * ((own * ray).sum(dim=-1) - 1)).exp()
    weight = angular * alpha.square() * torch.where(visible, 1.0, HIDDEN_WEIGHT)
    return colour, weight + 1e-12
