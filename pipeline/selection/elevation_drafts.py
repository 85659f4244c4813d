"""Drafts: quick samples of the views, from which an input's elevation is estimated."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.files import atomic_write
from common.records import write_json
from ldm.sampling.config import SamplerConfig, Solver
from pipeline.paths import CURVE, DRAFTS, ELEVATION
from pipeline.selection.elevation import Draft, ElevationConfig, estimate_elevation, plot_scores
from pipeline.selection.similarity import ObjectCrop

log = logging.getLogger(__name__)


class ElevationError(ValueError):
    """The elevation of an image cannot be estimated."""


DRAFT_STEPS = 8
"""Denoising steps of a draft."""
UNCERTAIN = 10.0
"""Degrees; a larger uncertainty causes a warning."""


def draft_sampler(sampler: SamplerConfig, steps: int = DRAFT_STEPS) -> SamplerConfig:
    """Sampler settings of drafts: at most `steps` steps, and nothing random in them."""
    solver: Solver = "dpm++" if sampler.solver == "dpm++sde" else sampler.solver
    return replace(sampler, steps=min(steps, sampler.steps), eta=0.0, solver=solver)


def draft_path(folder: Path, assumed_deg: float) -> Path:
    """Path of the draft strip for an assumed elevation, in the folder of one input's results."""
    return folder / DRAFTS / f"{assumed_deg:+.1f}.png"


def find_elevation(
    target: ObjectCrop,
    draft: Draft,
    config: ElevationConfig | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Estimate an elevation from drafts, see `estimate_elevation`; ElevationError if that fails.

    Returns what elevation.json says, angles in degrees; it and the scores' curve, elevation.png,
    are written to a given folder.
    """
    try:
        estimate = estimate_elevation(target, draft, config)
    except ValueError as error:
        raise ElevationError(f"the elevation cannot be estimated from drafts ({error})") from error
    angle, uncertainty = estimate.elevation_deg, estimate.uncertainty_deg
    if uncertainty > UNCERTAIN:
        log.warning(
            "the elevation is uncertain, %.0f +- %.0f degrees: drafts for many elevations are "
            "similar to the image; if you know it, give it", angle, uncertainty,
        )  # fmt: skip
    found = {
        "elevation_deg": round(angle, 1),
        "uncertainty_deg": round(uncertainty, 1),
        "candidates_deg": estimate.candidates_deg.tolist(),
        "scores": estimate.scores.tolist(),
        "silhouettes": estimate.silhouettes.tolist(),
        "psnrs": estimate.psnrs.tolist(),
    }
    if folder is not None:
        with atomic_write(folder / CURVE) as temporary:
            plot_scores(estimate).save(temporary)
        write_json(folder / ELEVATION, found)
    return found
