"""Published results on the paper's 30 scanned objects, and what a run with its weights must give.

Each row names its source and how it was measured. Rows of another protocol are a table of their
own: their numbers cannot be compared with the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PAPER = "SyncDreamer (arXiv 2309.03453), Tables 1 and 2"
HARMONYVIEW = "HarmonyView (arXiv 2312.15980)"
HI3D = "comparison in Hi3D (arXiv 2409.07452)"
LATER = "comparisons in later papers"

PROTOCOL = (
    "input: view 0 of the renders, elevation 30, not cropped; 16 views at elevation 30 from the "
    "input's azimuth on; nothing is aligned"
)
"""Of the paper, in words; the protocols of the rows say how they differ."""
AS_PAPER = "samples: not stated"
SELECTED = "samples selected by hand, as its authors say"
MEAN_OF_4, BEST_OF_4 = "mean of 4 samples", "best of 4 samples by the truth"
OWN_NUMBERS = "its authors' numbers; their views and form of SSIM may differ"


@dataclass(frozen=True)
class PublishedResult:
    """A row of a published table; None where a metric was not reported.

    Attributes:
        method: name, and which variant.
        source: where the numbers were published.
        protocol: how they were measured, in words, beyond `PROTOCOL`.
        psnr, ssim, lpips: of the views, PSNR in dB.
        points: of COLMAP, dense.
        chamfer, iou: of the mesh.
        comparable: whether the protocol is the paper's, as far as is known.
    """

    method: str
    source: str
    protocol: str
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    points: int | None = None
    chamfer: float | None = None
    iou: float | None = None
    comparable: bool = True


PUBLISHED_RESULTS = (
    PublishedResult("RealFusion", PAPER, AS_PAPER, 15.26, 0.722, 0.283, 4010, 0.0819, 0.2741),
    PublishedResult("Magic123", PAPER, AS_PAPER, chamfer=0.0516, iou=0.4528),
    PublishedResult("One-2-3-45", PAPER, AS_PAPER, chamfer=0.0629, iou=0.4086),
    PublishedResult("One-2-3-45", LATER, AS_PAPER, 17.47, 0.768, 0.184),
    PublishedResult("Point-E", PAPER, AS_PAPER, chamfer=0.0426, iou=0.2875),
    PublishedResult("Shap-E", PAPER, AS_PAPER, chamfer=0.0436, iou=0.3584),
    PublishedResult("Zero123", PAPER, AS_PAPER, 18.93, 0.779, 0.166, 95, 0.0339, 0.5035),
    PublishedResult("Zero123-XL", HI3D, AS_PAPER, 19.47, 0.783, 0.159),
    PublishedResult(
        "Stable-Zero123", HI3D, AS_PAPER, 19.79, 0.788, 0.153, chamfer=0.0321, iou=0.5207
    ),
    PublishedResult("SyncDreamer", PAPER, SELECTED, 20.05, 0.798, 0.146, 1123, 0.0261, 0.5421),
    PublishedResult("SyncDreamer, guidance 2.0", HARMONYVIEW, MEAN_OF_4, 19.74, 0.813, 0.148),
    PublishedResult("SyncDreamer, guidance 2.0", HARMONYVIEW, BEST_OF_4, 20.19, 0.819, 0.140),
    PublishedResult("SyncDreamer, guidance 1.5", HARMONYVIEW, BEST_OF_4, 20.55, 0.822, 0.137),
    PublishedResult("SyncDreamer, guidance 1.0", HARMONYVIEW, BEST_OF_4, 20.51, 0.818, 0.144),
    PublishedResult("HarmonyView", HARMONYVIEW, MEAN_OF_4, 20.24, 0.819, 0.140),
    PublishedResult("HarmonyView", HARMONYVIEW, BEST_OF_4, 20.69, 0.825, 0.133),
    PublishedResult(
        "EpiDiff", "EpiDiff (arXiv 2312.06725)", OWN_NUMBERS,
        20.49, 0.855, 0.128, chamfer=0.0343, iou=0.4927,
    ),
    PublishedResult(
        "MVDiffusion++", "MVDiffusion++ (arXiv 2402.12712)", OWN_NUMBERS,
        21.45, 0.844, 0.129, chamfer=0.0165, iou=0.6973,
    ),
    PublishedResult(
        "Hi3D", "Hi3D (arXiv 2409.07452)", OWN_NUMBERS,
        24.26, 0.864, 0.119, chamfer=0.0172, iou=0.6631,
    ),
    PublishedResult("MV-AR", "its authors (2025)", OWN_NUMBERS, 22.99, 0.907, 0.084),
    PublishedResult(
        "HarmonyView", HARMONYVIEW, "mesh of the best of 4 samples, chosen by the truth",
        chamfer=0.0187, iou=0.6401, comparable=False,
    ),
    PublishedResult(
        "Wonder3D", "Wonder3D (arXiv 2310.15008)",
        "its own renders and views; predictions are aligned with the truth",
        26.07, 0.924, 0.065, chamfer=0.0199, iou=0.6244, comparable=False,
    ),
    PublishedResult(
        "NeuS on 10 true views", "EscherNet (arXiv 2402.03908)",
        "reconstruction from true views: a limit of the reconstruction, not of generated views",
        chamfer=0.0195, iou=0.7264, comparable=False,
    ),
    PublishedResult(
        "SV3D's reconstruction of true views", "SV3D (arXiv 2403.12008)",
        "reconstruction from true views: a limit of the reconstruction, not of generated views",
        chamfer=0.021, iou=0.689, comparable=False,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A number that a run with the published weights must give.

    Attributes:
        guidance_scale: of the run.
        statistic: over the samples of an object: their mean, the one with the best PSNR, or the
            variance (of the PSNR, unbiased, dB^2); then the mean over the objects.
        metric: field of `evaluation.results.Result`.
        value: measured by HarmonyView on 30 objects with 4 samples each.
        tolerance: half the width of the band around it.
    """

    guidance_scale: float
    statistic: Literal["mean", "best", "variance"]
    metric: Literal["psnr", "ssim", "lpips"]
    value: float
    tolerance: float


