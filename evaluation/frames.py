"""Whether a predicted mesh would agree better with the true one in another frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path

import numpy as np

from multiview.cameras import NUM_VIEWS, orbit_cameras

log = logging.getLogger(__name__)

SIZE, EVERY = 64, 4
"""Pixels a side, and which of the 16 views, of the silhouettes."""
MARGIN = 0.15
"""Least gain in the IoU of the silhouettes that is reported."""


def warn_if_other_frame_fits(path: Path, points: np.ndarray, true_points: np.ndarray) -> None:
    """Log a warning if visible points, (P, 3), fit the true ones, (Q, 3), better with other axes.

    The 24 rotations that map axes to axes are tried, such as that from y up to z up.
    """
    true = silhouettes(true_points)
    overlaps = [(_iou(silhouettes(points @ turn.T), true), turn) for turn in axis_rotations()]
    here = overlaps[0][0]
    best, turn = max(overlaps, key=lambda overlap: overlap[0])
    if best > here + MARGIN:
        names = [f"{'-' if row.sum() < 0 else ''}{'xyz'[np.abs(row).argmax()]}" for row in turn]
        log.warning(
            "%s is probably in another frame (expected: z up): its silhouettes "
            "and the true ones have an IoU of %.2f, with (%s) for (x, y, z) of %.2f",
            path,
            here,
            ", ".join(names),
            best,
        )


def axis_rotations() -> Iterator[np.ndarray]:
    """Yield the 24 rotations that map axes to axes, (3, 3), the identity first."""
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        turn = np.diag(signs)[:, order]
        if np.linalg.det(turn) > 0:
            yield turn


def silhouettes(points: np.ndarray) -> np.ndarray:
    """Pixels of some views onto which points, (P, 3), are projected: bool, (N, S, S)."""
    cameras = orbit_cameras(NUM_VIEWS, image_size=SIZE)
    masks = []
    for pose, intrinsics in zip(
        cameras.world_to_camera[::EVERY], cameras.intrinsics[::EVERY], strict=True
    ):
        u, v, z = intrinsics @ (pose[:, :3] @ points.T + pose[:, 3:])
        pixels = np.stack([v, u])[:, z > 0] / z[z > 0]
        rows, columns = np.floor(np.clip(pixels, 0, SIZE - 1)).astype(np.int64)
        mask = np.zeros((SIZE, SIZE), bool)
        mask[rows, columns] = True
        masks.append(mask)
    return np.stack(masks)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))
