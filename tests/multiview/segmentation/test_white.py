from __future__ import annotations

import numpy as np
import pytest

from multiview.image_file import read_image
from multiview.images import composite_white_01
from multiview.segmentation.white import segment_white
from tests.conftest import SHARED, needs_shared
from tests.multiview.segmentation.conftest import iou

RED = (0.8, 0.2, 0.3)


def disc(x: float, y: float, radius: float, size: int = 256) -> np.ndarray:
    """The share of each pixel that a disc covers, (size, size)."""
    at = (np.arange(size * 8) + 0.5) / 8
    covered = (at[None] - x) ** 2 + (at[:, None] - y) ** 2 < radius**2
    return covered.reshape(size, 8, size, 8).mean(axis=(1, 3))


def paint(
    image: np.ndarray, share: np.ndarray, colour: tuple[float, float, float] = RED
) -> np.ndarray:
    share = share[:, :, None]
    return (image * (1 - share) + np.array(colour) * share).astype(np.float32)


def white_image(size: int = 256) -> np.ndarray:
    return np.ones((size, size, 3), np.float32)


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_white_recovers_the_antialiased_edge_of_a_disc(size: int):
    true = disc(0.47 * size, 0.52 * size, 0.3 * size, size)
    alpha = segment_white(paint(white_image(size), true))
    edge = (true > 0) & (true < 1)
    assert alpha.dtype == np.float32
    assert iou(alpha, true) > 0.995
    assert np.array_equal(alpha[~edge], true[~edge])
    assert np.abs(alpha - true)[edge].mean() < 0.02
    assert np.abs(alpha - true).max() < 0.15


CUP = np.maximum(disc(110, 128, 60), disc(190, 128, 40) - disc(190, 128, 32))  # with a handle
PARTS = np.maximum(disc(90, 128, 50), disc(200, 128, 16))
SPECKS = np.maximum(disc(200, 40, 2), disc(30, 30, 3))
HEAD = disc(128, 128, 80)
NOISE = 0.04 - np.random.default_rng(0).normal(0, 2 / 255, (256, 256, 3))
LIGHT = 0.98


@pytest.mark.parametrize(
    ("true", "image", "least"),
    [
        (CUP, paint(white_image(), CUP), 0.99),
        (HEAD, paint(paint(white_image(), HEAD), disc(100, 100, 4), (1, 1, 1)), 0.999),
        (HEAD, paint(paint(white_image(), HEAD), disc(100, 100, 20), (LIGHT, LIGHT, LIGHT)), 0.999),
        (PARTS, paint(white_image(), np.maximum(PARTS, SPECKS)), 0.99),
        (HEAD, paint(np.clip(1 - NOISE, 0, 1), HEAD), 0.995),
    ],
    ids=["handle", "small white eye", "large shaded eye", "parts, no specks", "noise"],
)
def test_white_finds(true: np.ndarray, image: np.ndarray, least: float):
    assert iou(segment_white(image), true) > least


def test_white_does_not_leak_into_a_highlight_through_a_gap_of_two_pixels():
    true = disc(128, 128, 80)
    image = paint(paint(white_image(), true), disc(128, 80, 20), (0.98, 0.98, 0.98))
    image[:70, 127:129] = 0.98
    assert iou(segment_white(image), true) > 0.995


def test_white_background_reaches_into_a_narrow_bay_and_not_across_a_line_of_a_pixel():
    image = paint(white_image(), disc(128, 128, 80))
    image[100:102, :100] = 1.0
    assert segment_white(image)[100:102, :100].max() == 0
    thin = white_image()
    for side in (60, 190):
        thin[60:191, side] = thin[side, 60:191] = 0.9  # a frame, and inside
    thin[61:190, 61:190] = 0.98  # a sheet that is nearly white
    assert segment_white(thin)[60:191, 60:191].min() > 0.99


def test_white_keeps_lines_that_are_one_pixel_wide():
    image = white_image()
    image[40:200, 100] = RED
    alpha = segment_white(image)
    assert alpha[40:200, 100].min() == 1
    assert alpha.sum() == 160


def test_white_cuts_an_object_off_where_the_frame_does():
    true = disc(10, 128, 60)
    alpha = segment_white(paint(white_image(), true))
    assert iou(alpha, true) > 0.99
    assert alpha[128, 0] == 1


def test_white_finds_nothing_in_a_white_image_and_all_of_one_without_white():
    assert segment_white(white_image()).max() == 0
    assert segment_white(np.full((40, 60, 3), 0.5, np.float32)).min() == 1
    assert segment_white(white_image(1)).shape == (1, 1)
    with pytest.raises(ValueError, match=r"\(H, W, 3\), got an array of shape \(4, 4\)"):
        segment_white(np.ones((4, 4), np.float32))


@needs_shared
@pytest.mark.parametrize("name", ["alarm", "lion", "mario", "sofa", "teapot"])
def test_white_agrees_with_the_true_alpha_of_renders_of_scanned_objects(name: str):
    paths = sorted((SHARED / "data" / "gso" / name).glob("*.png"))
    images = [read_image(path) for path in paths]
    true = [np.asarray(image)[:, :, 3] / 255.0 for image in images]
    found = [segment_white(composite_white_01(image)) for image in images]
    found = [iou(*pair) for pair in zip(found, true, strict=True)]
    assert len(found) == 16
    assert min(found) > 0.995
