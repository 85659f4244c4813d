"""Initial shape and colours of `neus_grid`: the visual hull, carved by stereo.

Silhouettes do not show a concave surface, nor does the gradient of a rendering loss find it. So
depth maps of plane-sweep stereo (`stereo`) are fused to one signed distance (Curless & Levoy 1996),
which keeps the hull where nothing could be matched. N views, S pixels a side, P points, V cells a
side.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multiview.cameras import OBJECT_HALF_SIDE, Cameras
from multiview.rasterise import rasterise_depths
from multiview.visual_hull import cell_centres, close_underside, visual_hull
from renderer.mesh import extract
from renderer.methods.base import Views
from renderer.methods.hollows import carve_hollow
from renderer.methods.stereo import (
    IMAGE_SIZE,
    CameraTensors,
    geometric_consistency,
    plane_sweep,
    sample_nearest,
)
from renderer.texture import sample_vertex_colors

log = logging.getLogger(__name__)

_TOLERANCES = (0.0, 0.01)
"""Of the hull, world units."""
_FILLED = 0.95
"""Share of the masks' pixels that the hull fills if the views agree."""
_HOLLOW_SIZE = 64
"""Pixels a side at which hollows are compared."""
MASK_SIZE = 256
"""Smaller masks are enlarged to this many pixels a side."""
_MIN_COSINE = 0.1
_WHITE = 0.99
"""Pixels whose channels are all above this are white."""
_COLOR_DISTANCE = 4.0
"""Cells further from the surface have no initial colour."""
CONFIRMATIONS = 1
"""Neighbours that must be consistent with a depth."""
_AGREEING = 0.6
"""Share of the pixels with a consistent depth below which stereo is not used."""
_UNCONFIRMED = 0.03
"""Weight of the hull's depth where a depth is not consistent, against 1."""
_TRUNCATION = 0.04
"""Truncation distance behind a depth map, world units."""
_MIN_TRUNCATION = 3.2
"""Cells; a plateau closer to the surface would look like a fault of the signed distance."""


@dataclass(frozen=True)
class InitialShape:
    """The shape before any training.

    Attributes:
        hull: signed distance of the visual hull with its underside closed and a hollow carved, if
            the views show one, (V, V, V) float32.
        sdf: signed distance of the carved shape, nowhere below `hull`, (V, V, V) float32.
        confirmed: share of the object's pixels with a consistent depth: how well the views agree.
    """

    hull: np.ndarray
    sdf: np.ndarray
    confirmed: float


def estimate_initial_shape(
    images: np.ndarray, masks: np.ndarray, cameras: Cameras, resolution: int, device: torch.device
) -> InitialShape:
    """Estimate the shape from silhouettes and stereo, with V = `resolution` cells a side.

    Images on white, (N, S, S, 3), and masks, (N, S, S), are in [0, 1].

    Raises:
        ValueError: the masks have no volume in common.
    """
    size = min(IMAGE_SIZE, images.shape[1])
    small = cameras.scaled(size / images.shape[1])
    hull, depth_maps = _consistent_hull(masks, cameras, small, size, resolution)

    views = torch.from_numpy(images).float().movedim(-1, 1).to(device)
    if size < images.shape[1]:
        views = F.interpolate(views, size=(size, size), mode="area")
    tensors = CameraTensors.of(small, device)
    hollow = _carve_hollow(hull, views, small, device)
    if hollow is not hull:
        depth_maps = render_depth_maps(hollow, small, size)
    hull_depths = torch.from_numpy(depth_maps).to(device)
    depths = plane_sweep(views, hull_depths, tensors)
    confirmed = geometric_consistency(depths, tensors) >= CONFIRMATIONS
    share = float(confirmed.sum() / torch.isfinite(depths).sum().clamp_min(1))
    log.info("the views agree on the depth of %.2f of their pixels", share)
    sdf = hollow
    if share >= _AGREEING:
        on_device = torch.from_numpy(hollow).to(device)
        sdf = fuse_depth_maps(depths, hull_depths, confirmed, on_device, tensors).cpu().numpy()
    return InitialShape(hollow, sdf, share)


