from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import ndimage

from multiview.cameras import orbit_cameras
from multiview.visual_hull import (
    SAG,
    cell_centres,
    close_underside,
    silhouette_distance,
    visual_hull,
)
from tests.renderer.traced import ball_masks, overlap

SIZE, RESOLUTION = 128, 48
CAMERAS = orbit_cameras(16, image_size=SIZE)
CELL = (1.2 / RESOLUTION) ** 3


def solid_masks(inside) -> np.ndarray:
    """Masks of the points for which `inside(x, y, z)` holds."""
    axis = np.linspace(-0.5, 0.5, 161)
    grid = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack(grid, axis=-1)[inside(*grid)]
    masks = np.zeros((16, SIZE, SIZE), dtype=bool)
    for k, mask in enumerate(masks):
        intrinsics, pose = CAMERAS.intrinsics[k], CAMERAS.world_to_camera[k]
        pixels = (points @ pose[:, :3].T + pose[:, 3]) @ intrinsics.T
        column, row = (pixels[:, :2] / pixels[:, 2:]).astype(int).T
        mask[row, column] = True
        mask[:] = ndimage.binary_closing(mask)
    return masks


def grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centres = cell_centres(RESOLUTION)
    return tuple(np.meshgrid(centres, centres, centres, indexing="ij"))


def test_the_distance_to_a_silhouette_is_that_of_pixel_middles_to_pixel_edges():
    mask = np.zeros((9, 9), dtype=bool)
    mask[:, 4:] = True
    np.testing.assert_allclose(silhouette_distance(mask)[0], np.arange(9) * -1 + 3.5)


def test_the_hull_of_a_ball_encloses_it_closely():
    centre, radius = (0.05, -0.1, 0.1), 0.3
    masks = ball_masks([(*centre, radius)], CAMERAS, SIZE) > 0
    hull = visual_hull(masks, CAMERAS, RESOLUTION)
    x, y, z = grid()
    ball = np.sqrt((x - 0.05) ** 2 + (y + 0.1) ** 2 + (z - 0.1) ** 2)
    assert (hull[ball < radius - 0.02] < 0).all()
    assert overlap(hull < 0, ball < radius) > 0.95
    near = (np.abs(ball - radius) < 0.03) & (np.abs(z - 0.1) < 0.1)
    assert np.abs(hull - (ball - radius))[near].mean() < 0.012


@pytest.mark.integration
def test_a_single_view_cuts_off_no_more_than_the_tolerance():
    masks = ball_masks([(0, 0, 0, 0.3)], CAMERAS, SIZE) > 0
    whole = visual_hull(masks, CAMERAS, RESOLUTION) < 0
    masks[3, :, : SIZE // 2] = False
    cut = visual_hull(masks, CAMERAS, RESOLUTION) < 0
    tolerant = visual_hull(masks, CAMERAS, RESOLUTION, tolerance=0.6) < 0
    assert cut.sum() < 0.6 * whole.sum()
    assert (tolerant >= whole).all()
    assert tolerant.sum() < 1.2 * whole.sum()
    masks[4, :, : SIZE // 2] = False  # two views agree
    assert (visual_hull(masks, CAMERAS, RESOLUTION, 0.6) < 0).sum() < 0.8 * whole.sum()


@pytest.mark.integration
def test_the_closure_of_a_cylinder_removes_the_cone_below_it():
    def cylinder(x, y, z):
        return (np.hypot(x, y) < 0.35) & (np.abs(z) < 0.3)

    hull = visual_hull(solid_masks(cylinder), CAMERAS, RESOLUTION)
    closed = close_underside(hull, CAMERAS)
    solid = cylinder(*grid())
    volume = solid.sum() * CELL
    excess, left = ((grid < 0).sum() * CELL - volume for grid in (hull, closed))
    assert excess > 0.15 * volume
    assert -0.02 * volume < left < 0.5 * excess
    assert overlap(closed < 0, solid) > overlap(hull < 0, solid) + 0.08
    assert overlap(closed < 0, solid) > 0.9
    assert (closed >= hull).all()
    middle = closed[RESOLUTION // 2, RESOLUTION // 2]
    low = cell_centres(RESOLUTION)[np.argmax(middle < 0)]
    cone = cell_centres(RESOLUTION)[np.argmax(hull[RESOLUTION // 2, RESOLUTION // 2] < 0)]
    assert low == pytest.approx(-0.3 + SAG * (cone + 0.3), abs=0.04)


@pytest.mark.integration
def test_what_the_cameras_see_from_the_side_is_not_cut():
    def table(x, y, z):
        legs = (np.abs(np.abs(x) - 0.3) < 0.05) & (np.abs(np.abs(y) - 0.3) < 0.05)
        top = (np.abs(x) < 0.4) & (np.abs(y) < 0.4) & (z > 0.2)
        return (top | legs) & (np.abs(z) < 0.3)

    hull = visual_hull(solid_masks(table), CAMERAS, RESOLUTION)
    closed = close_underside(hull, CAMERAS)
    solid = table(*grid())
    lost = solid & (hull < 0) & (closed >= 0)
    assert lost.sum() < 0.02 * solid.sum()


def test_empty_masks_are_named_and_an_empty_hull_stays_empty():
    masks = np.ones((16, SIZE, SIZE), dtype=bool)
    masks[[3, 5]] = False
    with pytest.raises(ValueError, match="views 3, 5 are empty"):
        visual_hull(masks, CAMERAS, 16)
    nothing = np.ones((8, 8, 8), dtype=np.float32)
    assert (close_underside(nothing, orbit_cameras(16)) == 1).all()