TOLERANCES = {
    ("mean", "psnr"): 0.15,
    ("best", "psnr"): 0.2,
    ("variance", "psnr"): 0.12,
    ("mean", "ssim"): 0.01,
    ("best", "ssim"): 0.01,
    ("mean", "lpips"): 0.006,
    ("best", "lpips"): 0.006,
}
"""The standard error of the mean PSNR of 120 samples is sqrt(0.242 / 120) = 0.045 dB, of a
difference of two such runs 0.06 dB; the band is 2.4 times as wide. That of the best of 4 and of the
variance follow in the same way from normal samples. SSIM's covers its two forms, which differ by
0.009 (the source does not say which one it used); LPIPS's is a judgement."""


def _targets(guidance: float, statistic: str, **values: float) -> tuple[Target, ...]:
    return tuple(
        Target(guidance, statistic, metric, value, TOLERANCES[statistic, metric])  # type: ignore[arg-type]
        for metric, value in values.items()
    )


TARGETS = (
    *_targets(2.0, "mean", psnr=19.74, ssim=0.813, lpips=0.148),
    *_targets(2.0, "best", psnr=20.19, ssim=0.819, lpips=0.140),
    *_targets(2.0, "variance", psnr=0.242),
    *_targets(1.5, "best", psnr=20.55, ssim=0.822, lpips=0.137),
    *_targets(1.0, "best", psnr=20.51, ssim=0.818, lpips=0.144),
)
"""Measured with the published weights, crop size -1; the source does not say whether with 50 or 200
denoising steps."""
NUM_OBJECTS, NUM_SAMPLES = 30, 4
