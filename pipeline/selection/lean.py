"""Lean of a draft's object towards or away from the input's camera, from vertical edges.

The published model shows the input again as view 0, whatever elevation it is told. If that is
wrong, the object leans: its vertical edges point to another vanishing point than the rig's. Near
the input's azimuth the lean is seen from the side, and far from it the model stands objects up.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from multiview.cameras import PIXEL_CENTRE
from pipeline.selection.hull_renderer import LowResViews

NEIGHBOURS = 2
"""Views on each side of view 0 in which edges are measured."""
EDGE_SPREAD_DEG = 5.0
"""Standard deviation of an edge's direction."""
CHANCE = 0.035
"""Share of edges in one half of a view that have any given direction, if all are as frequent."""
CLEAR = 1.3
"""Least ratio of vertical edges, with and without the lean. In 25 toys of each kind, it finds 13 of
the leans of leaning toys within 5 degrees, and a lean of one upright toy (docs/results.md)."""


def estimate_lean(views: LowResViews, candidates_deg: np.ndarray) -> float:
    """The candidate for which most edges are vertical, degrees; 0 if that is not clear.

    Positive towards the camera of view 0, which an elevation above the true one's makes negative.
    An edge direction counts in a view as often as in the half, left or right, that has less of it:
    the outlines of a cone are not those of an upright object.
    """
    directions = np.deg2rad(np.append(candidates_deg, 0.0))
    numbers = [k % len(views) for k in range(-NEIGHBOURS, NEIGHBOURS + 1) if k]
    counts = np.mean([_vertical_edges(views, k, directions) for k in numbers], axis=0) + CHANCE
    best = int(counts[:-1].argmax())
    return float(candidates_deg[best]) if counts[best] > CLEAR * counts[-1] else 0.0


def _vertical_edges(views: LowResViews, k: int, leans: np.ndarray) -> np.ndarray:
    """Share of edges in view k along the vertical of each lean in radians, (T,)."""
    normals, strengths = _edges(views.colours[k].numpy())
    middle = np.arange(views.size) + PIXEL_CENTRE
    mask = views.masks[k].numpy()
    left = middle < (mask.sum(axis=0) * middle).sum() / mask.sum()
    intrinsics, rotation = views.cameras.intrinsics[k], views.cameras.world_to_camera[k][:, :3]
    ray = (middle - intrinsics[0, 2]) / intrinsics[0, 0]
    counts = []
    for lean in leans:
        up = rotation @ [np.sin(lean), 0.0, np.cos(lean)]
        across, down = up[0] - ray * up[2], (up[1] - ray * up[2])[:, None]
        difference = normals - np.arctan2(down, across)  # a quarter turn for edges along `up`
        angle = np.rad2deg(np.mod(difference, np.pi)) - 90
        along = strengths * np.exp(-0.5 * (angle / EDGE_SPREAD_DEG) ** 2)
        counts.append(min(along[:, left].sum(), along[:, ~left].sum()))
    return np.array(counts) / max(strengths.sum(), 1e-9)


def _edges(colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction of the gradient, radians, and its strength by the structure tensor, (S, S) each."""
    smooth = ndimage.gaussian_filter(colours, (0, 1, 1))
    x, y = ndimage.sobel(smooth, 2), ndimage.sobel(smooth, 1)
    products = [(a * b).sum(axis=0) for a, b in ((x, x), (x, y), (y, y))]
    xx, xy, yy = (ndimage.gaussian_filter(each, 1) for each in products)
    trace = xx + yy
    coherence = np.hypot(xx - yy, 2 * xy) / (trace + 1e-9)
    return 0.5 * np.arctan2(2 * xy, xx - yy), np.sqrt(trace) * coherence**2
