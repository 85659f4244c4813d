"""Plane-sweep stereo: depth maps of the views, and which of their depths are consistent.

For every pixel of every view, depths from the visual hull inwards are tried, and the one is taken
at which the neighbouring views match best. N views, S pixels a side, D depths, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import PIXEL_CENTRE, Cameras
from multiview.projection import project
from renderer.rays import pixel_grid

_NO_SURFACE = 9.0
"""Finite depth that stands for "no surface", world units."""
_VARIANCE_EPSILON = 1e-4
"""Added to variances of colours, so that flat areas correlate."""
IMAGE_SIZE = 128
"""Larger views are reduced to this many pixels a side."""
_DEPTHS = 54
"""D, number of depths to try."""
_FRONT, _BEHIND = 0.01, 0.3
"""Range of the search before and behind the hull, world units."""
_RADIUS = 2
"""Of the compared windows, pixels; they have 2 radius + 1 pixels a side."""
_NEIGHBOURS = 4
"""Most views to compare each view with: on the ring of 16, two on either side."""
_ANGLES = (5.0, 60.0)
"""Degrees between the directions of neighbours: closer ones show no depth, others do not match."""
_BEST = 2
"""Neighbours with the lowest costs whose mean is the cost; others may not see the surface."""
_COLOR_WEIGHT = 4.0
"""Of the mean absolute difference of colours, against 1 of the correlation."""
_DEPTH_PENALTY = 0.04
"""Cost of the deepest depth, less of those before it: pixels without a match stay at the hull."""
_TOLERANCE = 0.015
"""Largest difference of consistent depths in two views, world units."""


@dataclass(frozen=True)
class CameraTensors:
    """Intrinsics (N, 3, 3) and world-to-camera poses (N, 3, 4) as float32 tensors.

    `neighbours` has the numbers of each view's nearest ones, by angle, maybe none.
    """

    intrinsics: Tensor
    poses: Tensor
    neighbours: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, cameras: Cameras, device: torch.device) -> CameraTensors:
        """Copy cameras to a device."""
        arrays = (cameras.intrinsics, cameras.world_to_camera)
        intrinsics, poses = (torch.from_numpy(array).to(device, torch.float32) for array in arrays)
        return cls(intrinsics, poses, _nearest_views(cameras))

    def unproject(self, view: int, size: int) -> Tensor:
        """Points at depth 1 through the centres of all pixels, camera space, (S, S, 3)."""
        pixels = pixel_grid(size, size, self.poses.device) + PIXEL_CENTRE
        homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=-1)
        return (homogeneous @ torch.linalg.inv(self.intrinsics[view]).T).reshape(size, size, 3)

    def to_world(self, view: int, in_camera: Tensor) -> Tensor:
        """World coordinates (..., 3) of points in camera space (..., 3)."""
        rotation, translation = self.poses[view, :, :3], self.poses[view, :, 3]
        return (in_camera - translation) @ rotation

    def project(self, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., 2) and depth (...) of world points (..., 3)."""
        return project(points, self.intrinsics[view], self.poses[view])


def _nearest_views(cameras: Cameras) -> tuple[tuple[int, ...], ...]:
    """The nearest other views of each, as seen from the origin, that `_ANGLES` allows."""
    directions = cameras.directions()
    degrees = np.rad2deg(np.arccos(np.clip(directions @ directions.T, -1, 1)))
    degrees[(degrees < _ANGLES[0]) | (degrees > _ANGLES[1])] = np.inf
    nearest = degrees.argsort(axis=1, kind="stable")[:, :_NEIGHBOURS].tolist()
    pairs = zip(degrees, nearest, strict=True)
    return tuple(tuple(k for k in order if np.isfinite(row[k])) for row, order in pairs)


