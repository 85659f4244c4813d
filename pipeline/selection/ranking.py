"""Order samples of one input by how well their views fit together, and to the input.

    python -m evaluation.ranking output/locomotive/*.png --input testset/locomotive.png \
        --elevation 20

prints the samples, the best one first, and writes scores.json beside the first. No true views are
needed and no network: the views of an object show one shape with one painting, so some of them
tell what the others must look like. A coarse coloured hull (`selection.hull_renderer`) is enough to
ask them, in half a second a sample.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.files import atomic_write
from evaluation.results import angle, table_row, to_json
from multiview.cameras import orbit_cameras, orbit_pose
from multiview.images import read_image
from multiview.views import NUM_VIEWS, read_views
from multiview.visual_hull import close_underside
from pipeline.selection.hull_renderer import QuickHull, QuickViews, carve, look, quick_views
from pipeline.selection.similarity import (
    BEST_PSNR,
    Agreement,
    agreement,
    aligned,
    input_picture,
    soft_iou,
)

SIZE = 64
"""Pixels a side at which views are compared."""
RESOLUTION = 48
"""Points a side of the hulls' lattice."""
DISTANCE = 1.5
"""From the cameras to the origin, in world units."""
VIEWS_ELEVATION = 30.0
"""Degrees: of the views' cameras."""
SCORES = "scores.json"


@dataclass(frozen=True)
class Weights:
    """How much each part counts in a sample's score; what was not measured is left out.

    The patterns count most: of 14 ways to spoil views, tried on 30 toys, each lowered them in
    nearly all cases, and no other part did: silhouettes do not see a blurred view, nor one of other
    colours, and colours hardly a noisy one. With these weights the true views of 30 further toys
    came before the spoiled ones in 99 % of 420 cases, with and without the input; what was missed
    were flipped views of nearly symmetric objects, and slight blur of all views. Of four samples of
    the small model (32 held-out toys), the one with the best score is the nearest to the true views
    in 53 % of the cases where samples differ (8 steps, temperature 1: 0.2 dB above their mean; 0.5
    at best), and no better than any where they hardly do (2 steps, temperature 0.3: 0.1 dB at
    best). The sum is 1.

    Attributes:
        leave_one_out: of `SampleScore.leave_one_out`.
        halves_volume: of `SampleScore.halves_volume`.
        halves_pattern: of `SampleScore.halves_pattern`.
        halves_psnr: of `SampleScore.halves_psnr` over 40 dB.
        input_silhouette: of `SampleScore.input_silhouette`.
        input_pattern: of `SampleScore.input_pattern`.
        input_psnr: of `SampleScore.input_psnr` over 40 dB.
    """

    leave_one_out: float = 0.15
    halves_volume: float = 0.15
    halves_pattern: float = 0.35
    halves_psnr: float = 0.05
    input_silhouette: float = 0.1
    input_pattern: float = 0.1
    input_psnr: float = 0.1


@dataclass(frozen=True)
class SampleScore:
    """How well the views of a sample fit together, and to the input.

    Attributes:
        leave_one_out: overlap of each mask with the hull of all others, mean over the views,
            in [0, 1].
        worst_view: number of the view that the others' pattern fits worst; perhaps a bad one.
        halves_volume: overlap of the volumes that the even and the odd views tell, in [0, 1].
        halves_pattern: how alike each view's pattern is to what the other half shows there, mean
            over the views, in [-1, 1].
        halves_psnr: the same of the colours, dB, at most 40.
        input_silhouette: overlap of the input's outline with the hull's, in [0, 1].
        input_pattern: the same of the patterns, in [-1, 1].
        input_psnr: the same of the colours, dB, at most 40.
        score: weighted mean; compare it only between samples of one input.
        problem: why nothing was measured; the score is then 0.
    """

    leave_one_out: float = 0.0
    worst_view: int | None = None
    halves_volume: float = 0.0
    halves_pattern: float = 0.0
    halves_psnr: float = 0.0
    input_silhouette: float | None = None
    input_pattern: float | None = None
    input_psnr: float | None = None
    score: float = 0.0
    problem: str = ""


def score_sample(
    images: np.ndarray,
    image: np.ndarray | None = None,
    elevation_deg: float | None = None,
    weights: Weights | None = None,
) -> SampleScore:
    """Measure one sample.

    Args:
        images: views on white at elevation 30, equal azimuth steps from the input's on, uint8 or
            float in [0, 1], (N, S, S, 3), N even and at least 6.
        image: the input: RGBA, or RGB on white, uint8 or float in [0, 1], (H, W, 4) or (H, W, 3);
            its size in the picture and its place do not matter.
        elevation_deg: of the input; both or none of the two.
        weights: of the parts.

    Returns:
        a score of 0 and the problem where a view shows no object.

    Raises:
        ValueError: shapes that do not fit, no object in the input, or only one of input and
            elevation.
    """
    if (image is None) != (elevation_deg is None):
        raise ValueError("an input and its elevation are given together")
    if len(images) < 6 or len(images) % 2:
        raise ValueError(f"expected an even number of views, at least 6, got {len(images)}")
    cameras = orbit_cameras(len(images), VIEWS_ELEVATION, DISTANCE, images.shape[1])
    shown = None if image is None else input_picture(image, SIZE)
    try:
        views = quick_views(images, cameras, min(SIZE, images.shape[1]))
    except ValueError as error:
        if images.shape != (len(images), images.shape[1], images.shape[1], 3):
            raise
        return SampleScore(problem=str(error))
    distances = carve(views, RESOLUTION)
    volume, halves = _halves(views, distances)
    measured: dict[str, float | None] = {
        "leave_one_out": _leave_one_out(views, distances),
        "halves_volume": volume,
        "halves_pattern": float(np.mean([half.pattern for half in halves])),
        "halves_psnr": float(np.mean([half.psnr for half in halves])),
    }
    if shown is not None and elevation_deg is not None:
        seen = _from_input(views, distances, shown, elevation_deg)
        measured |= {
            "input_silhouette": seen.silhouette,
            "input_pattern": seen.pattern,
            "input_psnr": seen.psnr,
        }
    worst = int(np.argmin([half.pattern for half in halves]))
    score = _combined(measured, weights or Weights())
    return SampleScore(**measured, worst_view=worst, score=score)  # type: ignore[arg-type]


