"""Find and repair masks that are inconsistent with the masks of other views.

A visual hull is the intersection of all silhouettes: one empty or cut mask destroys it. The hull of
correct masks fills each of them, while a mask that is cut, moved or not the object's leaves parts
of masks without hull behind them. The largest set of views that fill their masks is the consensus.
Masks that contradict it are replaced by the silhouette of its hull.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from multiview.cameras import OBJECT_HALF_SIDE, PIXEL_CENTRE, Cameras
from multiview.visual_hull import silhouette_distance

log = logging.getLogger(__name__)

MASK_SIZE = 128
"""Largest size at which masks are compared, pixels a side."""
MIN_COVERAGE = 0.3
"""Coverage from which a downsampled pixel is foreground; low, so that thin parts stay connected."""
GRID_SIZE = 52
"""Points a side of the grid for hulls."""
SAMPLES_PER_LINE = 80
"""Samples on a line of sight through the grid."""
LINES_OF_SIGHT = 256
"""Lines of sight per view, spread over its mask, that should meet the hull."""
TOLERANCE = 0.015
"""Tolerance of outlines, as a share of the image's side: half the diagonal of a grid cell at the
origin, as thin parts would otherwise fall between grid points."""
MIN_TOLERANCE = 1.0
"""Smallest tolerance, pixels: outlines of small masks are not more exact."""
REMOVAL_COST = 0.1
"""Cost of leaving a view out of the consensus, as an unfilled share of one mask."""
RANDOM_STARTS = 24
"""Largest number of random small sets of views to grow a consensus from."""
MAX_UNFILLED = 0.15
"""Largest mean unfilled share of the masks of a consensus."""
AGREEMENT_SIZE = 64
"""Approximate size at which the agreement is measured, pixels a side."""
AGREEMENT_TOLERANCE = 0.03
"""Difference of a mask and the hull that does not reduce the agreement, as a share of the image."""
MIN_AGREEMENT = 0.98
"""Agreement below which views are inconsistent, if the consensus fills its masks completely."""
NOISE_WEIGHT = 10.0
"""Decrease of this threshold with the unfilled share of the consensus: if all outlines are noisy, a
slightly noisier one is not inconsistent."""
MIN_REDUCED_AGREEMENT = 0.5
"""Lower bound of this threshold."""
MAX_REVERSED, REVERSED_GAIN = 0.02, 0.06
"""Unfilled share of masks that fit together, and how much less it is than in the given order."""
FINE_SAMPLES = 400
"""Samples on a line of sight when a silhouette is rendered."""

Cost = Callable[[np.ndarray], float]
"""Set of views, bool (N,), to how badly they explain the masks."""


@dataclass(frozen=True)
class RepairedMasks:
    """Masks that are consistent with each other.

    Attributes:
        masks: in [0, 1], (N, S, S) float32; inconsistent ones are replaced.
        replaced: numbers of the replaced views.
        agreement: IoU of each given mask with the silhouette of the other views' hull, ignoring
            differences of a few pixels, (N,); 0 for masks that are empty or full.
    """

    masks: np.ndarray
    replaced: tuple[int, ...]
    agreement: np.ndarray


def repair_masks(masks: np.ndarray, cameras: Cameras) -> RepairedMasks:
    """Replace the masks, in [0, 1], (N, S, S), that contradict most of the others; N >= 3.

    All are unchanged, with a warning, if no more than half of them are consistent.

    Raises:
        ValueError: the shapes do not fit.
    """
    count, size = len(masks), masks.shape[-1]
    if masks.shape != (count, size, size) or count != len(cameras.intrinsics) or count < 3:
        raise ValueError(
            f"expected a square mask for each of at least 3 cameras, got masks of shape "
            f"{masks.shape} and {len(cameras.intrinsics)} cameras"
        )
    given = np.asarray(masks, dtype=np.float32)
    small, usable = _downsample_all(given)
    if not usable.any():
        return RepairedMasks(given, (), np.zeros(count))

    data = _gather_data(small, cameras.scaled(small.shape[-1] / size))
    consensus = _find_consensus(data, usable)
    agreement = np.array([_agreement(data, k, consensus) for k in range(count)]) * usable
    unfilled = float(_unfilled_shares(data, consensus)[consensus].mean())
    if 2 * consensus.sum() <= count or unfilled > MAX_UNFILLED:
        badly = ", and only badly" if unfilled > MAX_UNFILLED else ""
        log.warning("%d of %d masks fit%s: none is repaired", consensus.sum(), count, badly)
        return RepairedMasks(given, (), agreement)

    needed = max(MIN_AGREEMENT - NOISE_WEIGHT * unfilled, MIN_REDUCED_AGREEMENT)
    inconsistent = ~consensus & (agreement < needed)
    if not inconsistent.any():
        return RepairedMasks(given, (), agreement)
    repaired = given.copy()
    distances = {int(k): silhouette_distance(given[k] >= 0.5) for k in np.flatnonzero(consensus)}
    replaced = tuple(int(k) for k in np.flatnonzero(inconsistent))
    for k in replaced:
        repaired[k] = _render_silhouette(data, k, distances, cameras)
    return RepairedMasks(repaired, replaced, agreement)


def fit_in_reverse(masks: np.ndarray, cameras: Cameras) -> tuple[float, float] | None:
    """Whether masks, in [0, 1], (N, S, S), are those of the cameras in reverse order, from view 0.

    Returns the mean share of the masks without a hull of all behind it, as they are and in reverse,
    if the latter is within `MAX_REVERSED` and less than the former by `REVERSED_GAIN`.
    """
    small, usable = _downsample_all(masks)
    scaled = cameras.scaled(small.shape[-1] / masks.shape[-1])
    reverse = -np.arange(len(masks)) % len(masks)
    shares = []
    for order in (np.arange(len(masks)), reverse):
        views = usable[order]
        data = _gather_data(small[order], scaled)
        shares.append(float(_unfilled_shares(data, views)[views].mean()) if views.any() else 0.0)
    forward, backward = shares
    fits = backward <= MAX_REVERSED and forward - backward >= REVERSED_GAIN
    return (forward, backward) if fits else None


def _downsample_all(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smaller binary masks, and which of them have an outline, bool (N,)."""
    small = np.stack([_downsample(mask) for mask in masks])
    return small, np.array([mask.any() and not mask.all() for mask in small])


