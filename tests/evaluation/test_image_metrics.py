from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs requirements/eval.txt")

from evaluation.image_metrics import detect_view_order, psnr, ssim
from evaluation.view_metrics import read_pair
from multiview.views import read_views
from tests.evaluation.conftest import ring_of_views, save_views


def pair_of_views() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:64, :64] / 64
    colour = np.stack([x, y, 0.5 + 0.5 * np.sin(40 * x * y)], axis=-1)
    disc = ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.2)[..., None]
    true = np.where(disc, colour, 1.0).astype(np.float32)
    predicted = np.where(np.roll(disc, 3, axis=1), 0.9 * colour**1.1, 1.0).astype(np.float32)
    return true[None], predicted[None]


def test_psnr_of_a_constant_difference_is_its_closed_form():
    true = np.full((3, 16, 16, 3), 0.5)
    np.testing.assert_allclose(psnr(true, true + 0.1), 20.0, atol=1e-4)
    np.testing.assert_allclose(psnr(true, true - 0.01), 40.0, atol=1e-3)


def test_views_equal_to_themselves_have_infinite_psnr_and_ssim_1():
    views = ring_of_views()
    assert (psnr(views, views) == np.inf).all()
    for form in ("cropped", "current"):
        np.testing.assert_allclose(ssim(views, views, form), 1.0, atol=1e-12)

    white, grey = np.ones((1, 16, 16, 3)), np.full((1, 16, 16, 3), 0.5)
    assert ssim(white, white) == pytest.approx(1.0)
    assert ssim(white, grey) == pytest.approx((2 * 0.5 + 1e-4) / (1.25 + 1e-4))


def test_both_forms_of_ssim_equal_torchmetrics_before_and_since_its_change():
    """The numbers are of torchmetrics 1.4.0 and 1.9.0 in float64, data_range=None."""
    true, predicted = pair_of_views()
    assert ssim(true, predicted, "cropped")[0] == pytest.approx(0.7671900402664238, abs=1e-7)
    assert ssim(true, predicted, "current")[0] == pytest.approx(0.743768618593141, abs=1e-7)
    dull = true * 0.4 + 0.3, predicted * 0.4 + 0.25  # a data range below 1
    assert ssim(*dull, "cropped")[0] == pytest.approx(0.7703477367900656, abs=1e-6)
    assert ssim(*dull, "current")[0] == pytest.approx(0.7467858954089408, abs=1e-6)


@pytest.mark.integration
def test_the_chickens_psnr_and_ssim_equal_the_published_evaluations(
    chicken: Path, eval_goldens: dict[str, np.ndarray]
):
    true, predicted = read_views(chicken / "chicken-gt"), read_views(chicken / "chicken-pr")
    np.testing.assert_allclose(psnr(true, predicted), eval_goldens["psnr"], atol=1e-4)
    for form, golden, tolerance in (
        ("cropped", "ssim_torchmetrics_1_4_0_cropped", 1e-3),
        ("current", "ssim", 1e-3),
        ("cropped", "ssim_float64_cropped", 1e-7),
        ("current", "ssim_float64_uncropped", 1e-7),
    ):
        found = ssim(true, predicted, form)
        np.testing.assert_allclose(found, eval_goldens[golden], atol=tolerance)
    mirrored = predicted[::-1]
    assert psnr(true, mirrored).mean() < psnr(true, predicted).mean() - 1
    assert ssim(true, mirrored).mean() < ssim(true, predicted).mean() - 0.01
    assert detect_view_order(true, predicted) is None
    assert "reverse order and starting with view 15" in (detect_view_order(true, mirrored) or "")


def test_every_other_order_of_a_turning_object_scores_worse_and_is_named():
    true = ring_of_views()
    predicted = np.clip(true + 0.02 * np.random.default_rng(0).normal(size=true.shape), 0, 1)
    assert detect_view_order(true, predicted) is None
    orders = {f"starting with view {k},": np.roll(predicted, k, axis=0) for k in (1, 7, 15)}
    orders["in reverse order and starting with view 15,"] = predicted[::-1]
    same = np.repeat(true[:1], 16, axis=0)
    assert detect_view_order(same, same * 0.9) is None
    for message, moved in orders.items():
        assert psnr(true, moved).mean() < psnr(true, predicted).mean()
        assert message in (detect_view_order(true, moved) or "")


def test_views_smaller_than_the_window_and_of_different_sizes_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="10 x 10"):
        ssim(np.ones((1, 10, 10, 3)), np.ones((1, 10, 10, 3)))
    a = save_views(tmp_path / "true", ring_of_views(32))
    b = save_views(tmp_path / "predicted", ring_of_views(16))
    with pytest.raises(ValueError, match=r"predicted: .*16 x 16 .*true .*32 x 32"):
        read_pair(a, b)