def plane_sweep(views: Tensor, hull_depths: Tensor, cameras: CameraTensors) -> Tensor:
    """Depth (N, S, S) of every pixel at which the neighbouring views match best, inf off the hull.

    Views are in [0, 1], (N, 3, S, S); depths camera-z, inf where there is no object.
    """
    offsets = torch.linspace(-_FRONT, _BEHIND, _DEPTHS, device=views.device)
    penalty = torch.linspace(0.0, _DEPTH_PENALTY, _DEPTHS, device=views.device)
    depths = torch.full_like(hull_depths, torch.inf)
    for view in range(len(views)):
        box = _bounding_box(torch.isfinite(hull_depths[view]), _RADIUS)
        if box is None or not cameras.neighbours[view]:
            depths[view] = hull_depths[view]
            continue
        base = hull_depths[view][box].nan_to_num(posinf=_NO_SURFACE)
        tried = base + offsets[:, None, None]  # (D, H, W)
        rays = cameras.unproject(view, views.shape[-1])[box]
        points = cameras.to_world(view, rays * tried[..., None])
        patch = views[view][:, box[0], box[1]][None]
        others = cameras.neighbours[view]
        pixels = [cameras.project(other, points)[0] for other in others]
        costs = torch.stack(
            [matching_cost(patch, views[k], at) for k, at in zip(others, pixels, strict=True)]
        )
        cost = costs.sort(dim=0).values[:_BEST].mean(dim=0) + penalty[:, None, None]
        index, shift = _argmin_subpixel(cost)
        step = (_FRONT + _BEHIND) / (_DEPTHS - 1)
        found = base - _FRONT + (index + shift) * step
        depths[view][box] = torch.where(torch.isfinite(hull_depths[view][box]), found, torch.inf)
    return depths


def _bounding_box(occupied: Tensor, margin: int) -> tuple[slice, slice] | None:
    """Bounding box, with a margin, of the true pixels in (S, S): rows and columns."""
    if not occupied.any():
        return None
    places = [occupied.any(dim=axis).nonzero()[:, 0].tolist() for axis in (1, 0)]
    rows, columns = (slice(max(at[0] - margin, 0), at[-1] + margin + 1) for at in places)
    return rows, columns


def _window_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 radius + 1 pixels a side, (..., C, H, W)."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(values, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def matching_cost(patch: Tensor, other: Tensor, pixels: Tensor) -> Tensor:
    """Matching cost (D, H, W) of a view's windows with another view at each depth.

    It is (1 - correlation) / 2 of all channels together (zero mean, normalised), plus the mean
    absolute difference. The patch is (1, 3, H, W), the other view (3, S, S), the pixels in it (D,
    H, W, 2).
    """
    places = pixels / other.shape[-1] * 2 - 1
    shown = F.grid_sample(
        other.expand(len(pixels), -1, -1, -1), places, padding_mode="border", align_corners=False
    )
    mean, mean_shown = (_window_mean(values, _RADIUS) for values in (patch, shown))
    variance = _window_mean(patch.square(), _RADIUS) - mean.square()
    variance_shown = _window_mean(shown.square(), _RADIUS) - mean_shown.square()
    covariance = _window_mean(patch * shown, _RADIUS) - mean * mean_shown
    one, two = (v.sum(dim=1) + _VARIANCE_EPSILON for v in (variance, variance_shown))
    correlation = (covariance.sum(dim=1) + _VARIANCE_EPSILON) / (one * two).clamp_min(1e-12).sqrt()
    absolute = _window_mean((patch - shown).abs().mean(dim=1, keepdim=True), _RADIUS)
    return (1 - correlation) / 2 + _COLOR_WEIGHT * absolute[:, 0]


def _argmin_subpixel(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Index (H, W) of the lowest cost (D, H, W), and the shift of a parabola's minimum from it.

    The shift is in [-0.5, 0.5], 0 at both ends.
    """
    index = cost.argmin(dim=0)
    middle = index.clamp(1, len(cost) - 2)
    before, at, after = (cost.gather(0, (middle + step)[None])[0] for step in (-1, 0, 1))
    shift = (before - after) / (2 * (before - 2 * at + after)).clamp_min(1e-6)
    inner = (index > 0) & (index < len(cost) - 1)
    return index, torch.where(inner, shift.clamp(-0.5, 0.5), torch.zeros_like(shift))


def sample_nearest(maps: Tensor, pixels: Tensor) -> Tensor:
    """Nearest-neighbour values of a map (S, S) at pixel coordinates (..., 2), clamped."""
    column, row = pixels.long().clamp(0, maps.shape[-1] - 1).unbind(dim=-1)
    return maps[row, column]


def geometric_consistency(depths: Tensor, cameras: CameraTensors) -> Tensor:
    """Number of neighbours, int64, whose depth maps (N, S, S), inf for none, agree at a pixel."""
    counts = torch.zeros(depths.shape, dtype=torch.int64, device=depths.device)
    for view in range(len(depths)):
        valid = torch.isfinite(depths[view])
        rays = cameras.unproject(view, depths.shape[-1])
        points = cameras.to_world(view, (rays * depths[view][..., None])[valid])
        for other in cameras.neighbours[view]:
            pixels, depth = cameras.project(other, points)
            seen = sample_nearest(depths[other], pixels)
            counts[view, valid] += (seen - depth).abs() < _TOLERANCE
    return counts
