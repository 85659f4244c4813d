"""File names of the results of one image."""

from __future__ import annotations

from pathlib import Path

from renderer.output_dir import MESH_FILES, VIDEO_FILE

OBJECT, FRAMED, BEST = "object.png", "framed.png", "best.png"
TURNING = "best.gif"
ELEVATION, CURVE = "elevation.json", "elevation.png"
DRAFTS, SAMPLES, RECONSTRUCTION = "drafts", "samples", "reconstruction"
METRICS = Path(RECONSTRUCTION, "metrics.json")
EXPORTED = (*MESH_FILES, VIDEO_FILE)
REPORT = "report.html"