def _downsample(mask: np.ndarray) -> np.ndarray:
    """Binary mask, with at most `MASK_SIZE` pixels a side."""
    if len(mask) <= MASK_SIZE:
        return mask >= 0.5
    small = Image.fromarray(mask).resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BOX)
    return np.asarray(small) >= MIN_COVERAGE


@dataclass(frozen=True)
class _ConsistencyData:
    """Grid points that each view excludes, and lines of sight through the grid.

    Attributes:
        masks: bool (N, L, L).
        cameras: for L x L images.
        outside: points outside of a view's mask, bool (N, V**3 + 1); the last one stands for all
            points off the grid.
        lines: numbers of the points along lines of sight in the masks, (D, N, R).
    """

    masks: np.ndarray
    cameras: Cameras
    outside: np.ndarray
    lines: np.ndarray

    def hull(self, views: np.ndarray) -> np.ndarray:
        """Points in the masks of all given views, bool (N,): their hull, bool (V**3 + 1,)."""
        hull: np.ndarray = ~self.outside[views].any(axis=0)
        hull[-1] = False
        return hull


def _gather_data(masks: np.ndarray, cameras: Cameras) -> _ConsistencyData:
    size = masks.shape[-1]
    tolerance = max(TOLERANCE * size, MIN_TOLERANCE)
    axis = np.linspace(-OBJECT_HALF_SIDE, OBJECT_HALF_SIDE, GRID_SIZE, dtype=np.float32)
    outside = np.ones((len(masks), GRID_SIZE**3 + 1), dtype=bool)
    lines = np.full((SAMPLES_PER_LINE, len(masks), LINES_OF_SIGHT), GRID_SIZE**3)
    for k, mask in enumerate(masks):
        column, row = _project(cameras, k, *np.ix_(axis, axis, axis))
        column, row = (np.clip(place, 0, size - 1).astype(np.intp) for place in (column, row))
        outside[k, :-1] = (_signed_distance(mask) > tolerance)[row, column].ravel()
        rows, columns = np.nonzero(mask)
        if len(rows):
            spread = np.linspace(0, len(rows) - 1, LINES_OF_SIGHT).round().astype(np.intp)
            points = _points_on_lines(cameras, k, rows[spread], columns[spread], SAMPLES_PER_LINE)
            lines[:, k] = _grid_indices(points)
    return _ConsistencyData(masks, cameras, outside, lines)


