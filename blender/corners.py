"""Corners of models that single precision, in which Blender computes, is not enough for.

Imported by Blender's Python, which has NumPy only.
"""

from __future__ import annotations

import numpy as np

FAR, LARGE, SMALL = 100.0, 1e5, 1e-4
"""Distance from the origin in sizes of the object, and sizes, from which on it is not enough."""


def check_finite(corners: np.ndarray) -> None:
    """Check corners, (P, 3); ValueError with their number if some are not finite."""
    wrong = int((~np.isfinite(corners).all(axis=-1)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(corners)} corners are not finite; remove them")


def frame_of(corners: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre, (3,), and longest side of the box of corners, (P, 3), in double precision."""
    lower, upper = (end(corners, axis=0).astype(np.float64) for end in (np.min, np.max))
    return (lower + upper) / 2, float((upper - lower).max())


def needs_double(centre: np.ndarray, size: float) -> bool:
    """Whether corners with this centre and size have to be brought to the origin, scaled to 1."""
    near = np.abs(centre).max() < FAR * size
    return size > 0 and not (SMALL < size < LARGE and near)


def centre_and_scale(corners: np.ndarray) -> np.ndarray | None:
    """Move corners, (P, 3), to the origin and scale them to 1, if single precision needs it.

    ValueError if some are not finite.
    """
    check_finite(corners)
    if not len(corners):
        return None
    centre, size = frame_of(corners)
    return (corners - centre) / size if needs_double(centre, size) else None
