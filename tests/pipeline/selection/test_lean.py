from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from multiview.cameras import CAMERA_DISTANCE, VIEWS_ELEVATION_DEG, orbit_cameras
from pipeline.selection.elevation import ElevationConfig, estimate_elevation
from pipeline.selection.hull_renderer import downsample_views
from pipeline.selection.lean import estimate_lean
from pipeline.selection.similarity import crop_object

SIZE = 128
CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
COLOURS = ("#803020", "#305080", "#408040", "#a08030", "#404040", "#b0a0c0")
LEANS = np.arange(-40.0, 10.1, 2.5)


def leaning_block(lean_deg: float, taper: float = 1.0) -> np.ndarray:
    """Views of a block, its top scaled by `taper`, that leans towards view 0's camera."""
    cameras = orbit_cameras(16, VIEWS_ELEVATION_DEG, CAMERA_DISTANCE, SIZE)
    lean = np.deg2rad(lean_deg)
    turn = [[np.cos(lean), 0, np.sin(lean)], [0, 1, 0], [-np.sin(lean), 0, np.cos(lean)]]
    sides = np.where(CORNERS[:, 2:] > 0, taper, 1.0) * (0.16, 0.22, 0) + (0, 0, 0.34)
    points = CORNERS * sides @ np.transpose(turn)
    views = []
    for intrinsics, pose in zip(cameras.intrinsics, cameras.world_to_camera, strict=True):
        seen = points @ pose[:, :3].T + pose[:, 3]
        pixels = (seen @ intrinsics.T)[:, :2] / seen[:, 2:]
        image = Image.new("RGB", (SIZE, SIZE), "white")
        far_first = sorted(range(6), key=lambda k: -np.linalg.norm(seen[[*FACES[k]]].mean(axis=0)))
        for k in far_first:
            ImageDraw.Draw(image).polygon([tuple(pixels[c]) for c in FACES[k]], fill=COLOURS[k])
        views.append(np.asarray(image))
    return np.stack(views)


@pytest.mark.parametrize("lean_deg", [-30.0, -20.0, -10.0, 0.0])
def test_the_lean_of_a_block_is_found(lean_deg: float):
    cameras = orbit_cameras(16, VIEWS_ELEVATION_DEG, CAMERA_DISTANCE, SIZE)
    views = downsample_views(leaning_block(lean_deg), cameras, 64)
    assert estimate_lean(views, LEANS) == pytest.approx(lean_deg, abs=2.5)


def test_sides_that_approach_each_other_are_no_lean():
    cameras = orbit_cameras(16, VIEWS_ELEVATION_DEG, CAMERA_DISTANCE, SIZE)
    views = downsample_views(leaning_block(0, taper=0.4), cameras, 64)
    assert estimate_lean(views, LEANS) == 0


@pytest.mark.parametrize("true_deg", [0.0, 10.0, 30.0])
def test_a_draft_that_shows_the_input_as_view_0_does_not_confirm_the_elevation_it_was_told(
    true_deg: float,
):
    views = leaning_block(true_deg - VIEWS_ELEVATION_DEG)
    config = ElevationConfig(drafts_at=(VIEWS_ELEVATION_DEG,))
    estimate = estimate_elevation(crop_object(views[0], 64), lambda _: views, config)
    assert estimate.elevation_deg == pytest.approx(true_deg, abs=4)
