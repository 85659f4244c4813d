from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.quality_warnings import quality_warnings
from pipeline.report import two_rows


def found(covered: float = 0.3, uncertainty: float = 5.0) -> dict[str, dict[str, Any]]:
    return {
        "segment": {"facts": {"covered": covered}},
        "elevation": {"facts": {"elevation_deg": 20.0, "uncertainty_deg": uncertainty}},
    }


GOOD = ({"problem": ""}, {"mask_iou": 0.9, "replaced_masks": []})


def test_good_results_are_not_doubted():
    assert quality_warnings(found(), [GOOD[0]], GOOD[1]) == []
    given = {**found(), "elevation": {"facts": {}}}
    assert quality_warnings(given, [GOOD[0]], {"mask_iou": None}) == []


@pytest.mark.parametrize(
    ("records", "row", "metrics", "said"),
    [
        (found(covered=0.999), *GOOD, "mask covers the whole image"),
        (found(uncertainty=12.0), *GOOD, "If you know it, give it"),
        (found(), {"problem": "view 3 is empty"}, GOOD[1], "No sample .*: view 3 is empty"),
        (found(), GOOD[0], {"mask_iou": 0.5}, "silhouettes of the mesh"),
        (found(), GOOD[0], {"mask_iou": 0.9, "replaced_masks": [3, 4]}, "replaced masks: 3, 4"),
    ],
)
def test_what_may_be_wrong_is_said(records, row, metrics, said):
    (doubt,) = quality_warnings(records, [row], metrics)
    assert re.search(said, doubt)


@pytest.mark.parametrize("side", [64, 256])
def test_the_views_are_shown_in_two_rows(side: int, tmp_path: Path):
    strip = np.repeat(np.arange(16, dtype=np.uint8) * 15, side)[None, :, None]
    path = tmp_path / "0.png"
    Image.fromarray(np.tile(strip, (side, 1, 3))).save(path)
    rows = np.asarray(two_rows(path))
    shown = min(side, 128)
    assert rows.shape == (2 * shown, 8 * shown, 3)
    middles = rows[shown // 2 :: shown, shown // 2 :: shown, 0]
    np.testing.assert_array_equal(middles.ravel(), np.arange(16) * 15)