def _project(
    cameras: Cameras, k: int, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of points in view k, in pixels from the image's edge.

    Sums instead of a matrix product, so that grid axes are broadcast, in float32.
    """
    matrix = (cameras.intrinsics[k] @ cameras.world_to_camera[k]).astype(np.float32)
    column, row, depth = (a * x + b * y + (c * z + d) for a, b, c, d in matrix)
    return column / depth, row / depth


def _points_on_lines(
    cameras: Cameras, k: int, rows: np.ndarray, columns: np.ndarray, samples: int
) -> np.ndarray:
    """Points on the lines of sight of pixels of view k, x y z, (3, D, R) for D = `samples`."""
    pose = cameras.world_to_camera[k]
    pixels = np.stack([columns + PIXEL_CENTRE, rows + PIXEL_CENTRE, np.ones(len(rows))])
    directions = pose[:, :3].T @ np.linalg.inv(cameras.intrinsics[k]) @ pixels
    origin = -pose[:, :3].T @ pose[:, 3]
    reach = np.sqrt(3) * OBJECT_HALF_SIDE
    depths = np.linspace(max(pose[2, 3] - reach, 0), pose[2, 3] + reach, samples)
    points = origin[:, None, None] + depths[:, None] * directions[:, None]
    return points.astype(np.float32)


def _grid_indices(points: np.ndarray) -> np.ndarray:
    """Numbers of the nearest grid points, (3, D, R) to (D, R)."""
    index = ((points / OBJECT_HALF_SIDE + 1) * ((GRID_SIZE - 1) / 2)).round().astype(np.intp)
    x, y, z = index
    inside = ((index >= 0) & (index < GRID_SIZE)).all(axis=0)
    return np.where(inside, (x * GRID_SIZE + y) * GRID_SIZE + z, GRID_SIZE**3)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Signed distance to a mask's outline in pixels, (S, S); infinite without outline."""
    if mask.all() or not mask.any():
        return np.where(mask, -np.inf, np.inf)
    return silhouette_distance(mask)


def _unfilled_shares(data: _ConsistencyData, views: np.ndarray) -> np.ndarray:
    """Share of each mask, (N,), without hull of the given views behind it."""
    filled = data.hull(views)[data.lines].any(axis=0)  # (N, R)
    return 1 - filled.mean(axis=1)


def _agreement(data: _ConsistencyData, k: int, views: np.ndarray) -> float:
    """Agreement of view k's mask with the hull of the other given views, see `RepairedMasks`.

    Where only view k shows the object's outline, the hull is larger; that is little with many
    views.
    """
    others = views.copy()
    others[k] = False
    step = max(1, round(data.masks.shape[-1] / AGREEMENT_SIZE))
    mask = data.masks[k, ::step, ::step]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]].reshape(2, -1) * step
    points = _points_on_lines(data.cameras, k, rows, columns, SAMPLES_PER_LINE)
    silhouette = data.hull(others)[_grid_indices(points)].any(axis=0).reshape(mask.shape)
    slack = AGREEMENT_TOLERANCE * len(mask)
    excess = mask & (_signed_distance(silhouette) > slack)
    lack = silhouette & (_signed_distance(mask) > slack)
    return 1 - float((excess | lack).sum() / max(1, (mask | silhouette).sum()))


