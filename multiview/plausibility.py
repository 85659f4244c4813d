"""Two properties of views that the model shows when it knows the object, whatever its shape.

Views can predict each other and still show no object: one that moves away from the axis about which
the cameras turn, or a back of colours that the input does not have. The training objects are
centred, and the views of scanned objects rarely show new colours (docs/results.md).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OFF_CENTRE = 0.1
"""Tolerance of `off_centre`; at most 0.05 in true views of scanned objects."""
NEW_COLOURS = 0.1
"""`new_colours` that lower no score, and the tolerance above; at most 0.07 in 31 of 32 turns of
scanned objects."""
COLOUR_DISTANCE = 0.15
"""Colours that are farther apart, as points of the RGB cube, are different."""
SMOOTHING = 5
"""Pixels a side of the windows whose mean colours are compared: noise has no new colours."""
MISFIT_OFF_CENTRE, MISFIT_COLOURS = 0.2, 0.25
"""A view with more of either does not fit view 0."""
MISFIT_SIDE = 64
"""Pixels a side at which `find_misfits` looks."""
LEAST = 0.4
"""Least factor for new colours: a real back may have them, and other parts then decide."""


def off_centre(masks: Tensor) -> np.ndarray:
    """Distance of the object's box from the image's middle column over its diagonal, (N,).

    Masks are (N, S, S); where one is empty, the distance is 0.
    """
    found = []
    for mask in masks >= 0.5:
        columns, rows = (mask.any(dim=k).nonzero()[:, 0] for k in (0, 1))
        if not len(columns):
            found.append(0.0)
            continue
        first, last = int(columns[0]), int(columns[-1])
        diagonal = np.hypot(last - first + 1, int(rows[-1] - rows[0]) + 1)
        found.append(abs(first + last + 1 - mask.shape[-1]) / 2 / diagonal)
    return np.array(found)


def new_colours(colours: Tensor, masks: Tensor) -> np.ndarray:
    """Share of the object's pixels with colours that view 0, the input, lacks, (N,).

    Colours on white are (N, 3, S, S), masks (N, S, S).
    """
    inner = [_inner_colours(*view) for view in zip(colours, masks, strict=True)]
    far = [torch.cdist(each, inner[0]).amin(dim=1) > COLOUR_DISTANCE for each in inner]
    return np.array([float(each.float().mean()) if len(each) else 0.0 for each in far])


def find_misfits(images: np.ndarray, masks: np.ndarray) -> tuple[int, ...]:
    """Numbers of the views that do not fit view 0, images on white (N, S, S, 3), masks (N, S, S).

    In them the object is far from the middle, or has many colours that view 0 lacks. If most views
    do not fit, view 0 is no measure of the others, and the result is empty.
    """
    side = min(MISFIT_SIDE, masks.shape[-1])
    layers = torch.from_numpy(np.concatenate([images, masks[..., None]], axis=-1)).float()
    small = F.interpolate(layers.movedim(-1, 1), size=(side, side), mode="area")
    colours, alpha = small[:, :3], small[:, 3]
    if not (alpha[0] >= 0.5).any():
        return ()
    bad = (off_centre(alpha) > MISFIT_OFF_CENTRE) | (new_colours(colours, alpha) > MISFIT_COLOURS)
    return () if 2 * bad.sum() > len(bad) else tuple(map(int, np.flatnonzero(bad)))


def _inner_colours(colours: Tensor, mask: Tensor) -> Tensor:
    """Means around every second pixel inside the outline in a view, (P, 3)."""
    inside = -F.max_pool2d(-mask[None], 3, 1, 1)[0] >= 0.5
    chosen = inside if inside.any() else mask >= 0.5
    solid = (mask >= 0.5).float()
    layers = torch.cat([colours * solid, solid[None]])
    means = F.avg_pool2d(layers[None], SMOOTHING, 1, SMOOTHING // 2)[0]
    return (means[:3] / means[3:].clamp_min(1e-6))[:, chosen].T[::2].contiguous()


def plausibility(off: float, new: float) -> float:
    """Factor in (0, 1] of a sample's score: 1 for a centred object without new colours."""
    centred = np.exp(-((off / OFF_CENTRE) ** 2))
    return float(centred * max(LEAST, np.exp(-(max(0.0, new / NEW_COLOURS - 1) ** 2))))
