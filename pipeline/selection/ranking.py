"""Rank samples of one input by the consistency of their views with each other and with the input.

    python -m evaluation.ranking output/locomotive/*.png --input testset/locomotive.png \
        --elevation 20

prints the samples, best first, and writes scores.json beside the first. It needs no ground truth
and no network: consistent views show one shape with one texture, so some of them predict the
others, through a coarse textured hull (`selection.hull_renderer`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from common.records import read_json, write_json
from evaluation.cli_args import angle
from evaluation.results import table_row, to_json
from multiview.cameras import CAMERA_DISTANCE, NUM_VIEWS, VIEWS_ELEVATION_DEG, orbit_cameras
from multiview.image_file import read_image
from multiview.plausibility import new_colours, off_centre, plausibility
from multiview.views import read_views
from multiview.visual_hull import close_underside
from pipeline.selection.elevation import render_hull
from pipeline.selection.hull_renderer import (
    LowResViews,
    TexturedHull,
    downsample_views,
    raycast_sdf,
    silhouette_distances,
)
from pipeline.selection.similarity import (
    BEST_PSNR,
    CROP_SIDE,
    ObjectCrop,
    Similarity,
    crop_object,
    measure_similarity,
    normalise_scale,
    soft_iou,
)

RESOLUTION = 48
"""Points a side of the hulls' lattice."""
SCORES = "scores.json"
POOR_SCORE = 0.36
"""A lower score means that the views do not fit together (docs/results.md)."""
MISFIT = "views do not fit together"


@dataclass(frozen=True)
class Weights:
    """Weights of the parts of a sample's score, summing to 1; unmeasured parts are left out.

    Patterns weigh most because every tried kind of damage lowers them (docs/results.md).
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
    """Consistency of a sample's views with each other and with the input.

    Attributes:
        leave_one_out: soft IoU of each mask with the hull of all other views, mean over the views,
            in [0, 1].
        worst_view: number of the view with the lowest pattern similarity to the others.
        halves_volume: IoU of the visual hulls of the even and of the odd views, in [0, 1].
        halves_pattern: pattern similarity (`Similarity.pattern`) of each view to the render of the
            other half's hull, mean over the views, in [-1, 1].
        halves_psnr: the same for colours, dB, at most 40.
        input_silhouette: soft IoU of the input's silhouette with the hull's, in [0, 1].
        input_pattern: pattern similarity of the input and the hull's render, in [-1, 1].
        input_psnr: the same for colours, dB, at most 40.
        off_centre: distance of the object from the middle of the views, see `plausibility`.
        new_colours: share of pixels with colours that view 0 lacks, in [0, 1].
        score: weighted mean of the parts before these two, times their `plausibility`. Differences
            mean most between samples of one input; below `POOR_SCORE` views do not fit together.
        problem: why nothing could be measured (the score is then 0), else empty.
    """

    leave_one_out: float = 0.0
    worst_view: int | None = None
    halves_volume: float = 0.0
    halves_pattern: float = 0.0
    halves_psnr: float = 0.0
    input_silhouette: float | None = None
    input_pattern: float | None = None
    input_psnr: float | None = None
    off_centre: float = 0.0
    new_colours: float = 0.0
    score: float = 0.0
    problem: str = ""

    @property
    def warning(self) -> str:
        """The problem, or that the views do not fit together; empty if they do."""
        poor = f"{MISFIT}: score {self.score:.2f}, below {POOR_SCORE}"
        return self.problem or (poor if self.score < POOR_SCORE else "")


def score_sample(
    images: np.ndarray, target: ObjectCrop | None = None, elevation_deg: float | None = None
) -> SampleScore:
    """Score one sample; 0 and the problem where a view shows no object.

    Args:
        images: views on white at elevation 30, equal azimuth steps from the input's on, uint8 or
            float in [0, 1], (N, S, S, 3), N even.
        target: the input image, cropped to `CROP_SIDE` pixels.
        elevation_deg: of the input; give both `target` and this, or neither.
    """
    cameras = orbit_cameras(len(images), VIEWS_ELEVATION_DEG, CAMERA_DISTANCE, images.shape[1])
    try:
        views = downsample_views(images, cameras, min(CROP_SIDE, images.shape[1]))
    except ValueError as error:
        return SampleScore(problem=str(error))
    distances = silhouette_distances(views, RESOLUTION)
    volume, halves = _compare_halves(views, distances)
    measured: dict[str, float | None] = {
        "leave_one_out": _leave_one_out(views, distances),
        "halves_volume": volume,
        "halves_pattern": float(np.mean([half.pattern for half in halves])),
        "halves_psnr": float(np.mean([half.psnr for half in halves])),
    }
    if target is not None and elevation_deg is not None:
        seen = _compare_with_input(views, distances, target, elevation_deg)
        measured |= {f"input_{name}": value for name, value in seen._asdict().items()}
    worst = int(np.argmin([half.pattern for half in halves]))
    off = float(off_centre(views.masks).mean())
    new = float(new_colours(views.colours, views.masks).mean())
    score = _weighted_mean(measured) * plausibility(off, new)
    measured |= {"off_centre": off, "new_colours": new}
    return SampleScore(**measured, worst_view=worst, score=score)  # type: ignore[arg-type]


def _leave_one_out(views: LowResViews, distances: Tensor) -> float:
    """Mean soft IoU of each mask with the hull of all other views, see `silhouette_distances`."""
    largest = distances.topk(2, dim=0)
    overlaps = []
    for k, mask in enumerate(views.masks):
        without = torch.where(largest.indices[0] == k, largest.values[1], largest.values[0])
        intrinsics, pose = views.cameras.intrinsics[k], views.cameras.world_to_camera[k]
        overlaps.append(soft_iou(raycast_sdf(without, intrinsics, pose, views.size)[0], mask))
    return float(np.mean(overlaps))


def _compare_halves(views: LowResViews, distances: Tensor) -> tuple[float, list[Similarity]]:
    """IoU of the hulls of even and odd views; similarity of each view to the other half's, (N)."""
    numbers = range(len(views))
    fields = [distances[first::2].amax(dim=0) for first in (0, 1)]
    hulls = [TexturedHull(views.subset(numbers[first::2]), fields[first]) for first in (0, 1)]
    volume = soft_iou(*[(field < 0).float() for field in fields])
    found = []
    for k in numbers:
        intrinsics, pose = views.cameras.intrinsics[k], views.cameras.world_to_camera[k]
        alpha, _, colours = hulls[1 - k % 2].render(intrinsics, pose, views.size)
        found.append(measure_similarity(alpha, colours, views.masks[k], views.colours[k]))
    return volume, found


