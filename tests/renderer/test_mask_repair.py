from __future__ import annotations

import logging

import numpy as np
import pytest

pytest.importorskip("scipy")
from scipy import ndimage

from multiview.cameras import orbit_cameras
from renderer.mask_repair import repair_masks
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


def with_rectangle(k: int) -> np.ndarray:
    mask = TRUE[k].copy()
    mask[50:90, 2:40] = 1.0
    return mask


def without_half(k: int) -> np.ndarray:
    mask = TRUE[k].copy()
    mask[:, SIZE // 2 :] = 0.0
    return mask


def with_bite(k: int) -> np.ndarray:
    mask = TRUE[k].copy()
    row, column = np.mgrid[:SIZE, :SIZE]
    mask[np.hypot(row - 55, column - 40) < 13] = 0.0
    return mask


def blob(k: int) -> np.ndarray:
    row, column = np.mgrid[:SIZE, :SIZE]
    return (np.hypot(row - 30 - k, column - 25) < 14).astype(np.float32)


SPOIL = {
    "empty": lambda k: np.zeros((SIZE, SIZE)),
    "full": lambda k: np.ones((SIZE, SIZE)),
    "rectangle": with_rectangle,
    "half": without_half,
    "bite": with_bite,
    "other view": lambda k: TRUE[(k + 7) % 16],
    "mirrored": lambda k: TRUE[k][:, ::-1],
    "inverted": lambda k: 1.0 - TRUE[k],
    "shifted": lambda k: np.roll(TRUE[k], (6, 10), axis=(0, 1)),
    "blob": blob,
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


def test_true_masks_stay_bit_for_bit():
    masks = TRUE * np.float32(0.9)
    repaired = repair_masks(masks, CAMERAS)
    assert repaired.replaced == ()
    np.testing.assert_array_equal(repaired.masks, masks)
    assert repaired.agreement.min() > 0.95


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
    for k in range(16):
        if k in views:
            assert overlap(repaired.masks[k], TRUE[k]) > 0.9
            assert (
                repaired.agreement[k]
                < repaired.agreement[[j not in views for j in range(16)]].min()
            )
        else:
            np.testing.assert_array_equal(repaired.masks[k], given[k])


def test_noisy_outlines_are_kept_and_a_bad_mask_among_them_is_not():
    assert repair_masks(wobbling(TRUE, pixels=2.0), CAMERAS).replaced == ()
    masks = wobbling(TRUE, pixels=1.0)
    assert np.mean([overlap(*pair) for pair in zip(masks, TRUE, strict=True)]) < 0.9
    assert repair_masks(masks, CAMERAS).replaced == ()
    masks[[3, 9]] = SPOIL["half"](3), SPOIL["inverted"](9)
    assert repair_masks(masks, CAMERAS).replaced == (3, 9)


def test_a_true_mask_among_views_of_other_things_is_not_replaced_but_a_warning_logged(caplog):
    generator = np.random.default_rng(0)
    masks = TRUE.copy()
    for k in range(1, 13):
        masks[k] = ball_masks([(*generator.uniform(-0.4, 0.4, 3), 0.1)], CAMERAS, SIZE)[k]
    with caplog.at_level(logging.WARNING):
        repaired = repair_masks(masks, CAMERAS)
    assert repaired.replaced == ()
    np.testing.assert_array_equal(repaired.masks, masks)
    assert "of 16 masks" in caplog.text
    assert "none is repaired" in caplog.text


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masks_without_any_outline_come_back_as_they_are(value: float):
    masks = np.full((16, SIZE, SIZE), value, dtype=np.float32)
    repaired = repair_masks(masks, CAMERAS)
    assert repaired.replaced == ()
    np.testing.assert_array_equal(repaired.masks, masks)
    assert (repaired.agreement == 0).all()


def test_nine_empty_masks_of_sixteen_are_more_than_half(caplog):
    masks = TRUE.copy()
    masks[:9] = 0.0
    with caplog.at_level(logging.WARNING):
        assert repair_masks(masks, CAMERAS).replaced == ()
    assert "7 of 16 masks" in caplog.text


@pytest.mark.parametrize(
    ("count", "size", "least"), [(3, 96, 0.4), (4, 64, 0.6), (4, 200, 0.6), (24, 64, 0.9)]
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


def test_a_rod_thinner_than_the_grid_is_kept_and_rendered():
    size = 256
    cameras = orbit_cameras(16, image_size=size)
    rod = ball_masks(
        [(0.005 * i, 0.002 * i, 0.003 * i, 0.008) for i in range(-80, 81)], cameras, size
    )
    assert repair_masks(rod, cameras).replaced == ()
    masks = rod.copy()
    masks[5] = 1.0
    repaired = repair_masks(masks, cameras)
    assert repaired.replaced == (5,)
    assert overlap(repaired.masks[5], rod[5]) > 0.7


def test_an_object_that_the_image_cuts_off_is_not_replaced():
    masks = ball_masks([(0.0, 0.0, 0.3, 0.45), (0.4, 0.3, -0.3, 0.2)], CAMERAS, SIZE)
    assert masks[:, 0].any()
    assert repair_masks(masks, CAMERAS).replaced == ()


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(4, 96, 96\) and 16 cameras"):
        repair_masks(TRUE[:4], CAMERAS)
    with pytest.raises(ValueError, match="square"):
        repair_masks(TRUE[:, :40], CAMERAS)


@pytest.mark.parametrize("size", [24, 32])
def test_small_masks_of_one_object_fit_together(size: int, caplog):
    cameras = orbit_cameras(16, image_size=size)
    repaired = repair_masks(ball_masks(FIGURE, cameras, size), cameras)
    assert repaired.replaced == ()
    assert not caplog.text
