from __future__ import annotations

import json
import re
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline import report
from pipeline.report import mesh_viewer, quality_warnings
from tests.chromium import DRIVER, open_chromium


def found(covered: float = 0.3, uncertainty: float = 5.0) -> dict[str, dict[str, Any]]:
    return {
        "segment": {"facts": {"covered": covered}},
        "elevation": {"facts": {"elevation_deg": 20.0, "uncertainty_deg": uncertainty}},
    }


GOOD = ({"problem": "", "score": 0.7}, {"mask_iou": 0.9, "replaced_masks": []})


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
        (found(), {"problem": "", "score": 0.2}, GOOD[1], "views of the best .* fit together"),
        (found(), GOOD[0], {"mask_iou": 0.5}, "silhouettes of the mesh"),
        (found(), GOOD[0], {"mask_iou": 0.9, "replaced_masks": [3, 4]}, "replaced masks: 3, 4"),
    ],
)
def test_what_may_be_wrong_is_said(records, row, metrics, said):
    (doubt,) = quality_warnings(records, [row], metrics)
    assert re.search(said, doubt)


@pytest.fixture
def textured(tmp_path: Path) -> Path:
    """A box, green on all sides by its texture."""
    mesh = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.new("RGB", (4, 4), (0, 160, 0))
    )
    mesh.visual = trimesh.visual.TextureVisuals(mesh.vertices[:, :2] + 0.5, material)
    mesh.export(tmp_path / "mesh.glb")
    return tmp_path / "mesh.glb"


def test_a_mesh_that_is_too_large_has_no_viewer(textured: Path, monkeypatch):
    viewer = mesh_viewer(textured)
    assert 5e5 < len(viewer) < 1e6
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=", viewer)
    monkeypatch.setattr(report, "MAX_MESH_BYTES", 10)
    assert mesh_viewer(textured) == ""


@pytest.mark.browser
@pytest.mark.skipif(not DRIVER, reason="Chromium or its driver is missing")
def test_the_viewer_draws_the_mesh_and_loads_nothing(textured: Path, tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_text(mesh_viewer(textured))
    with open_chromium(tmp_path) as browser:
        browser.get(page.as_uri())
        for _ in range(100):
            with Image.open(BytesIO(browser.get_screenshot_as_png())) as image:
                seen = np.asarray(image.convert("RGB")).astype(int)
            green = np.abs(seen - (0, 160, 0)).max(axis=-1) < 50
            if green.mean() > 0.02:
                break
            time.sleep(0.1)
        assert green.mean() > 0.02  # true colours, on white
        assert (seen[0, 0] == 255).all()
        assert browser.get_log("browser") == []
        logged = browser.get_log("performance")
    messages = [json.loads(entry["message"])["message"] for entry in logged]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"].endswith("BeSent")]
    assert page.as_uri() in sent
    assert [url for url in sent if re.match("(http|ws)s?:", url)] == []
