from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import ndimage

from multiview.cameras import orbit_cameras
from renderer.mask_repair import fit_in_reverse, repair_masks
from tests.renderer.traced import ball_masks, overlap

SIZE = 96
FIGURE = [  # x, y, z, radius: without any symmetry
    (0.00, 0.05, -0.20, 0.24),
    (0.05, 0.00, 0.15, 0.15),
    (0.12, -0.18, 0.33, 0.09),
    (-0.30, 0.10, 0.05, 0.08),
    *[(-0.1 - 0.03 * i, 0.1 + 0.02 * i, 0.2 + 0.02 * i, 0.02) for i in range(10)],  # a rod
]


CAMERAS = orbit_cameras(16, image_size=SIZE)
TRUE = ball_masks(FIGURE, CAMERAS, SIZE)


ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
SPOIL = {
    "empty": lambda k: np.zeros((SIZE, SIZE)),
    "full": lambda k: np.ones((SIZE, SIZE)),
    "rectangle": lambda k: np.where((ROWS // 40 == 1) & (COLUMNS < 40), 1.0, TRUE[k]),
    "half": lambda k: TRUE[k] * (COLUMNS < SIZE // 2),
    "bite": lambda k: TRUE[k] * (np.hypot(ROWS - 55, COLUMNS - 40) >= 13),
    "other view": lambda k: TRUE[(k + 7) % 16],
    "mirrored": lambda k: TRUE[k][:, ::-1],
    "inverted": lambda k: 1.0 - TRUE[k],
    "shifted": lambda k: np.roll(TRUE[k], (6, 10), axis=(0, 1)),
    "blob": lambda k: np.hypot(ROWS - 30 - k, COLUMNS - 25) < 14,
}


def wobbling(masks: np.ndarray, pixels: float) -> np.ndarray:
    """Every outline moves in and out, each view its own way."""
    generator = np.random.default_rng(0)
    wobbled = []
    for mask in masks >= 0.5:
        distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
        noise = ndimage.gaussian_filter(generator.normal(size=mask.shape), 5)
        limit = generator.uniform(-pixels, pixels) + noise / noise.std() * pixels / 2
        wobbled.append(np.roll(distance < limit, generator.integers(-1, 2, 2), axis=(0, 1)))
    return np.stack(wobbled).astype(np.float32)


CUT_OFF = ball_masks([(0.0, 0.0, 0.3, 0.45), (0.4, 0.3, -0.3, 0.2)], CAMERAS, SIZE)


@pytest.mark.parametrize("masks", [TRUE * np.float32(0.9), CUT_OFF, CUT_OFF * 0, CUT_OFF * 0 + 1])
def test_true_masks_cut_off_ones_and_those_without_an_outline_stay_bit_for_bit(masks):
    repaired = repair_masks(masks, CAMERAS)
    assert repaired.replaced == ()
    np.testing.assert_array_equal(repaired.masks, masks)
    assert (repaired.agreement > 0.95).all() or np.ptp(masks) == 0 == repaired.agreement.max()


def others(k: int) -> np.ndarray:
    return ball_masks([(*np.random.default_rng(k).uniform(-0.4, 0.4, 3), 0.1)], CAMERAS, SIZE)[k]


@pytest.mark.parametrize(("spoil", "count"), [(SPOIL["empty"], 9), (others, 12)])
def test_without_a_majority_nothing_is_replaced_and_a_warning_logged(spoil, count, caplog):
    masks = np.stack([*(spoil(k) for k in range(count)), *TRUE[count:]]).astype(np.float32)
    repaired = repair_masks(masks, CAMERAS)
    assert repaired.replaced == ()
    np.testing.assert_array_equal(repaired.masks, masks)
    assert "of 16 masks" in caplog.text
    assert "none is repaired" in caplog.text


@pytest.mark.parametrize(
    ("kind", "views"),
    [*((kind, (0, 7, 13)) for kind in SPOIL), ("half", (4, 5, 6)), ("mirrored", (6,))],
)
def test_bad_masks_are_found_and_repaired(kind: str, views: tuple[int, ...]):
    masks = TRUE.copy()
    for k in views:
        masks[k] = SPOIL[kind](k)
        assert overlap(masks[k], TRUE[k]) < 0.8
    given = masks.copy()
    repaired = repair_masks(masks, CAMERAS)
    assert repaired.replaced == views
    np.testing.assert_array_equal(masks, given)
    good = np.setdiff1d(np.arange(16), views)
    np.testing.assert_array_equal(repaired.masks[good], given[good])
    for k in views:
        assert overlap(repaired.masks[k], TRUE[k]) > 0.9
        assert repaired.agreement[k] < repaired.agreement[good].min()


@pytest.mark.integration
def test_noisy_outlines_are_kept_and_a_bad_mask_among_them_is_not():
    assert repair_masks(wobbling(TRUE, pixels=2.0), CAMERAS).replaced == ()
    masks = wobbling(TRUE, pixels=1.0)
    assert np.mean([overlap(*pair) for pair in zip(masks, TRUE, strict=True)]) < 0.9
    assert repair_masks(masks, CAMERAS).replaced == ()
    masks[[3, 9]] = SPOIL["half"](3), SPOIL["inverted"](9)
    assert repair_masks(masks, CAMERAS).replaced == (3, 9)


@pytest.mark.parametrize(
    ("count", "size", "least"),
    [(3, 96, 0.4), (4, 64, 0.6), (4, 200, 0.6), (24, 64, 0.9), (16, 24, 0.6), (16, 32, 0.6)],
)
def test_any_number_and_size_of_views_will_do(count: int, size: int, least: float):
    cameras = orbit_cameras(count, image_size=size)
    true = ball_masks(FIGURE, cameras, size)
    assert repair_masks(true, cameras).replaced == ()
    masks = true.copy()
    masks[1] = 0.0
    repaired = repair_masks(masks, cameras)
    assert repaired.replaced == (1,)
    assert overlap(repaired.masks[1], true[1]) > least


@pytest.mark.integration
def test_a_rod_thinner_than_the_grid_is_kept_and_rendered():
    cameras = orbit_cameras(16, image_size=256)
    balls = [(0.005 * i, 0.002 * i, 0.003 * i, 0.008) for i in range(-80, 81)]
    rod = ball_masks(balls, cameras, 256)
    assert repair_masks(rod, cameras).replaced == ()
    masks = rod.copy()
    masks[5] = 1.0
    repaired = repair_masks(masks, cameras)
    assert repaired.replaced == (5,)
    assert overlap(repaired.masks[5], rod[5]) > 0.7


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(4, 96, 96\) and 16 cameras"):
        repair_masks(TRUE[:4], CAMERAS)
    with pytest.raises(ValueError, match="square"):
        repair_masks(TRUE[:, :40], CAMERAS)


def test_masks_in_reverse_order_are_recognised():
    reverse = -np.arange(16) % 16
    forward, backward = fit_in_reverse(TRUE[reverse], CAMERAS) or (0.0, 1.0)
    assert backward < 0.01 < 0.1 < forward
    assert fit_in_reverse(TRUE[::-1], CAMERAS)  # from view 15 to view 0
    symmetric = ball_masks([(0.0, 0.0, 0.0, 0.3)], CAMERAS, SIZE)
    spoilt = np.stack([SPOIL["half"](k) if k < 9 else TRUE[k] for k in range(16)])
    for masks in (TRUE, np.roll(TRUE, 3, axis=0), symmetric, spoilt, TRUE * 0, TRUE * 0 + 1):
        assert fit_in_reverse(masks, CAMERAS) is None
