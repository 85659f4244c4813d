"""Elevation estimation: compare an input image with renders of a hull of its views.

A coarse textured hull of draft views is rendered from azimuth 0 and many elevations; the render
most similar to the input, at the same object area and centre, gives the elevation. Where that is
view 0 itself, which confirms any elevation that the draft was told, the object's lean counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from multiview.cameras import CAMERA_DISTANCE, VIEWS_ELEVATION_DEG, orbit_cameras, orbit_pose
from multiview.visual_hull import close_underside
from pipeline.selection.hull_renderer import TexturedHull, downsample_views, silhouette_distances
from pipeline.selection.lean import estimate_lean
from pipeline.selection.similarity import CROP_SIDE, ObjectCrop, measure_similarity, normalise_scale

Draft = Callable[[float], np.ndarray]
"""Assumed elevation of the input in degrees -> views on white, the first at the input's azimuth,
uint8 or float in [0, 1], (N, H, H, 3)."""

PSNR_WEIGHT = 0.05
"""Weight of one dB of PSNR relative to a silhouette IoU in [0, 1]."""
PEAK_DROP = 0.04
"""Scores this close to the maximum define the uncertainty range; with true views in place of drafts
73 % of the true elevations lie inside it (docs/results.md)."""
SAME_VIEW_DEG = 6.0
"""An input this near to the elevation of view 0 is that view."""


@dataclass(frozen=True)
class ElevationConfig:
    """Search range and resolution of the elevation estimate.

    Attributes:
        lowest: degrees, the first candidate.
        highest: degrees, the last candidate at most.
        step: degrees between candidates.
        drafts_at: assumed elevations of the drafts, degrees, increasing. Scores of candidates
            between two of them are interpolated; outside, the nearest draft is used.
        views_elevation: degrees above the horizon of the drafts' cameras.
        size: pixels a side at which images are compared.
        resolution: of the hull's lattice, points a side.
    """

    lowest: float = -10.0
    highest: float = 40.0
    step: float = 2.5
    drafts_at: tuple[float, ...] = (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
    views_elevation: float = VIEWS_ELEVATION_DEG
    size: int = CROP_SIDE
    resolution: int = 64

    def candidates(self) -> np.ndarray:
        """The tried elevations, degrees, (E,)."""
        return np.arange(self.lowest, self.highest + 1e-6, self.step)


class ElevationEstimate(NamedTuple):
    """Estimated camera elevation of an input image.

    Attributes:
        elevation_deg: the estimate.
        uncertainty_deg: half the width of the score's peak, see `PEAK_DROP`.
        candidates_deg: tried elevations, (E,).
        scores: of the candidates, silhouettes and colours combined, (E,).
        silhouettes: soft IoU of the silhouettes, in [0, 1], (E,).
        psnrs: of the colours, dB, (E,).
    """

    elevation_deg: float
    uncertainty_deg: float
    candidates_deg: np.ndarray
    scores: np.ndarray
    silhouettes: np.ndarray
    psnrs: np.ndarray


def estimate_elevation(
    target: ObjectCrop, draft: Draft, config: ElevationConfig | None = None
) -> ElevationEstimate:
    """Estimate the elevation of an input image, cropped to `config.size` pixels.

    `draft` is called once for each of `config.drafts_at`.

    Raises:
        ValueError: no object in a view, or views of no common shape.
    """
    config = config or ElevationConfig()
    hulls = (fit_hull(draft(assumed), config) for assumed in config.drafts_at)
    curves = np.stack([_score_curves(target, hull, config) for hull in hulls])
    candidates = config.candidates()
    silhouettes, psnrs = (
        _interpolate_curves(curves[:, :, kind], np.array(config.drafts_at), candidates)
        for kind in (0, 1)
    )
    scores = silhouettes + PSNR_WEIGHT * psnrs
    peak, half_width = _parabola_peak(candidates, scores), _peak_half_width(candidates, scores)
    return ElevationEstimate(peak, half_width, candidates, scores, silhouettes, psnrs)


def fit_hull(images: np.ndarray, config: ElevationConfig) -> TexturedHull:
    """Fit a coarse textured hull with a closed underside to the views of a `Draft`.

    Raises:
        ValueError: no object in a view, or no volume common to all views.
    """
    cameras = orbit_cameras(len(images), config.views_elevation, CAMERA_DISTANCE, images.shape[1])
    views = downsample_views(images, cameras, config.size)
    hull = silhouette_distances(views, config.resolution).amax(dim=0)
    if not (hull < 0).any():
        raise ValueError("the views have no volume in common: no shape has these silhouettes")
    return TexturedHull(views, torch.from_numpy(close_underside(hull.numpy(), views.cameras)))


def render_hull(hull: TexturedHull, elevation_deg: float, size: int) -> tuple[Tensor, Tensor]:
    """Alpha (size, size) and colours (3, size, size) from azimuth 0, scale normalised."""
    pose = orbit_pose(float(np.deg2rad(elevation_deg)), 0.0, CAMERA_DISTANCE)
    view = hull.render(hull.views.cameras.intrinsics[0], pose, hull.views.size)
    return normalise_scale(view.alpha, view.colours, size)


def _score_curves(target: ObjectCrop, hull: TexturedHull, config: ElevationConfig) -> np.ndarray:
    """Silhouette IoU and PSNR of all candidates, (E, 2)."""
    size, candidates = hull.views.size, config.candidates()
    aligned = normalise_scale(*target, size)
    views = (render_hull(hull, float(elevation), size) for elevation in candidates)
    curves = np.array([measure_similarity(*aligned, *view)[:2] for view in views])
    peak = _parabola_peak(candidates, curves @ [1, PSNR_WEIGHT])
    if abs(peak - config.views_elevation) > SAME_VIEW_DEG:
        return curves
    lean = estimate_lean(hull.views, candidates - config.views_elevation)
    return np.stack([np.interp(candidates, candidates + lean, curve) for curve in curves.T], axis=1)


def _interpolate_curves(
    curves: np.ndarray, drafts_at: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Interpolate drafts' scores (K, E) linearly between those nearest to each candidate, (E,)."""
    places = np.interp(candidates, drafts_at, np.arange(len(drafts_at)))
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, len(drafts_at) - 1)
    share, index = places - below, np.arange(len(candidates))
    mixed: np.ndarray = (1 - share) * curves[below, index] + share * curves[above, index]
    return mixed