def _carve_hollow(
    hull: np.ndarray, views: Tensor, cameras: Cameras, device: torch.device
) -> np.ndarray:
    """Carve a hollow that small copies of the views show, see `carve_hollow`."""
    size = min(_HOLLOW_SIZE, views.shape[-1])
    small = cameras.scaled(size / views.shape[-1])

    def render(sdf: np.ndarray) -> Tensor:
        return torch.from_numpy(render_depth_maps(sdf, small, size)).to(device)

    images = F.interpolate(views, size=(size, size), mode="area")
    return carve_hollow(hull, images, CameraTensors.of(small, device), render)


def _consistent_hull(
    masks: np.ndarray, cameras: Cameras, small: Cameras, size: int, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Closed hull (V, V, V) that fills the masks, and its depth maps (N, size, size).

    If the views do not agree, the hull lacks parts that all but one of them show. So the smallest
    tolerance is taken with which it fills the masks, see `visual_hull`.

    Raises:
        ValueError: the masks have no volume in common.
    """
    solid, rig = _resize(masks, max(MASK_SIZE, masks.shape[-1]), cameras)
    shown, _ = _resize(masks, size, cameras)
    found: tuple[np.ndarray, np.ndarray] | None = None
    for tolerance in _TOLERANCES:
        hull = visual_hull(solid, rig, resolution, tolerance)
        if (hull < 0).any():
            hull = close_underside(hull, cameras)
            found = hull, render_depth_maps(hull, small, size)
            filled = float((shown & np.isfinite(found[1])).sum() / shown.sum())
            log.info("tolerance of the hull %.3f: it fills %.3f of the masks", tolerance, filled)
            if filled >= _FILLED:
                break
    if found is None:
        raise ValueError(
            "the masks have no volume in common: no shape has these silhouettes in these views"
        )
    return found


def _resize(masks: np.ndarray, size: int, cameras: Cameras) -> tuple[np.ndarray, Cameras]:
    """Masks of size x size pixels, bool, with smooth outlines, and their cameras."""
    soft = torch.from_numpy(np.asarray(masks, dtype=np.float32))[:, None]
    mode = "area" if size < masks.shape[-1] else "bilinear"
    resized = F.interpolate(soft, size=(size, size), mode=mode)[:, 0]
    return (resized >= 0.5).numpy(), cameras.scaled(size / masks.shape[-1])


def render_depth_maps(sdf: np.ndarray, cameras: Cameras, size: int) -> np.ndarray:
    """Depth maps (camera-z, inf off the surface, (N, S, S) float32) of distances (V, V, V).

    The distances are on the cells of the object's cube; the cameras are for S x S images.
    """
    centres = cell_centres(len(sdf))
    mesh = extract(sdf, centres[0], centres[1] - centres[0])
    return rasterise_depths(mesh, cameras, size).astype(np.float32)


def fuse_depth_maps(
    depths: Tensor, hull_depths: Tensor, confirmed: Tensor, hull: Tensor, cameras: CameraTensors
) -> Tensor:
    """Fuse depth maps (N, S, S) to one signed distance, nowhere below the hull's, (V, V, V).

    Each view gives a point the distance to its depth map (the hull's where a depth is not
    confirmed), measured perpendicular to the surface and truncated. The fused distance is the mean
    of the views, weighted with the cosine between surface normal and line of sight.
    """
    used = torch.where(confirmed, depths, hull_depths)
    weights = torch.where(confirmed, 1.0, _UNCONFIRMED)
    spacing = 2 * OBJECT_HALF_SIDE / len(hull)
    truncation = max(_TRUNCATION, _MIN_TRUNCATION * spacing)
    inner = hull < 2 * spacing
    points = (inner.nonzero() + 0.5) * spacing - OBJECT_HALF_SIDE  # (P, 3)
    total = torch.zeros(len(points), device=hull.device)
    weight = torch.zeros_like(total)
    for view in range(len(used)):
        cosines = _surface_cosine(used[view], cameras, view)
        pixels, depth = cameras.project(view, points)
        cosine = sample_nearest(cosines, pixels)
        distance = (sample_nearest(used[view], pixels) - depth) * cosine
        counts = (distance > -truncation) & torch.isfinite(distance)
        share = torch.where(counts, sample_nearest(weights[view], pixels) * cosine, 0.0)
        total += share * distance.nan_to_num(posinf=0.0).clamp_max(truncation)
        weight += share
    fused = torch.where(weight > 0, total / weight.clamp_min(1e-9), -truncation)
    sdf = hull.clone()
    sdf[inner] = torch.maximum(hull[inner], fused)
    return sdf


def _surface_cosine(depth: Tensor, cameras: CameraTensors, view: int) -> Tensor:
    """Cosine (S, S), at least 0.1, of a depth map's normals, unknown at the outline, and sight."""
    rays = cameras.unproject(view, depth.shape[-1])
    points = rays * depth[..., None]
    across, down = torch.zeros_like(points), torch.zeros_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normals = F.normalize(torch.linalg.cross(down, across), dim=-1)
    cosine = (normals * F.normalize(rays, dim=-1)).sum(dim=-1).abs()
    return cosine.nan_to_num(nan=0.0).clamp_min(_MIN_COSINE)


def initial_distances(
    views: Views, resolution: int, slack: float, device: torch.device
) -> tuple[Tensor, Tensor, float]:
    """Initial signed distances, and lower bounds of all later ones, in cells, (1, 1, V, V, V).

    The surface may be outside of the hull by `slack` cells. Without masks, all that is not white is
    the object, and there are no bounds. The number is the share of the pixels on whose depth the
    views agree.

    Raises:
        ValueError: the masks have no volume in common.
    """
    masks = _threshold_white(views.images) if views.masks is None else views.masks
    shape = estimate_initial_shape(views.images, masks, views.cameras, resolution, device)
    sdf, hull = (
        torch.from_numpy(grid)[None, None].to(device) / (2 * OBJECT_HALF_SIDE / resolution)
        for grid in (shape.sdf, shape.hull)
    )
    if views.masks is None:  # the hull of all that is not white may be wrong
        return sdf, torch.full_like(hull, -torch.inf), shape.confirmed
    return sdf, hull - slack, shape.confirmed


def _threshold_white(images: np.ndarray) -> np.ndarray:
    """Masks of all that is not white, with holes filled, float32 (N, S, S)."""
    from scipy import ndimage

    masks = [ndimage.binary_fill_holes(image.min(axis=-1) < _WHITE) for image in images]
    return np.stack(masks).astype(np.float32)


def initial_colors(start: Tensor, views: Views) -> Tensor:
    """Logits of the views' colours on the initial surface, (1, 3, V, V, V).

    Cells take the colour of the nearest vertex of the surface; cells far from it are grey.
    """
    from scipy.spatial import cKDTree

    sdf = start[0, 0].cpu().numpy()
    centres = cell_centres(len(sdf))
    spacing = centres[1] - centres[0]
    logits = np.zeros((*sdf.shape, 3), dtype=np.float32)
    mesh = extract(sdf * spacing, centres[0], spacing)
    colors = sample_vertex_colors(mesh, views.images, views.masks, views.cameras)
    colors = np.clip(colors, 0.02, 0.98)
    near = np.abs(sdf) < _COLOR_DISTANCE
    points = centres[np.argwhere(near)]
    _, vertex = cKDTree(np.asarray(mesh.vertices)).query(points)
    logits[near] = np.log(colors / (1 - colors))[vertex]
    return torch.from_numpy(logits).permute(3, 0, 1, 2)[None].contiguous()
