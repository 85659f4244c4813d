"""What may be wrong with the results of one picture, for its report."""

from __future__ import annotations

from typing import Any

from multiview.matting import WHOLE_IMAGE
from pipeline.selection.elevation_drafts import UNCERTAIN
from renderer.reconstruction import POOR_IOU


def quality_warnings(
    records: dict[str, dict[str, Any]], rows: list[dict[str, Any]], metrics: dict[str, Any]
) -> list[str]:
    """Sentences on what may be wrong with the results.

    Args:
        records: of the steps.
        rows: of scores.json.
        metrics: of metrics.json.
    """
    said = []
    if records["segment"]["facts"]["covered"] > WHOLE_IMAGE:
        said.append("The mask covers the whole picture: was the object found?")
    if records["elevation"]["facts"].get("uncertainty_deg", 0.0) > UNCERTAIN:
        said.append(
            "The elevation is uncertain: drafts for many elevations are as much like the picture. "
            "If you know it, give it with --elevation."
        )
    if rows[0]["problem"]:
        said.append(f"No sample shows an object: {rows[0]['problem']}.")
    if metrics.get("replaced_masks"):
        views = ", ".join(map(str, metrics["replaced_masks"]))
        said.append(f"The best sample's views do not fit together: masks replaced in {views}.")
    if metrics.get("mask_iou") is not None and metrics["mask_iou"] < POOR_IOU:
        said.append("The mesh covers the masks of the views badly.")
    return said