def _parabola_peak(places: np.ndarray, values: np.ndarray) -> float:
    """Vertex of the parabola through the largest of E values and its two neighbours."""
    at = int(values.argmax())
    if not 0 < at < len(values) - 1:
        return float(places[at])
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(places[at] + shift * (places[1] - places[0]))


def _peak_half_width(places: np.ndarray, values: np.ndarray) -> float:
    """Half-width of the region, over all peaks, within `PEAK_DROP` of the maximum."""
    fine = np.linspace(places[0], places[-1], 20 * len(places))
    between = np.interp(fine, places, values)
    good = fine[between >= values.max() - PEAK_DROP]
    return float(max(np.ptp(good) / 2, fine[1] - fine[0]))


def plot_scores(estimate: ElevationEstimate) -> Image.Image:
    """Plot the scores over the elevations, with the estimate and its uncertainty, as RGB image."""
    width, height = 480, 240
    plot = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(plot)
    left, right, top, bottom = 48, width - 16, 24, height - 32
    places, scores = estimate.candidates_deg, estimate.scores
    low, high = float(scores.min()), float(scores.max())

    def across(elevation: float) -> float:
        fraction = (elevation - places[0]) / max(np.ptp(places), 1e-9)
        return float(left + np.clip(fraction, 0, 1) * (right - left))

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
    return plot