def _find_consensus(data: _ConsistencyData, usable: np.ndarray) -> np.ndarray:
    """Find the largest set of views, bool (N,), with consistent masks, by local search.

    The cost is the unfilled share of their masks, plus `REMOVAL_COST` per view that is left out. If
    several are inconsistent, there is no hull until the last of them is removed, so small sets are
    grown too, until the best result is found twice. Usable views, bool (N,), have an outline.
    """

    def cost(views: np.ndarray) -> float:
        return float(_unfilled_shares(data, views)[views].sum() + REMOVAL_COST * (~views).sum())

    best, lowest = usable, cost(usable)
    if lowest < REMOVAL_COST * (1 + (~usable).sum()):  # removing a view cannot lower the cost
        return best
    found: set[bytes] = set()
    for start in _initial_sets(usable):
        views = _local_search(_greedy_add(start, usable, cost), usable, cost)
        again = views.tobytes() in found
        found.add(views.tobytes())
        if cost(views) < lowest:
            best, lowest = views, cost(views)
        if again and np.array_equal(views, best):
            break
    return best


def _initial_sets(usable: np.ndarray) -> Iterator[np.ndarray]:
    """Yield all usable views, then random quarters of all views, bool (N,)."""
    yield usable
    generator = np.random.default_rng(0)
    numbers = np.flatnonzero(usable)
    quarter = min(len(numbers), max(2, len(usable) // 4))
    for _ in range(RANDOM_STARTS):
        views = np.zeros_like(usable)
        views[generator.choice(numbers, quarter, replace=False)] = True
        yield views


def _greedy_add(views: np.ndarray, usable: np.ndarray, cost: Cost) -> np.ndarray:
    """Add each view that lowers the cost, in order."""
    for k in np.flatnonzero(usable & ~views):
        views = min(views, _flip(views, k), key=cost)
    return views


def _local_search(views: np.ndarray, usable: np.ndarray, cost: Cost) -> np.ndarray:
    """Add or remove the best single view until that does not lower the cost."""
    while True:
        best = min((_flip(views, k) for k in np.flatnonzero(usable)), key=cost)
        if cost(best) >= cost(views):
            return views
        views = best


def _flip(views: np.ndarray, k: int | np.integer) -> np.ndarray:
    flipped = views.copy()
    flipped[k] = ~flipped[k]
    return flipped


def _render_silhouette(
    data: _ConsistencyData, k: int, distances: dict[int, np.ndarray], cameras: Cameras
) -> np.ndarray:
    """Render the silhouette of the other views' hull for view k, soft, in [0, 1], (S, S) float32.

    The grid locates the hull roughly. For each line of sight the distance inside all silhouettes at
    its deepest point is rendered, which keeps thin parts sharp. `distances` are to the outlines of
    the other views, signed, pixels, (S, S) each; the cameras are for S x S images.
    """
    edge, size = data.masks.shape[-1], next(iter(distances.values())).shape[-1]
    hull = data.hull(np.isin(np.arange(len(data.masks)), list(distances)))
    rows, columns = np.mgrid[:edge, :edge].reshape(2, -1)
    near = _grid_indices(_points_on_lines(data.cameras, k, rows, columns, SAMPLES_PER_LINE))
    (lines,) = np.nonzero(hull[near].any(axis=0))

    points = _points_on_lines(data.cameras, k, rows[lines], columns[lines], FINE_SAMPLES)
    inside = hull[_grid_indices(points)]  # (D, R)
    points = points[:, inside]
    deepest = np.full(points.shape[1], -np.inf, dtype=np.float32)
    for j, distance in distances.items():
        column, row = _project(cameras, j, *points)
        positions = np.stack([row, column]) - PIXEL_CENTRE
        values = ndimage.map_coordinates(distance, positions, order=1, mode="nearest")
        np.maximum(deepest, values, out=deepest)

    along = np.full(inside.shape, TOLERANCE * size, dtype=np.float32)
    along[inside] = deepest
    rendered = np.full(edge * edge, TOLERANCE * size, dtype=np.float32)
    rendered[lines] = along.min(axis=0)
    small = Image.fromarray(rendered.reshape(edge, edge))
    image = small.resize((size, size), Image.Resampling.BILINEAR)
    return np.clip(0.5 - np.asarray(image), 0.0, 1.0)
