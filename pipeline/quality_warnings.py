"""Warnings on the quality of one image's results, for its report."""

from __future__ import annotations

from typing import Any

from multiview.matting import WHOLE_IMAGE
from pipeline.selection.elevation_drafts import UNCERTAIN
from renderer.reconstruction import POOR_IOU


def quality_warnings(
    records: dict[str, dict[str, Any]], rows: list[dict[str, Any]], metrics: dict[str, Any]
) -> list[str]:
    """List likely problems of the results as sentences.

    Args:
        records: of the steps.
        rows: of scores.json.
        metrics: of metrics.json.
    """
    warnings = []
    if records["segment"]["facts"]["covered"] > WHOLE_IMAGE:
        warnings.append("The mask covers the whole image: the object may not have been found.")
    if records["elevation"]["facts"].get("uncertainty_deg", 0.0) > UNCERTAIN:
        warnings.append(
            "The elevation is uncertain: drafts for many elevations are similar to the image. "
            "If you know it, give it."
        )
    if rows[0]["problem"]:
        warnings.append(f"No sample shows an object: {rows[0]['problem']}.")
    if metrics.get("replaced_masks"):
        views = ", ".join(map(str, metrics["replaced_masks"]))
        warnings.append(f"The views of the best sample are inconsistent; replaced masks: {views}.")
    if metrics.get("mask_iou") is not None and metrics["mask_iou"] < POOR_IOU:
        warnings.append("The silhouettes of the mesh differ from the masks of the views.")
    return warnings
