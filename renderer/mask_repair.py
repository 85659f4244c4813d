"""Find and mend spoiled foreground masks among the views of one object.

A visual hull is the intersection of all silhouettes: one empty or cut mask destroys it. But masks
of one object explain each other. The hull of true masks fills every one of them; with a mask that
is cut, moved, or not the object's at all, parts of others or of itself are left without any hull
behind them. The largest set of views that agree in this way is the consensus. What does not fit to
it is replaced by the silhouette of its hull.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from multiview.cameras import Cameras
from multiview.visual_hull import HALF_SIDE, PIXEL_CENTRE, silhouette_distance

log = logging.getLogger(__name__)

MASK_SIZE = 128
"""Pixels a side, at most, at which masks are compared."""
THIN = 0.3
"""Pixels of a reduced mask belong to the object from this share on, so that rods stay whole."""
LATTICE = 52
"""Points a side of the lattice on which hulls are sought."""
SAMPLES = 80
"""Samples along a line of sight through the lattice."""
SIGHTS = 256
"""Lines of sight a view, spread over its mask, that should meet the hull."""
TOLERANCE = 0.015
"""Share of the image's side by which outlines may contradict each other: half the diagonal of the
lattice's cells, as seen at the origin, or thin parts would fall between its points."""
LEAST_TOLERANCE = 1.0
"""Pixels; outlines of small masks are not more exact than this."""
PRICE = 0.1
"""A view leaves the consensus if that fills the masks by more than this share of one mask."""
STARTS = 24
"""Random small sets of views, at most, from which a consensus is grown."""
MAX_UNFILLED = 0.15
"""Mean share of its masks that a consensus may leave without hull."""
AGREEMENT_SIZE = 64
"""Pixels a side, about, at which the agreement is measured."""
SLACK = 0.03
"""Share of the image's side by which a mask may differ from the hull at no loss of agreement."""
MIN_AGREEMENT = 0.98
"""Where the consensus fills its masks completely, views outside of it are spoiled below this."""
NOISE_WEIGHT = 10.0
"""By how much that sinks with the share of its masks that the consensus leaves unfilled: where all
outlines wobble, one that wobbles a little more is not spoiled."""
LEAST_AGREEMENT = 0.5
"""It does not sink below this."""
FINE_SAMPLES = 400
"""Samples along a line of sight where a mask is made."""

Cost = Callable[[np.ndarray], float]
"""Set of views, bool (N,) -> how badly they explain the masks."""


@dataclass(frozen=True)
class RepairedMasks:
    """Masks that fit together.

    Attributes:
        masks: in [0, 1], (N, S, S) float32; spoiled ones replaced by what the others say.
        replaced: numbers of the replaced views.
        agreement: of each given mask with the silhouette of the other views' hull, in [0, 1], (N,):
            intersection over union, with differences of a few pixels left out; 0 for masks that
            are empty or full.
    """

    masks: np.ndarray
    replaced: tuple[int, ...]
    agreement: np.ndarray