def _compare_with_input(
    views: LowResViews, distances: Tensor, target: ObjectCrop, elevation_deg: float
) -> Similarity:
    """Compare the input with the hull rendered for the input's camera, which is at azimuth 0."""
    closed = close_underside(distances.amax(dim=0).numpy(), views.cameras)
    hull = TexturedHull(views, torch.from_numpy(closed))
    rendered = render_hull(hull, elevation_deg, CROP_SIDE)
    return measure_similarity(*rendered, *normalise_scale(*target, CROP_SIDE))


def _weighted_mean(measured: dict[str, float | None]) -> float:
    """Mean of the measured parts, see `Weights`."""
    total = sum_of_weights = 0.0
    for name, weight in asdict(Weights()).items():
        value = measured.get(name)
        if value is not None:
            total += weight * (value / BEST_PSNR if name.endswith("psnr") else value)
            sum_of_weights += weight
    return total / sum_of_weights


def order(scores: Sequence[SampleScore]) -> list[int]:
    """Numbers of the samples, best first; a stable sort."""
    return sorted(range(len(scores)), key=lambda k: -scores[k].score)


def write_scores(path: Path, names: Sequence[str], scores: Sequence[SampleScore]) -> None:
    """Write JSON, best first: objects of name, rank from 1, and attributes of `SampleScore`."""
    ranks = enumerate(order(scores), start=1)
    rows = [{"name": names[k], "rank": rank, **asdict(scores[k])} for rank, k in ranks]
    write_json(path, to_json(rows))


def read_scores(path: Path) -> dict[str, SampleScore]:
    """Scores that `write_scores` wrote, by name, best first; empty if the file is damaged."""
    try:
        rows = sorted(read_json(path), key=lambda row: int(row["rank"]))
        names = [item.name for item in fields(SampleScore)]
        return {row["name"]: SampleScore(**{name: row[name] for name in names}) for row in rows}
    except (ValueError, TypeError, KeyError):
        return {}


def rank_samples(
    folder: Path,
    strips: Sequence[Path],
    target: ObjectCrop | None,
    elevation_deg: float | None,
    removed: Mapping[str, SampleScore] = MappingProxyType({}),
) -> tuple[int, SampleScore]:
    """Score the strips <k>.png of one input and write scores.json, see `score_sample`.

    The file also tells the scores of removed samples, which are given by names of strips. Returns
    the number of the best strip in the list, and its score.
    """
    scores = [score_sample(read_views(path, NUM_VIEWS), target, elevation_deg) for path in strips]
    best = order(scores)[0]
    rows = {**dict(zip([path.name for path in strips], scores, strict=True)), **removed}
    names = sorted(rows, key=lambda name: int(Path(name).stem))
    write_scores(folder / SCORES, names, [rows[name] for name in names])
    return best, scores[best]


def main(argv: list[str] | None = None) -> None:
    """Run `python -m evaluation.ranking`."""
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
    args = parser.parse_args(argv)
    if (args.input is None) != (args.elevation is None):
        parser.error("--input and --elevation are given together, or neither")
    target = args.input and crop_object(np.asarray(read_image(args.input)), CROP_SIDE)
    strips = [read_views(path, NUM_VIEWS) for path in args.samples]
    scores = [score_sample(views, target, args.elevation) for views in strips]
    write_scores(args.out or args.samples[0].parent / SCORES, list(map(str, args.samples)), scores)
    for k in order(scores):
        print(table_row(str(args.samples[k]), scores[k].score, scores[k].warning or None))
