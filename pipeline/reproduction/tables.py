"""The table of a run beside all published results, and whether its numbers are within the bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.benchmark.evaluate import mean_result
from evaluation.benchmark.tables import METRICS, Table, format_count, format_score
from evaluation.published_results import (
    NUM_OBJECTS,
    NUM_SAMPLES,
    PROTOCOL,
    PUBLISHED_RESULTS,
    TARGETS,
    PublishedResult,
    Target,
)
from evaluation.results import Result
from ldm.config import SamplerConfig
from ldm.sampling.config import GuidanceConfig
from multiview.cameras import REFERENCE_IMAGE_SIZE

COLUMNS = ("psnr", "ssim", "lpips", "points", "chamfer", "iou")
STEPS = (50, 200)
"""Denoising steps of the published numbers; their source does not say which."""


@dataclass(frozen=True)
class Run:
    """What a run measured.

    Attributes:
        results: of all samples of each object, by name.
        chosen: number of the sample of each object whose mesh was made; the ranking's, or 0.
        ranked: whether a ranking chose it.
        size: pixels a side of the views.
        sampler: settings of the reverse process.
    """

    results: Mapping[str, Sequence[Result]]
    chosen: Mapping[str, int]
    ranked: bool
    size: int
    sampler: SamplerConfig

    @property
    def num_samples(self) -> int:
        """K, the smallest number of samples of an object."""
        return min(map(len, self.results.values()))

    def mean(self) -> Result:
        """Mean over all samples of all objects."""
        return mean_result([each for samples in self.results.values() for each in samples])

    def best(self) -> Result:
        """Mean over the objects, of each the sample with the best PSNR."""
        return mean_result([max(samples, key=_psnr) for samples in self.results.values()])

    def of_chosen(self) -> Result:
        """Mean over the objects, of each the chosen sample."""
        return mean_result([samples[self.chosen[name]] for name, samples in self.results.items()])

    def variance(self) -> float | None:
        """Unbiased variance of the PSNR over the samples, dB^2, mean over the objects."""
        if self.num_samples < 2:
            return None
        values = [np.var([*map(_psnr, each)], ddof=1) for each in self.results.values()]
        return float(np.mean(values))

    def deviations(self) -> list[str]:
        """How the run differs from the protocol of the published numbers, in words."""
        sampler = self.sampler
        differs = {
            f"{len(self.results)} of {NUM_OBJECTS} objects": len(self.results) != NUM_OBJECTS,
            f"{self.num_samples} samples, not {NUM_SAMPLES}": self.num_samples != NUM_SAMPLES,
            f"views of {self.size} pixels, not {REFERENCE_IMAGE_SIZE}": self.size
            != REFERENCE_IMAGE_SIZE,
            f"{sampler.steps} denoising steps, not 50 or 200": sampler.steps not in STEPS,
            f"solver {sampler.solver}, not ddim": sampler.solver != "ddim",
            f"eta {sampler.ddim_eta:g}, not 1": sampler.solver == "ddim" and sampler.ddim_eta != 1,
            f"guidance {sampler.guidance.kind}, not classifier_free": sampler.guidance
            != GuidanceConfig(),
            f"guidance {sampler.guidance_scale:g}, not 2, 1.5 or 1": not self.targets(),
        }
        return [words for words, true in differs.items() if true]

    def targets(self) -> list[Target]:
        """The numbers that are published for this guidance scale."""
        return [each for each in TARGETS if each.guidance_scale == self.sampler.guidance_scale]

    def measured(self, target: Target) -> float | None:
        """The run's number for a target."""
        if target.statistic == "variance":
            return self.variance()
        result = self.mean() if target.statistic == "mean" else self.best()
        value: float | None = getattr(result, target.metric)
        return value


def _psnr(result: Result) -> float:
    return -np.inf if result.psnr is None else result.psnr


def known_results(comparable: bool) -> list[tuple[str, ...]]:
    """Rows of the published results, of the paper's protocol or of others."""
    return [
        _row(row.method, row, row.protocol, row.source)
        for row in PUBLISHED_RESULTS
        if row.comparable == comparable
    ]


