"""Estimate from which elevation a picture of an object was taken, given views of the object.

The views are drafts that a model makes for an assumed elevation, or any others. A coarse coloured
hull of them is looked at from azimuth 0 and many elevations, and the look that is most like the
picture tells. The pictures may be framed differently: objects are brought to the same area and the
same place first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from multiview.cameras import orbit_cameras, orbit_pose
from multiview.visual_hull import close_underside
from pipeline.selection.hull_renderer import QuickHull, carve, quick_views
from pipeline.selection.similarity import agreement, aligned, input_picture

Draft = Callable[[float], np.ndarray]
"""Assumed elevation of the input in degrees -> views on white, the first at the input's azimuth,
uint8 or float in [0, 1], (N, H, H, 3)."""

DISTANCE = 1.5
"""From the cameras to the origin, in world units."""
PSNR_WEIGHT = 0.05
"""What a dB of colour counts beside an overlap of silhouettes from 0 to 1."""
FALL = 0.04
"""How far below its peak a score is still as good. On 180 inputs of 60 toys, with true views in
place of drafts, 73 % of the elevations were within the range and 94 % within twice the range; the
median error was 1.2 degrees, 90 % were below 4.1, and the largest was 15."""


@dataclass(frozen=True)
class ElevationConfig:
    """How an elevation is sought.

    Attributes:
        lowest: degrees, the first candidate.
        highest: degrees, the last candidate at most.
        step: degrees between candidates.
        drafts_at: degrees, rising; for which elevations drafts are made. Between two of them the
            scores of both are mixed, beyond them the nearest counts.
        views_elevation: degrees above the horizon of the drafts' cameras.
        size: pixels a side at which pictures are compared.
        resolution: of the hull, points a side.
    """

    lowest: float = -10.0
    highest: float = 40.0
    step: float = 2.5
    drafts_at: tuple[float, ...] = (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
    views_elevation: float = 30.0
    size: int = 64
    resolution: int = 64

    def __post_init__(self) -> None:
        if not -90 < self.lowest < self.highest < 90:
            raise ValueError(
                f"the elevations must rise between -90 and 90, got {self.lowest} to {self.highest}"
            )
        if self.step <= 0 or self.size < 16 or self.resolution < 16:
            raise ValueError("the step must be positive, size and resolution at least 16")
        if not self.drafts_at or list(self.drafts_at) != sorted(set(self.drafts_at)):
            raise ValueError(f"drafts_at must rise, got {self.drafts_at}")

    def candidates(self) -> np.ndarray:
        """Elevations that are tried, degrees, (E,)."""
        return np.arange(self.lowest, self.highest + 1e-6, self.step)


@dataclass(frozen=True)
class ElevationEstimate:
    """Where a picture was taken from.

    Attributes:
        elevation_deg: the estimate.
        uncertainty_deg: half the width of the score's peak, see `FALL`. Drafts of a model add
            errors of their own, which it does not tell.
        candidates_deg: what was tried, (E,).
        scores: of the candidates, silhouettes and colours together, (E,).
        silhouettes: overlap of the outlines, in [0, 1], (E,).
        psnrs: of the colours, dB, (E,).
    """

    elevation_deg: float
    uncertainty_deg: float
    candidates_deg: np.ndarray
    scores: np.ndarray
    silhouettes: np.ndarray
    psnrs: np.ndarray


def estimate_elevation(
    image: np.ndarray, draft: Draft, config: ElevationConfig | None = None
) -> ElevationEstimate:
    """Estimate the elevation of an input image.

    Args:
        image: RGBA, or RGB on white, uint8 or float in [0, 1], (H, W, 4) or (H, W, 3).
        draft: makes views; called once for each of `config.drafts_at`.
        config: what is tried.

    Raises:
        ValueError: no object in the image or in a view, or views of no common shape.
    """
    config = config or ElevationConfig()
    seen = input_picture(image, config.size)
    curves = np.stack(
        [_curves(seen, fit_hull(draft(assumed), config), config) for assumed in config.drafts_at]
    )
    candidates = config.candidates()
    silhouettes, psnrs = (
        _mixed(curves[:, :, kind], np.array(config.drafts_at), candidates) for kind in (0, 1)
    )
    scores = silhouettes + PSNR_WEIGHT * psnrs
    return ElevationEstimate(
        _peak(candidates, scores), _half_width(candidates, scores),
        candidates, scores, silhouettes, psnrs,
    )  # fmt: skip


def fit_hull(images: np.ndarray, config: ElevationConfig) -> QuickHull:
    """Fit a coarse coloured hull to views, its underside closed.

    Args:
        images: see `Draft`.
        config: sizes, and the elevation of the views.

    Raises:
        ValueError: no object in a view, or nothing that all views have in common.
    """
    cameras = orbit_cameras(len(images), config.views_elevation, DISTANCE, images.shape[1])
    views = quick_views(images, cameras, config.size)
    hull = carve(views, config.resolution).amax(dim=0)
    if not (hull < 0).any():
        raise ValueError("the views have no volume in common: no shape has these silhouettes")
    return QuickHull(views, torch.from_numpy(close_underside(hull.numpy(), views.cameras)))


def look_from(hull: QuickHull, elevation_deg: float) -> tuple[Tensor, Tensor]:
    """Alpha (S, S) and colours (3, S, S) of a hull, seen from azimuth 0 and aligned."""
    pose = orbit_pose(float(np.deg2rad(elevation_deg)), 0.0, DISTANCE)
    picture = hull.picture(hull.views.cameras.intrinsics[0], pose, hull.views.size)
    return aligned(picture.alpha, picture.colours, hull.views.size)


def _curves(seen: tuple[Tensor, Tensor], hull: QuickHull, config: ElevationConfig) -> np.ndarray:
    """Overlap and PSNR for all candidates, (E, 2)."""
    target = aligned(*seen, hull.views.size)
    found = [
        agreement(*target, *look_from(hull, float(elevation))) for elevation in config.candidates()
    ]
    return np.array([[each.silhouette, each.psnr] for each in found])


def _mixed(curves: np.ndarray, drafts_at: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Score each candidate by the drafts that were made for elevations next to it.

    Args:
        curves: of every draft at all candidates, (K, E).
        drafts_at: elevations of the drafts, rising, (K,).
        candidates: (E,).

    Returns:
        (E,).
    """
    places = np.interp(candidates, drafts_at, np.arange(len(drafts_at)))
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, len(drafts_at) - 1)
    share, index = places - below, np.arange(len(candidates))
    mixed: np.ndarray = (1 - share) * curves[below, index] + share * curves[above, index]
    return mixed


