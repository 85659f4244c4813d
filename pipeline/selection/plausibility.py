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

from pipeline.selection.hull_renderer import LowResViews

OFF_CENTRE = 0.1
"""Tolerance of `off_centre`; at most 0.05 in true views of scanned objects."""
NEW_COLOURS = 0.1
"""`new_colours` that lower no score, and the tolerance above; at most 0.07 in 31 of 32 turns of
scanned objects."""
COLOUR_DISTANCE = 0.15
"""Colours that are farther apart, as points of the RGB cube, are different."""
SMOOTHING = 5
"""Pixels a side of the windows whose mean colours are compared: noise has no new colours."""
LEAST = 0.4
"""Least factor for new colours: a real back may have them, and other parts then decide."""


def off_centre(views: LowResViews) -> float:
    """Distance of the object's box from the image's middle column over its diagonal, mean."""
    found = []
    for mask in views.masks >= 0.5:
        columns, rows = (mask.any(dim=k).nonzero()[:, 0] for k in (0, 1))
        first, last = int(columns[0]), int(columns[-1])
        diagonal = np.hypot(last - first + 1, int(rows[-1] - rows[0]) + 1)
        found.append(abs(first + last + 1 - views.size) / 2 / diagonal)
    return float(np.mean(found))


def new_colours(views: LowResViews) -> float:
    """Share of the object's pixels with colours that view 0, the input, lacks, mean over views."""
    known = _colours(views, 0)
    return float(np.mean([
        (torch.cdist(_colours(views, k), known).amin(dim=1) > COLOUR_DISTANCE).float().mean()
        for k in range(len(views))
    ]))  # fmt: skip


def _colours(views: LowResViews, k: int) -> Tensor:
    """Means around every second pixel inside the outline in view k, (P, 3)."""
    mask = views.masks[k]
    inside = -F.max_pool2d(-mask[None], 3, 1, 1)[0] >= 0.5
    chosen = inside if inside.any() else mask >= 0.5
    solid = (mask >= 0.5).float()
    layers = torch.cat([views.colours[k] * solid, solid[None]])
    means = F.avg_pool2d(layers[None], SMOOTHING, 1, SMOOTHING // 2)[0]
    return (means[:3] / means[3:].clamp_min(1e-6))[:, chosen].T[::2].contiguous()


def plausibility(off: float, new: float) -> float:
    """Factor in (0, 1] of a sample's score: 1 for a centred object without new colours."""
    centred = np.exp(-((off / OFF_CENTRE) ** 2))
    return float(centred * max(LEAST, np.exp(-(max(0.0, new / NEW_COLOURS - 1) ** 2))))
