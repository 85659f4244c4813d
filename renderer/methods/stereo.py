"""Carve the visual hull where the views agree on a deeper surface (plane-sweep stereo).

Silhouettes say nothing about a concave surface, and the gradient of a rendering loss does not find
it either: the colours of a wrong surface adapt faster than the surface moves. So depths are
searched: for every pixel of every view, a number of depths from the hull inwards are tried, and
the one is taken at which the neighbouring views show the same as the view itself. The depth maps
are then fused to one signed distance (Curless & Levoy 1996), which keeps the hull where nothing
could be matched.

Shape letters: N views on a ring, S pixels a side, D depths, P points, V cells a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import Cameras
from multiview.visual_hull import HALF_SIDE, cell_centres, close_underside, visual_hull
from renderer.mesh import extract, visible
from renderer.rays import PIXEL_CENTRE_OFFSET, pixel_grid

_FAR = 9.0
"""Stands for "no surface", in world units."""
_VARIANCE = 1e-4
"""Added to variances of colours, so that flat areas correlate."""
_LEAST_COSINE = 0.1
_LEAST_TRUNCATION = 3.2
"""Cells; a plateau closer to the surface would look like a fault of the signed distance."""


@dataclass(frozen=True)
class StereoConfig:
    """How depths are searched and fused.

    Attributes:
        image_size: larger views are reduced to this many pixels a side.
        depths: D, how many are tried.
        front: where the search begins, before the hull; world units.
        behind: where it ends, behind the hull; world units.
        radius: pixels; windows of 2 radius + 1 a side are compared.
        neighbours: views that each view is compared with, as steps along the ring.
        best: the mean cost of so many neighbours counts; the others may not see the surface.
        color_weight: how much a difference of the mean colour counts beside the correlation.
        depth_penalty: added to the cost of the deepest; what cannot be matched stays at the hull.
        tolerance: world units; a neighbour confirms a depth if its own is within this.
        confirmations: how many neighbours must confirm a depth.
        truncation: world units, but at least `_LEAST_TRUNCATION` cells; depth maps tell nothing
            about what is further behind them.
        unconfirmed: weight of the hull where nothing is confirmed, against 1 of a confirmed depth.
    """

    image_size: int = 128
    depths: int = 54
    front: float = 0.01
    behind: float = 0.3
    radius: int = 2
    neighbours: tuple[int, ...] = (-2, -1, 1, 2)
    best: int = 2
    color_weight: float = 2.0
    depth_penalty: float = 0.07
    tolerance: float = 0.015
    confirmations: int = 1
    truncation: float = 0.04
    unconfirmed: float = 0.03

    def __post_init__(self) -> None:
        for name in ("image_size", "depths", "radius", "best", "confirmations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 1 <= self.best <= len(self.neighbours):
            raise ValueError(f"best must be from 1 to {len(self.neighbours)}, got {self.best}")


@dataclass(frozen=True)
class CarvedHull:
    """What is known of the shape before any training.

    Attributes:
        hull: signed distance of the visual hull with its underside closed, (V, V, V) float32.
        sdf: of the carved shape, nowhere below `hull`, (V, V, V) float32.
        confirmed: share of the object's pixels whose depth a neighbouring view confirmed.
    """

    hull: np.ndarray
    sdf: np.ndarray
    confirmed: float


def carve_hull(
    images: np.ndarray,
    masks: np.ndarray,
    cameras: Cameras,
    resolution: int,
    config: StereoConfig,
    device: torch.device,
) -> CarvedHull:
    """Find the shape that silhouettes and stereo give together.

    Args:
        images: on white, in [0, 1], (N, S, S, 3).
        masks: in [0, 1], (N, S, S).
        cameras: N on a ring, in order, for S x S images.
        resolution: V, cells a side of the object's cube.
        config: of the search.
        device: where the images are compared.

    Raises:
        ValueError: the masks have no volume in common.
    """
    hull = visual_hull(masks >= 0.5, cameras, resolution)
    if not (hull < 0).any():
        raise ValueError(
            "the masks have no volume in common: no shape has these silhouettes in these views"
        )
    hull = close_underside(hull, cameras)

    views = torch.from_numpy(images).float().movedim(-1, 1).to(device)
    size = min(config.image_size, images.shape[1])
    if size < images.shape[1]:
        views = F.interpolate(views, size=(size, size), mode="area")
    rig = _Rig.of(cameras.scaled(size / images.shape[1]), device)
    hull_depths = torch.from_numpy(depth_maps(hull, cameras, images.shape[1], size)).to(device)
    depths = sweep(views, hull_depths, rig, config)
    confirmed = confirmations(depths, rig, config) >= config.confirmations
    sdf = fuse(depths, hull_depths, confirmed, torch.from_numpy(hull).to(device), rig, config)
    share = confirmed.sum() / torch.isfinite(depths).sum().clamp_min(1)
    return CarvedHull(hull, sdf.cpu().numpy(), float(share))


def depth_maps(sdf: np.ndarray, cameras: Cameras, image_size: int, size: int) -> np.ndarray:
    """Camera-z of a signed distance's surface in the middle of pixels; inf where there is none.

    Args:
        sdf: on the cells of the object's cube, (V, V, V).
        cameras: N, for images of `image_size` pixels a side.
        image_size: see `cameras`.
        size: S, pixels a side of the maps.

    Returns:
        (N, S, S) float32.
    """
    centres = cell_centres(len(sdf))
    mesh = extract(sdf, centres[0], centres[1] - centres[0])
    scaled = cameras.scaled(size / image_size)
    maps = np.full((len(scaled.intrinsics), size * size), np.inf, dtype=np.float32)
    for depth, intrinsics, pose in zip(
        maps, scaled.intrinsics, scaled.world_to_camera, strict=True
    ):
        seen = visible(mesh, intrinsics, pose, size)
        depth[seen.pixels] = seen.depth
    return maps.reshape(-1, size, size)


@dataclass(frozen=True)
class _Rig:
    """Cameras as tensors: intrinsics (N, 3, 3), poses (N, 3, 4)."""

    intrinsics: Tensor
    poses: Tensor

    @classmethod
    def of(cls, cameras: Cameras, device: torch.device) -> _Rig:
        return cls(
            torch.from_numpy(cameras.intrinsics).to(device, torch.float32),
            torch.from_numpy(cameras.world_to_camera).to(device, torch.float32),
        )

    def __len__(self) -> int:
        return len(self.poses)

    def unproject(self, view: int, size: int) -> Tensor:
        """Points of camera space at depth 1 in the middle of all pixels, (S, S, 3)."""
        pixels = pixel_grid(size, size, self.poses.device) + PIXEL_CENTRE_OFFSET
        homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=-1)
        return (homogeneous @ torch.linalg.inv(self.intrinsics[view]).T).reshape(size, size, 3)

    def to_world(self, view: int, in_camera: Tensor) -> Tensor:
        rotation, translation = self.poses[view, :, :3], self.poses[view, :, 3]
        return (in_camera - translation) @ rotation

    def project(self, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., 2) and depth (...) of world points (..., 3)."""
        rotation, translation = self.poses[view, :, :3], self.poses[view, :, 3]
        in_camera = points @ rotation.T + translation
        homogeneous = in_camera @ self.intrinsics[view].T
        return homogeneous[..., :2] / homogeneous[..., 2:], in_camera[..., 2]

    def neighbour(self, view: int, step: int) -> int:
        return (view + step) % len(self)


