"""Hollows on the top of objects: bowls, cups, boots. V cells a side, N views, S pixels a side.

Silhouettes show nothing of a hollow, and stereo little of one without texture. So whole hollows of
several depths are compared with the hull by the colours that the views show in them: the views
match better at the depths of the true surface. A hollow is an inset of the hull, open to the top.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from multiview.cameras import OBJECT_HALF_SIDE
from multiview.visual_hull import cell_centres
from renderer.methods.stereo import CameraTensors, matching_cost, sample_nearest

log = logging.getLogger(__name__)

_DEPTHS = (0.1, 0.17, 0.24, 0.32, 0.4, 0.5, 0.6)
"""Of the tried hollows below the highest point, world units."""
_WALL, _WALL_CELLS = 0.03, 1.5
"""Thickness of their walls, world units, and the least one in cells."""
_OPENING = 0.32
"""A hollow opens to the top where the hull is at most this much lower than at its highest point:
the hull of a bowl is a cone above its rim."""
_VISIBLE = 0.03
"""Largest difference of a place's depth and what a depth map shows there, world units."""
_DEEPER = 0.02
"""Pixels whose depths differ by more are compared, world units."""
_SHARE = 0.002
"""Least number of these, as a share of all pixels of the views."""
_GAIN, _TIE = 0.85, 1.05
"""A hollow must have less than the first share of the hull's matching cost. Where no view sees the
bottom, costs do not depend on the depth: of all that are within the second factor of the lowest
one, the deepest hollow is taken."""

DepthRenderer = Callable[[np.ndarray], Tensor]
"""Depth maps (N, S, S) of signed distances (V, V, V)."""


def carve_hollow(
    hull: np.ndarray, views: Tensor, cameras: CameraTensors, render: DepthRenderer
) -> np.ndarray:
    """Carve the hollow that the views show out of a hull (V, V, V); if none, return the hull.

    Views (N, 3, S, S) are in [0, 1]; the cameras are theirs.
    """
    small = F.avg_pool3d(torch.from_numpy(hull)[None, None], 2)[0, 0].numpy()
    if not (small < 0).any():
        return hull
    before = render(small)
    top = cell_centres(len(small))[np.flatnonzero((small < 0).any(axis=(0, 1)))[-1]]
    gains: dict[float, float] = {}
    costs_before = [_cost(view, before, views, cameras) for view in range(len(views))]
    for depth in _DEPTHS:
        after = render(_carved(small, top - depth))
        pairs = []
        for view, cost_before in enumerate(costs_before):
            changed = torch.isfinite(after[view]) & (after[view] > before[view] + _DEEPER)
            if changed.any():
                cost = _cost(view, after, views, cameras)
                valid = changed & torch.isfinite(cost) & torch.isfinite(cost_before)
                pairs.append(torch.stack([cost[valid], cost_before[valid]]))
        both = torch.cat(pairs, dim=1) if pairs else views.new_zeros(2, 0)
        if both.shape[1] >= _SHARE * views[:, 0].numel():
            gains[depth] = float(both[0].mean() / both[1].mean())
        if len(gains) > 1 and min(gains.values()) > 1:
            break  # solid
    lowest = min(gains.values(), default=np.inf)
    if lowest >= _GAIN:
        return hull
    chosen = max(depth for depth, gain in gains.items() if gain <= _TIE * lowest)
    log.info("a hollow of depth %.2f matches the views: %.2f of the cost", chosen, gains[chosen])
    return _carved(hull, top - chosen)


def _carved(hull: np.ndarray, floor: float) -> np.ndarray:
    """Hull (V, V, V) without what is above a height and inside walls and bottom."""
    spacing = 2 * OBJECT_HALF_SIDE / len(hull)
    wall = max(_WALL, _WALL_CELLS * spacing)
    inside = ndimage.distance_transform_edt(np.pad(hull < 0, 1), sampling=(1, 1, 1e6))
    lateral = 0.5 * spacing - inside[1:-1, 1:-1, 1:-1] * spacing
    heights = cell_centres(len(hull))
    solid = hull < 0
    bottom = heights[solid.argmax(axis=2)][:, :, None] + wall
    hollow = np.maximum(lateral + wall, np.maximum(floor, bottom) - heights)
    last = np.where(solid, np.arange(len(hull)), -1).max(axis=2)
    hollow[heights[last] < heights[last.max()] - _OPENING] = np.inf
    return np.maximum(hull, -hollow).astype(np.float32)


def _cost(view: int, depths: Tensor, views: Tensor, cameras: CameraTensors) -> Tensor:
    """Mean matching cost of a view with those neighbours that see a depth map's points, (S, S)."""
    rays = cameras.unproject(view, depths.shape[-1])
    points = cameras.to_world(view, rays * depths[view].nan_to_num(posinf=9.0)[..., None])
    total, count = torch.zeros_like(depths[view]), torch.zeros_like(depths[view])
    for other in cameras.neighbours[view]:
        pixels, depth = cameras.project(other, points)
        seen = (sample_nearest(depths[other], pixels) - depth).abs() < _VISIBLE
        cost = matching_cost(views[view][None], views[other], pixels[None])[0]
        total += torch.where(seen, cost, 0.0)
        count += seen
    return total / count  # nan where no neighbour sees the point