def _peak(places: np.ndarray, values: np.ndarray) -> float:
    """Where the parabola through the largest of E values and those beside it is highest."""
    at = int(values.argmax())
    if not 0 < at < len(values) - 1:
        return float(places[at])
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(places[at] + shift * (places[1] - places[0]))


def _half_width(places: np.ndarray, values: np.ndarray) -> float:
    """Half of the range in which E values, linear between the places, are within `FALL` of the top.

    Other peaks that are as high are in the range: then it is wide.
    """
    fine = np.linspace(places[0], places[-1], 20 * len(places))
    between = np.interp(fine, places, values)
    good = fine[between >= values.max() - FALL]
    return float(max(np.ptp(good) / 2, fine[1] - fine[0]))


def plot_scores(estimate: ElevationEstimate, width: int = 480, height: int = 240) -> Image.Image:
    """Draw the scores over the elevations, the estimate and its uncertainty.

    Args:
        estimate: what to draw.
        width: pixels of the picture.
        height: pixels of the picture.

    Returns:
        RGB image.
    """
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    left, right, top, bottom = 48, width - 16, 24, height - 32
    places, scores = estimate.candidates_deg, estimate.scores
    low, high = float(scores.min()), float(scores.max())

    def across(elevation: float) -> float:
        share = (elevation - places[0]) / max(np.ptp(places), 1e-9)
        return float(left + np.clip(share, 0, 1) * (right - left))

    def down(score: float) -> float:
        return bottom - (score - low) / max(high - low, 1e-9) * (bottom - top)

    middle, spread = estimate.elevation_deg, estimate.uncertainty_deg
    draw.rectangle((across(middle - spread), top, across(middle + spread), bottom), fill="#dbe8f6")
    draw.line((across(middle), top, across(middle), bottom), fill="#c03020", width=2)
    draw.rectangle((left, top, right, bottom), outline="#888888")
    points = [(across(place), down(score)) for place, score in zip(places, scores, strict=True)]
    draw.line(points, fill="#1f5fa8", width=2)
    for place in np.arange(np.ceil(places[0] / 10) * 10, places[-1] + 1e-6, 10):
        draw.line((across(place), bottom, across(place), bottom + 4), fill="#888888")
        draw.text((across(place) - 6, bottom + 8), f"{place:g}", fill="black")
    draw.text((4, down(high) - 5), f"{high:.3f}", fill="black")
    draw.text((4, down(low) - 5), f"{low:.3f}", fill="black")
    draw.text((left, 6), f"{middle:.1f} +- {spread:.1f} degrees", fill="black")
    return picture
