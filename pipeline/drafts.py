"""Drafts of the views: quick ones, from which an input's elevation is estimated."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ldm.sampler import SamplerConfig
from multiview.elevation import Draft, ElevationConfig, ElevationEstimate, estimate_elevation

log = logging.getLogger(__name__)

DRAFT_STEPS = 8
"""Denoising steps of a draft."""
UNCERTAIN = 10.0
"""Degrees: an uncertainty above this is worth a warning."""


def draft_sampler(sampler: SamplerConfig, steps: int = DRAFT_STEPS) -> SamplerConfig:
    """How drafts are drawn: in few steps, and with no noise between them."""
    return replace(sampler, steps=steps, eta=0.0)


def find_elevation(
    picture: np.ndarray, draft: Draft, config: ElevationConfig | None = None
) -> ElevationEstimate:
    """Estimate an elevation from drafts, see `estimate_elevation`.

    Raises:
        ValueError: it cannot be told; says what to do.
    """
    try:
        found = estimate_elevation(picture, draft, config)
    except ValueError as error:
        raise ValueError(
            f"the elevation cannot be estimated from drafts ({error}); give it with --elevation"
        ) from error
    if found.uncertainty_deg > UNCERTAIN:
        log.warning(
            "the elevation is uncertain, %.0f +- %.0f degrees: drafts for many elevations are as "
            "much like the picture; if you know it, give it with --elevation",
            found.elevation_deg,
            found.uncertainty_deg,
        )
    return found
