"""PSNR, SSIM and LPIPS of the predicted views of an object."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.image_metrics import SsimForm, detect_view_order, psnr, ssim
from evaluation.lpips import Lpips
from evaluation.results import Result
from multiview.views import read_views

log = logging.getLogger(__name__)


def read_pair(true: Path, predicted: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read true and predicted views, folders or strips: float32 RGB in [0, 1], (N, S, S, 3) each.

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
    name: str, true: np.ndarray, predicted: np.ndarray, form: SsimForm, lpips: Lpips | None
) -> Result:
    """Score predicted views, (N, S, S, 3); log a warning if they seem to be in another order."""
    other_order = detect_view_order(true, predicted)
    if other_order:
        log.warning("%s", other_order)
    scores = {"psnr": psnr(true, predicted), "ssim": ssim(true, predicted, form)}
    if lpips is not None:
        scores["lpips"] = lpips(true, predicted)
    means: dict[str, Any] = {key: float(values.mean()) for key, values in scores.items()}
    per_view = {key: list(map(float, values)) for key, values in scores.items()}
    return Result(name, ssim_form=form, per_view=per_view, **means)
