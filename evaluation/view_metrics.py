"""Scores of the predicted views of an object against the true ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.image_metrics import SsimForm, better_order, psnr, ssim
from evaluation.lpips import Lpips
from evaluation.results import Result
from multiview.views import read_views

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewScores:
    """Scores of each view, (N,) each.

    Attributes:
        psnr: dB.
        ssim: at most 1.
        lpips: None where it was not computed.
    """

    psnr: np.ndarray
    ssim: np.ndarray
    lpips: np.ndarray | None

    def result(self, name: str, form: SsimForm) -> Result:
        """The row of an object: the means over its views, and the values of each."""
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
    """Read the true and the predicted views of an object, see `read_views`.

    Returns:
        two float32 RGB arrays in [0, 1], (N, S, S, 3) each.

    Raises:
        FileNotFoundError, ValueError: see `read_views`, or they differ in size.
    """
    true_views, predicted_views = read_views(true), read_views(predicted)
    size, predicted_size = true_views.shape[1], predicted_views.shape[1]
    if size != predicted_size:
        raise ValueError(
            f"{predicted}: views of {predicted_size} x {predicted_size} pixels, but those of "
            f"{true} have {size} x {size}; scale one of them (scores depend on the size)"
        )
    return true_views, predicted_views


def score_views(
    true: np.ndarray, predicted: np.ndarray, form: SsimForm, lpips: Lpips | None
) -> ViewScores:
    """Score predicted views; warn where they seem to be in another order.

    Args:
        true: RGB in [0, 1], (N, S, S, 3).
        predicted: the same.
        form: of the SSIM.
        lpips: None leaves it out.
    """
    doubt = better_order(true, predicted)
    if doubt:
        log.warning("%s", doubt)
    return ViewScores(
        psnr(true, predicted),
        ssim(true, predicted, form),
        lpips(true, predicted) if lpips else None,
    )