def repair_masks(masks: np.ndarray, cameras: Cameras) -> RepairedMasks:
    """Replace the masks that contradict most of the others; the others stay as they are.

    Args:
        masks: in [0, 1], (N, S, S).
        cameras: N >= 3, for S x S images.

    Returns:
        the masks as given, with a warning in the log, where no more than half of them fit together.

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
    small = np.stack([_reduced(mask) for mask in given])
    usable = np.array([mask.any() and not mask.all() for mask in small])
    if not usable.any():
        return RepairedMasks(given, (), np.zeros(count))

    evidence = _gather(small, cameras.scaled(small.shape[-1] / size))
    consensus = _find_consensus(evidence, usable)
    agreement = np.array([_agreement(evidence, k, consensus) for k in range(count)]) * usable
    unfilled = float(_unfilled(evidence, consensus)[consensus].mean())
    if 2 * consensus.sum() <= count or unfilled > MAX_UNFILLED:
        log.warning(
            "no more than %d of %d masks fit together%s: none is repaired; look at the views, and "
            "take other ones or get their masks in another way",
            consensus.sum(),
            count,
            ", and these badly" if unfilled > MAX_UNFILLED else "",
        )
        return RepairedMasks(given, (), agreement)

    needed = max(MIN_AGREEMENT - NOISE_WEIGHT * unfilled, LEAST_AGREEMENT)
    spoiled = ~consensus & (agreement < needed)
    if not spoiled.any():
        return RepairedMasks(given, (), agreement)
    mended = given.copy()
    distances = {int(k): silhouette_distance(given[k] >= 0.5) for k in np.flatnonzero(consensus)}
    replaced = tuple(int(k) for k in np.flatnonzero(spoiled))
    for k in replaced:
        mended[k] = _silhouette(evidence, k, distances, cameras)
    return RepairedMasks(mended, replaced, agreement)


def _reduced(mask: np.ndarray) -> np.ndarray:
    """What of a mask is the object, bool, at `MASK_SIZE` pixels a side if it has more."""
    if len(mask) <= MASK_SIZE:
        return mask >= 0.5
    small = Image.fromarray(mask).resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BOX)
    return np.asarray(small) >= THIN


@dataclass(frozen=True)
class _Evidence:
    """How every view judges the points of a lattice, and lines of sight through it.

    Attributes:
        masks: bool (N, L, L).
        cameras: for L x L images.
        outside: points too far outside of a view's mask, bool (N, V**3 + 1); the last one stands
            for all that is off the lattice, where no hull is.
        sights: numbers of the points along lines of sight in the masks, (D, N, R).
    """

    masks: np.ndarray
    cameras: Cameras
    outside: np.ndarray
    sights: np.ndarray

    def hull(self, views: np.ndarray) -> np.ndarray:
        """Points that no view of a set, bool (N,), has outside; bool (V**3 + 1,)."""
        hull: np.ndarray = ~self.outside[views].any(axis=0)
        hull[-1] = False
        return hull


def _gather(masks: np.ndarray, cameras: Cameras) -> _Evidence:
    size = masks.shape[-1]
    tolerance = max(TOLERANCE * size, LEAST_TOLERANCE)
    axis = np.linspace(-HALF_SIDE, HALF_SIDE, LATTICE, dtype=np.float32)
    outside = np.ones((len(masks), LATTICE**3 + 1), dtype=bool)
    sights = np.full((SAMPLES, len(masks), SIGHTS), LATTICE**3)
    for k, mask in enumerate(masks):
        column, row = _project(cameras, k, *np.ix_(axis, axis, axis))
        column, row = (np.clip(place, 0, size - 1).astype(np.intp) for place in (column, row))
        outside[k, :-1] = (_distance(mask) > tolerance)[row, column].ravel()
        rows, columns = np.nonzero(mask)
        if len(rows):
            spread = np.linspace(0, len(rows) - 1, SIGHTS).round().astype(np.intp)
            points = _along(cameras, k, rows[spread], columns[spread], SAMPLES)
            sights[:, k] = _numbers(points)
    return _Evidence(masks, cameras, outside, sights)


def _project(
    cameras: Cameras, k: int, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of points in view k, pixels counted from the image's edge.

    Three sums instead of a matrix product: lattice axes are broadcast, and it stays in float32.
    """
    matrix = (cameras.intrinsics[k] @ cameras.world_to_camera[k]).astype(np.float32)
    column, row, depth = (a * x + b * y + (c * z + d) for a, b, c, d in matrix)
    return column / depth, row / depth


def _along(
    cameras: Cameras, k: int, rows: np.ndarray, columns: np.ndarray, samples: int
) -> np.ndarray:
    """Points on the lines of sight of pixels of view k, x y z, (3, D, R) for D = `samples`."""
    pose = cameras.world_to_camera[k]
    pixels = np.stack([columns + PIXEL_CENTRE, rows + PIXEL_CENTRE, np.ones(len(rows))])
    directions = pose[:, :3].T @ np.linalg.inv(cameras.intrinsics[k]) @ pixels
    origin = -pose[:, :3].T @ pose[:, 3]
    reach = np.sqrt(3) * HALF_SIDE
    depths = np.linspace(max(pose[2, 3] - reach, 0), pose[2, 3] + reach, samples)
    points = origin[:, None, None] + depths[:, None] * directions[:, None]
    return points.astype(np.float32)


def _numbers(points: np.ndarray) -> np.ndarray:
    """Numbers of the lattice's points nearest to any points, (3, D, R) -> (D, R)."""
    x, y, z = index = ((points / HALF_SIDE + 1) * ((LATTICE - 1) / 2)).round().astype(np.intp)
    inside = ((index >= 0) & (index < LATTICE)).all(axis=0)
    return np.where(inside, (x * LATTICE + y) * LATTICE + z, LATTICE**3)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to a mask's outline, negative inside, (S, S); infinite where there is none."""
    if mask.all() or not mask.any():
        return np.where(mask, -np.inf, np.inf)
    return silhouette_distance(mask)


def _unfilled(evidence: _Evidence, views: np.ndarray) -> np.ndarray:
    """Share of each mask, (N,), behind which there is no hull of a set of views."""
    filled = evidence.hull(views)[evidence.sights].any(axis=0)  # (N, R)
    return 1 - filled.mean(axis=1)