def _row(
    name: str, scores: Result | PublishedResult, protocol: str, source: str
) -> tuple[str, ...]:
    decimals = {metric: digits for metric, _, _, digits in METRICS}
    numbers = [getattr(scores, key) for key in COLUMNS]
    formatted = [
        "-" if value is None else format_score(value, decimals[key])
        for key, value in zip(COLUMNS, numbers, strict=True)
    ]
    return (name, *formatted, protocol, source)


def make_tables(run: Run | None) -> list[Table]:
    """Tables of all published results and of their bands, with the numbers of a run, if any."""
    titles = {metric: f"{title} {'↑' if more else '↓'}" for metric, title, more, _ in METRICS}
    header = ("Method", *(titles[key] for key in COLUMNS), "Protocol", "Source")
    ours = [] if run is None else _our_rows(run)
    tables = [
        Table(
            f"Results on the paper's 30 objects, as far as is known of this protocol: {PROTOCOL}",
            header,
            (*known_results(True), *ours),
        ),
        Table(
            "Results of other protocols, which cannot be compared with those above",
            header,
            tuple(known_results(False)),
        ),
    ]
    return [*tables, _bands(run)] if run is None or run.targets() else tables


def _our_rows(run: Run) -> list[tuple[str, ...]]:
    k, sampler = run.num_samples, run.sampler
    protocol = (
        f"{format_count(len(run.results))}, views of {run.size} pixels, guidance "
        f"{sampler.guidance_scale:g}, {sampler.steps} steps"
    )
    rows = {
        f"mean of {k} samples": replace(run.mean(), chamfer=None, iou=None),
        f"best of {k} samples by the truth": replace(run.best(), chamfer=None, iou=None),
    }
    chosen = run.of_chosen()
    if run.ranked or chosen.chamfer is not None:  # meshes are made of these samples only
        which = "the sample that the ranking chose, without the truth" if run.ranked else "sample 0"
        rows[which] = chosen
    return [_row("this run", row, f"{text}; {protocol}", "-") for text, row in rows.items()]


def _bands(run: Run | None) -> Table:
    """Each number of the published weights beside its band, and a run's with the same guidance."""
    names = {"mean": "mean of 4 samples", "best": "best of 4", "variance": "variance over samples"}
    targets = TARGETS if run is None else run.targets()
    rows = []
    for target in targets:
        digits = 2 if target.metric == "psnr" and target.statistic != "variance" else 3
        row = [
            f"{target.guidance_scale}",
            f"{target.metric.upper()}, {names[target.statistic]}",
            f"{target.value:.{digits}f} ± {target.tolerance:g}",
        ]
        if run is not None:
            row += [format_score(run.measured(target), digits), verdict(run, target)]
        rows.append(tuple(row))
    header = ("Guidance", "Number", "Expected", "This run", "Verdict")
    return Table(
        "What the published weights must give on the 30 objects with 4 samples each (HarmonyView)",
        header if run is not None else header[:3],
        tuple(rows),
    )


def verdict(run: Run, target: Target) -> str:
    """Whether a number is within its band: "within", "outside", or why that cannot be said."""
    value = run.measured(target)
    if run.deviations():
        return "not comparable"
    if value is None:
        return "not measured"
    return "within" if abs(value - target.value) <= target.tolerance else "outside"


def conclusion(run: Run) -> str:
    """One sentence: whether the installation gives the published numbers."""
    if run.deviations():
        reasons = "; ".join(run.deviations())
        return f"This run cannot be compared with the published numbers: {reasons}."
    verdicts = [verdict(run, target) for target in run.targets()]
    judged = [each for each in verdicts if each != "not measured"]
    outside = judged.count("outside")
    if outside:
        return f"{outside} of {len(judged)} numbers are outside their bands."
    return f"All {len(judged)} measured numbers are within their bands: the method is reproduced."