def sweep(views: Tensor, hull_depths: Tensor, rig: _Rig, config: StereoConfig) -> Tensor:
    """Find the depth of every pixel at which its neighbours agree best.

    Args:
        views: in [0, 1], (N, 3, S, S).
        hull_depths: camera-z, inf where there is no object, (N, S, S).
        rig: of the views.
        config: of the search.

    Returns:
        camera-z, inf where there is no object, (N, S, S).
    """
    offsets = torch.linspace(-config.front, config.behind, config.depths, device=views.device)
    penalty = torch.linspace(0.0, config.depth_penalty, config.depths, device=views.device)
    depths = torch.full_like(hull_depths, torch.inf)
    for view in range(len(views)):
        box = _bounding_box(torch.isfinite(hull_depths[view]), config.radius)
        if box is None:
            continue
        base = hull_depths[view][box].nan_to_num(posinf=_FAR)
        tried = base + offsets[:, None, None]  # (D, H, W)
        rays = rig.unproject(view, views.shape[-1])[box]
        points = rig.to_world(view, rays * tried[..., None])
        patch = views[view][:, box[0], box[1]][None]
        costs = torch.stack(
            [
                _difference(patch, views[other], rig.project(other, points)[0], config)
                for other in (rig.neighbour(view, step) for step in config.neighbours)
            ]
        )
        cost = costs.sort(dim=0).values[: config.best].mean(dim=0) + penalty[:, None, None]
        index, shift = _lowest(cost)
        step = (config.front + config.behind) / max(config.depths - 1, 1)
        found = base - config.front + (index + shift) * step
        depths[view][box] = torch.where(torch.isfinite(hull_depths[view][box]), found, torch.inf)
    return depths