def _agreement(evidence: _Evidence, k: int, views: np.ndarray) -> float:
    """Compare the mask of view k with the hull of a set of views without it, see `RepairedMasks`.

    The hull can be larger than the object where only view k would see that; it is little with many
    views, and much only along the slopes of hollows.
    """
    others = views.copy()
    others[k] = False
    step = max(1, round(evidence.masks.shape[-1] / AGREEMENT_SIZE))
    mask = evidence.masks[k, ::step, ::step]
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]].reshape(2, -1) * step
    points = _along(evidence.cameras, k, rows, columns, SAMPLES)
    silhouette = evidence.hull(others)[_numbers(points)].any(axis=0).reshape(mask.shape)
    slack = SLACK * len(mask)
    excess = mask & (_distance(silhouette) > slack)
    lack = silhouette & (_distance(mask) > slack)
    return 1 - float((excess | lack).sum() / max(1, (mask | silhouette).sum()))


def _find_consensus(evidence: _Evidence, usable: np.ndarray) -> np.ndarray:
    """Find the set of views that explain their masks best, and are many.

    The cost is what of their masks their hull does not fill, and `PRICE` for each one left out.
    Removing views one by one from all does not find it if several are spoiled, for the hull is
    gone until the last of them is removed. So small sets are grown, too, until the best result
    has come twice.

    Args:
        evidence: of N views.
        usable: views with an outline, bool (N,).

    Returns:
        bool (N,).
    """

    def cost(views: np.ndarray) -> float:
        return float(_unfilled(evidence, views)[views].sum() + PRICE * (~views).sum())

    best, lowest = usable, cost(usable)
    if lowest < PRICE * (1 + (~usable).sum()):  # no view's removal can pay
        return best
    found: set[bytes] = set()
    for start in _starts(usable):
        views = _improved(_grown(start, usable, cost), usable, cost)
        again = views.tobytes() in found
        found.add(views.tobytes())
        if cost(views) < lowest:
            best, lowest = views, cost(views)
        if again and np.array_equal(views, best):
            break
    return best


def _starts(usable: np.ndarray) -> Iterator[np.ndarray]:
    """All usable views, then random quarters of all views, bool (N,)."""
    yield usable
    generator = np.random.default_rng(0)
    numbers = np.flatnonzero(usable)
    quarter = min(len(numbers), max(2, len(usable) // 4))
    for _ in range(STARTS):
        views = np.zeros_like(usable)
        views[generator.choice(numbers, quarter, replace=False)] = True
        yield views


def _grown(views: np.ndarray, usable: np.ndarray, cost: Cost) -> np.ndarray:
    """Add every view, one after the other, that lowers the cost."""
    for k in np.flatnonzero(usable & ~views):
        views = min(views, _flipped(views, int(k)), key=cost)
    return views


def _improved(views: np.ndarray, usable: np.ndarray, cost: Cost) -> np.ndarray:
    """Add or remove single views, always the best one, as long as that lowers the cost."""
    while True:
        neighbours = [_flipped(views, int(k)) for k in np.flatnonzero(usable)]
        best = min(neighbours, key=cost)
        if cost(best) >= cost(views):
            return views
        views = best


def _flipped(views: np.ndarray, k: int) -> np.ndarray:
    flipped = views.copy()
    flipped[k] = ~flipped[k]
    return flipped


def _silhouette(
    evidence: _Evidence, k: int, distances: dict[int, np.ndarray], cameras: Cameras
) -> np.ndarray:
    """Draw the hull of other views as view k sees it, at full size.

    The lattice tells roughly where to look; what is drawn is, for every line of sight, how deep it
    goes into all silhouettes at the best of its points. Then thin parts are as sharp as the masks.

    Args:
        evidence: from which the views were chosen.
        k: not one of them.
        distances: to the outlines of the views, pixels, negative inside, (S, S) each.
        cameras: for S x S images.

    Returns:
        in [0, 1], with soft edges, (S, S) float32.
    """
    edge, size = evidence.masks.shape[-1], next(iter(distances.values())).shape[-1]
    hull = evidence.hull(np.isin(np.arange(len(evidence.masks)), list(distances)))
    rows, columns = np.mgrid[:edge, :edge].reshape(2, -1)
    near = _numbers(_along(evidence.cameras, k, rows, columns, SAMPLES))
    (sights,) = np.nonzero(hull[near].any(axis=0))

    points = _along(evidence.cameras, k, rows[sights], columns[sights], FINE_SAMPLES)
    inside = hull[_numbers(points)]  # (D, R)
    points = points[:, inside]
    deepest = np.full(points.shape[1], -np.inf, dtype=np.float32)
    for j, distance in distances.items():
        column, row = _project(cameras, j, *points)
        places = np.stack([row, column]) - PIXEL_CENTRE
        there = ndimage.map_coordinates(distance, places, order=1, mode="nearest")
        np.maximum(deepest, there, out=deepest)

    along = np.full(inside.shape, TOLERANCE * size, dtype=np.float32)
    along[inside] = deepest
    drawn = np.full(edge * edge, TOLERANCE * size, dtype=np.float32)
    drawn[sights] = along.min(axis=0)
    image = Image.fromarray(drawn.reshape(edge, edge))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.clip(0.5 - np.asarray(image), 0.0, 1.0)
