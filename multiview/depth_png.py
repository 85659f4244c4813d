"""Depth maps as 16-bit grey levels of [0.6, 2.4], as in the evaluation set. NumPy only."""

from __future__ import annotations

import numpy as np

NEAR, FAR = 0.6, 2.4
"""Depths at 0 and at 65535 of a depth PNG."""


def depth_to_levels(depth: np.ndarray) -> np.ndarray:
    """Convert camera-z depth, infinite on the background, to uint16, clamped to [0.6, 2.4]."""
    levels = np.round((np.clip(depth, NEAR, FAR) - NEAR) / (FAR - NEAR) * 65535)
    return levels.astype(np.uint16)


def levels_to_depth(levels: np.ndarray) -> np.ndarray:
    """Convert grey levels to camera-z depth, float64 of the same shape."""
    return levels.astype(np.float64) / 65535 * (FAR - NEAR) + NEAR


def depth_name(index: int) -> str:
    """File name of a view's depth: 000-depth.png, 001-depth.png, ..."""
    return f"{index:03d}-depth.png"
