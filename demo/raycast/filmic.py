"""Blender's view transform "Filmic", which the training images were made with."""

from __future__ import annotations

import numpy as np

_FIRST_STOP = -12.5
_STOPS_APART = 0.5
_CURVE = np.array([
    0.0, 0.0018, 0.0042, 0.0072, 0.0110, 0.0159, 0.0220, 0.0297, 0.0394, 0.0515, 0.0666, 0.0853,
    0.1082, 0.1360, 0.1694, 0.2090, 0.2551, 0.3076, 0.3662, 0.4297, 0.4967, 0.5642, 0.6310, 0.6950,
    0.7542, 0.8072, 0.8534, 0.8923, 0.9241, 0.9494, 0.9688, 0.9832, 0.9932, 0.9997,
], np.float32)  # fmt: skip
"""Display value of a grey of 2**stop, measured in Blender 3.4."""


def filmic(light: np.ndarray) -> np.ndarray:
    """Tone-map linear light, each channel by itself.

    Blender's own also takes colour out of what is brighter than about 2, which no surface in the
    training images' light is. Light of any shape, at least 0, becomes display values, 0 to 1.
    """
    stops = np.log2(np.maximum(light, 2.0**_FIRST_STOP))
    known = _FIRST_STOP + _STOPS_APART * np.arange(len(_CURVE))
    return np.interp(stops, known, _CURVE).astype(np.float32)