def _bounding_box(occupied: Tensor, margin: int) -> tuple[slice, slice] | None:
    """Rows and columns of what is true in (S, S), with a margin."""
    rows, columns = (occupied.any(dim=axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    if not rows:
        return None
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )


def _window_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over windows of 2 radius + 1 pixels a side, (..., C, H, W)."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(values, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)


def _difference(patch: Tensor, other: Tensor, pixels: Tensor, config: StereoConfig) -> Tensor:
    """Compare windows of a view with what another view shows at each depth.

    The cost is (1 - correlation) / 2 of all channels together (zero mean, normalised), plus the
    mean absolute difference.

    Args:
        patch: of the view, (1, 3, H, W).
        other: the whole other view, (3, S, S).
        pixels: where it shows the points, (D, H, W, 2).
        config: of the windows.

    Returns:
        (D, H, W).
    """
    places = pixels / other.shape[-1] * 2 - 1
    shown = F.grid_sample(
        other.expand(len(pixels), -1, -1, -1), places, padding_mode="border", align_corners=False
    )
    mean, mean_shown = (_window_mean(values, config.radius) for values in (patch, shown))
    variance = _window_mean(patch.square(), config.radius) - mean.square()
    variance_shown = _window_mean(shown.square(), config.radius) - mean_shown.square()
    covariance = _window_mean(patch * shown, config.radius) - mean * mean_shown
    norm = (variance.sum(dim=1) + _VARIANCE) * (variance_shown.sum(dim=1) + _VARIANCE)
    correlation = (covariance.sum(dim=1) + _VARIANCE) / norm.clamp_min(1e-12).sqrt()
    absolute = _window_mean((patch - shown).abs().mean(dim=1, keepdim=True), config.radius)
    return (1 - correlation) / 2 + config.color_weight * absolute[:, 0]


def _lowest(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the lowest cost along the first axis, and its shift by the parabola through three.

    Args:
        cost: (D, H, W).

    Returns:
        index, (H, W) int64, and shift in [-0.5, 0.5], 0 at both ends.
    """
    index = cost.argmin(dim=0)
    if len(cost) < 3:
        return index, torch.zeros_like(cost[0])
    middle = index.clamp(1, len(cost) - 2)
    before, at, after = (cost.gather(0, (middle + step)[None])[0] for step in (-1, 0, 1))
    shift = (before - after) / (2 * (before - 2 * at + after)).clamp_min(1e-6)
    inner = (index > 0) & (index < len(cost) - 1)
    return index, torch.where(inner, shift.clamp(-0.5, 0.5), torch.zeros_like(shift))


def _nearest(maps: Tensor, pixels: Tensor) -> Tensor:
    """Values of (S, S) at the pixels that contain the places (..., 2)."""
    column, row = pixels.long().clamp(0, maps.shape[-1] - 1).unbind(dim=-1)
    return maps[row, column]


def confirmations(depths: Tensor, rig: _Rig, config: StereoConfig) -> Tensor:
    """Count the neighbours that see a surface where a view sees it.

    Args:
        depths: camera-z, inf where there is none, (N, S, S).
        rig: of the views.
        config: neighbours and tolerance.

    Returns:
        int64, (N, S, S).
    """
    counts = torch.zeros(depths.shape, dtype=torch.int64, device=depths.device)
    for view in range(len(depths)):
        there = torch.isfinite(depths[view])
        rays = rig.unproject(view, depths.shape[-1])
        points = rig.to_world(view, (rays * depths[view][..., None])[there])
        for step in config.neighbours:
            other = rig.neighbour(view, step)
            pixels, depth = rig.project(other, points)
            seen = _nearest(depths[other], pixels)
            counts[view, there] += (seen - depth).abs() < config.tolerance
    return counts


def fuse(
    depths: Tensor,
    hull_depths: Tensor,
    confirmed: Tensor,
    hull: Tensor,
    rig: _Rig,
    config: StereoConfig,
) -> Tensor:
    """Fuse depth maps to one signed distance inside the hull.

    Every view gives a point its distance from the surface that it sees there, measured across the
    surface, up to the truncation; the mean of the views, weighted by how squarely they look at
    it, is the fused distance.

    Args:
        depths: of stereo, camera-z, (N, S, S).
        hull_depths: taken where a depth is not confirmed, (N, S, S).
        confirmed: bool, (N, S, S).
        hull: signed distance, (V, V, V).
        rig: of the views.
        config: weights and truncation.

    Returns:
        signed distance, nowhere below the hull's, (V, V, V).
    """
    used = torch.where(confirmed, depths, hull_depths)
    weights = torch.where(confirmed, 1.0, config.unconfirmed)
    spacing = 2 * HALF_SIDE / len(hull)
    truncation = max(config.truncation, _LEAST_TRUNCATION * spacing)
    inner = hull < 2 * spacing
    points = (inner.nonzero() + 0.5) * spacing - HALF_SIDE  # (P, 3)
    total = torch.zeros(len(points), device=hull.device)
    weight = torch.zeros_like(total)
    for view in range(len(used)):
        cosine = _facing(used[view], rig, view)
        pixels, depth = rig.project(view, points)
        squarely = _nearest(cosine, pixels)
        distance = (_nearest(used[view], pixels) - depth) * squarely
        counts = (distance > -truncation) & torch.isfinite(distance)
        share = torch.where(counts, _nearest(weights[view], pixels) * squarely, 0.0)
        total += share * distance.nan_to_num(posinf=0.0).clamp_max(truncation)
        weight += share
    fused = torch.where(weight > 0, total / weight.clamp_min(1e-9), -truncation)
    sdf = hull.clone()
    sdf[inner] = torch.maximum(hull[inner], fused)
    return sdf


def _facing(depth: Tensor, rig: _Rig, view: int) -> Tensor:
    """Cosine between the surface of a depth map and its lines of sight, (S, S).

    Where it is not known, at depth's outline, it is as small as it can be.
    """
    rays = rig.unproject(view, depth.shape[-1])
    points = rays * depth[..., None]
    across, down = torch.zeros_like(points), torch.zeros_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = F.normalize(torch.linalg.cross(down, across), dim=-1)
    cosine = (normals * F.normalize(rays, dim=-1)).sum(dim=-1).abs()
    return cosine.nan_to_num(nan=0.0).clamp_min(_LEAST_COSINE)