def _leave_one_out(views: QuickViews, distances: Tensor) -> float:
    """Mean overlap of each view's mask with the hull of all others, see `carve`."""
    largest = distances.topk(2, dim=0)
    overlaps = []
    for k, mask in enumerate(views.masks):
        without = torch.where(largest.indices[0] == k, largest.values[1], largest.values[0])
        intrinsics, pose = views.cameras.intrinsics[k], views.cameras.world_to_camera[k]
        overlaps.append(soft_iou(look(without, intrinsics, pose, views.size)[0], mask))
    return float(np.mean(overlaps))


def _halves(views: QuickViews, distances: Tensor) -> tuple[float, list[Agreement]]:
    """Compare even and odd views.

    Returns:
        overlap of their hulls' volumes, and how well each view agrees with the other half, (N).
    """
    numbers = range(len(views))
    fields = [distances[first::2].amax(dim=0) for first in (0, 1)]
    hulls = [QuickHull(views.subset(numbers[first::2]), fields[first]) for first in (0, 1)]
    volume = soft_iou(*[(field < 0).float() for field in fields])
    found = []
    for k in numbers:
        intrinsics, pose = views.cameras.intrinsics[k], views.cameras.world_to_camera[k]
        told = hulls[1 - k % 2].picture(intrinsics, pose, views.size)
        found.append(agreement(told.alpha, told.colours, views.masks[k], views.colours[k]))
    return volume, found


def _from_input(
    views: QuickViews, distances: Tensor, shown: tuple[Tensor, Tensor], elevation_deg: float
) -> Agreement:
    """Compare the input with what the views tell about its camera.

    It is at azimuth 0, so that mainly view 0 is turned to its elevation.
    """
    closed = close_underside(distances.amax(dim=0).numpy(), views.cameras)
    hull = QuickHull(views, torch.from_numpy(closed))
    pose = orbit_pose(float(np.deg2rad(elevation_deg)), 0.0, DISTANCE)
    told = hull.picture(views.cameras.intrinsics[0], pose, views.size)
    return agreement(*aligned(told.alpha, told.colours, SIZE), *aligned(*shown, SIZE))


def _combined(measured: dict[str, float | None], weights: Weights) -> float:
    """Weighted mean of what was measured."""
    total = sum_of_weights = 0.0
    for name, weight in asdict(weights).items():
        value = measured.get(name)
        if value is not None:
            total += weight * (value / BEST_PSNR if name.endswith("psnr") else value)
            sum_of_weights += weight
    return total / sum_of_weights


def order(scores: Sequence[SampleScore]) -> list[int]:
    """Numbers of the samples, the best one first; equal ones as they came."""
    return sorted(range(len(scores)), key=lambda k: -scores[k].score)


def write_scores(path: Path, names: Sequence[str], scores: Sequence[SampleScore]) -> None:
    """Write the scores of samples, the best one first, as JSON; whole or not at all.

    A list of objects: name, rank from 1, and the attributes of `SampleScore`.

    Raises:
        OSError: the file cannot be written.
    """
    rows = [
        {"name": names[k], "rank": rank, **asdict(scores[k])}
        for rank, k in enumerate(order(scores), start=1)
    ]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(to_json(rows), indent=1) + "\n", encoding="utf-8")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("samples", type=Path, nargs="+",
        help="strips of 16 views or folders of them (000.png ..), all of one input")  # fmt: skip
    add("--input", type=Path, help="the input image, RGBA or on white; needs --elevation")
    add("--elevation", type=angle, help="of the input, degrees")
    add("--out", type=Path, help=f"JSON file (default: {SCORES} in the first sample's folder)")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Order the samples that the command line names."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.input is None) != (args.elevation is None):
        parser.error("--input and --elevation are given together, or neither")
    image = None if args.input is None else np.asarray(read_image(args.input))
    strips = [read_views(path, NUM_VIEWS) for path in args.samples]
    scores = [score_sample(views, image, args.elevation) for views in strips]
    write_scores(args.out or args.samples[0].parent / SCORES, list(map(str, args.samples)), scores)
    for k in order(scores):
        print(table_row(str(args.samples[k]), scores[k].score, scores[k].problem or None))
