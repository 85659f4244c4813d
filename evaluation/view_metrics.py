"""PSNR, SSIM and LPIPS of the predicted views of an object."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.image_metrics import SsimForm, detect_view_order, psnr, ssim
from evaluation.lpips import Lpips
from evaluation.results import Result
from multiview.views import read_views

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewScores:
    """Scores of each view, (N,) each; LPIPS is None where it was not computed."""

    psnr: np.ndarray
    ssim: np.ndarray
    lpips: np.ndarray | None

    def result(self, name: str, form: SsimForm) -> Result:
        """Average the scores over the views into the result of an object."""
        scores = {"psnr": self.psnr, "ssim": self.ssim, "lpips": self.lpips}
        return Result(
            name,
            psnr=float(self.psnr.mean()),
            ssim=float(self.ssim.mean()),
            ssim_form=form,
            lpips=None if self.lpips is None else float(self.lpips.mean()),
            per_view={key: list(map(float, v)) for key, v in scores.items() if v is not None},
        )


def read_pair(true: Path, predicted: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the true and the predicted views of an object, folders or strips.

    Returns:
        two float32 RGB arrays in [0, 1], (N, S, S, 3) each.

    Raises:
        FileNotFoundError, ValueError: see `read_views`, or the views differ in size.
    """
    true_views, predicted_views = read_views(true), read_views(predicted)
    size, predicted_size = true_views.shape[1], predicted_views.shape[1]
    if size != predicted_size:
        raise ValueError(
            f"{predicted}: views of {predicted_size} x {predicted_size} pixels, but {true} has "
            f"views of {size} x {size}; resize one of them (scores depend on the size)"
        )
    return true_views, predicted_views


def score_views(
    true: np.ndarray, predicted: np.ndarray, form: SsimForm, lpips: Lpips | None
) -> ViewScores:
    """Score predicted views, (N, S, S, 3); log a warning if they seem to be in another order."""
    other_order = detect_view_order(true, predicted)
    if other_order:
        log.warning("%s", other_order)
    distances = lpips(true, predicted) if lpips else None
    return ViewScores(psnr(true, predicted), ssim(true, predicted, form), distances)
