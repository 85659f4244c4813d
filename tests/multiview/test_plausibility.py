from __future__ import annotations

import numpy as np
import pytest

from multiview.cameras import CAMERA_DISTANCE, VIEWS_ELEVATION_DEG, orbit_cameras
from multiview.plausibility import find_misfits, new_colours, off_centre, plausibility
from pipeline.selection.hull_renderer import LowResViews, downsample_views
from pipeline.selection.ranking import MISFIT, score_sample


def discs(shift: int = 0, back: tuple[float, ...] = (0.2, 0.4, 0.6)) -> np.ndarray:
    """Views of a ball; `shift` pixels to the side in every view, of another colour in half."""
    y, x = np.mgrid[:64, :64] + 0.5
    inside = np.hypot(x - 32 - shift, y - 32) < 12
    views = np.where(inside[..., None], (0.2, 0.4, 0.6), 1.0)[None].repeat(16, axis=0)
    views[4:12] = np.where(inside[..., None], back, 1.0)
    return views.astype(np.float32)


def low_res(images: np.ndarray) -> LowResViews:
    rig = orbit_cameras(16, VIEWS_ELEVATION_DEG, CAMERA_DISTANCE, 64)
    return downsample_views(images, rig, 64)


@pytest.mark.parametrize("shift", [0, 4, -8])
def test_the_distance_from_the_middle_is_relative_to_the_objects_box(shift: int):
    expected = abs(shift) / (24 * 2**0.5)
    np.testing.assert_allclose(off_centre(low_res(discs(shift)).masks), expected, atol=0.01)


@pytest.mark.parametrize(("back", "share"), [((0.2, 0.4, 0.55), 0.0), ((0.9, 0.3, 0.1), 0.5)])
def test_new_colours_are_those_that_view_0_lacks(back: tuple[float, ...], share: float):
    views = low_res(discs(back=back))
    found = new_colours(views.colours, views.masks)
    np.testing.assert_allclose(found[4:12], 2 * share, atol=0.02)
    np.testing.assert_allclose(found[:4], 0)


def test_views_that_do_not_fit_view_0_are_found():
    images = discs(back=(0.9, 0.3, 0.1))
    images[5:12] = discs()[5:12]
    images[14] = np.roll(images[14], 12, axis=1)
    masks = (images < 1).any(axis=-1).astype(np.float32)
    assert find_misfits(images, masks) == (4, 14)
    masks[4] = 0
    assert find_misfits(images, masks) == (14,)
    images[3:13] = 0.1  # most views
    assert find_misfits(images, np.ones_like(masks)) == ()
    assert find_misfits(discs(), (discs() < 1).any(axis=-1).astype(np.float32)) == ()


def test_the_factor_falls_with_both():
    assert plausibility(0, 0) == 1
    assert plausibility(0.1, 0) < plausibility(0.05, 0) < 1
    assert plausibility(0, 0.18) < plausibility(0, 0.15) < plausibility(0, 0.05) == 1


def test_views_that_do_not_fit_together_are_said():
    assert not score_sample(discs()).warning
    assert MISFIT in score_sample(discs(back=(0.9, 0.3, 0.1))).warning
