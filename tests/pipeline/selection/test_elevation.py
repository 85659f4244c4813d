from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from multiview.image_file import read_image
from multiview.views import read_views
from pipeline.selection import elevation
from pipeline.selection.elevation import ElevationConfig, ElevationEstimate, estimate_elevation
from pipeline.selection.similarity import crop_object
from tests.conftest import SHARED

DATA = SHARED / "data"
ONE_DRAFT = ElevationConfig(drafts_at=(15.0,))


def errors(numbers: range) -> np.ndarray:
    pytest.importorskip("embreex")
    pytest.importorskip("manifold3d")
    from tests.toy_views import toy_views

    found = []
    for number in numbers:
        toy = toy_views(number)
        image = reframed(toy.image, (0.7, 0.9, 1.2, 1.5)[number % 4])
        target = crop_object(image, ONE_DRAFT.size)
        estimate = estimate_elevation(target, lambda _, toy=toy: toy.views, ONE_DRAFT)
        found.append(abs(estimate.elevation_deg - toy.elevation_deg))
    return np.array(found)


def reframed(image: np.ndarray, factor: float) -> np.ndarray:
    """Another size, at another place of a picture that is not square."""
    side = round(len(image) * factor)
    framed = Image.new("RGBA", (2 * side, side + 30))
    framed.paste(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), (5, 19))
    return np.asarray(framed)


@pytest.mark.integration
def test_true_views_tell_the_elevation_of_inputs_however_these_are_framed():
    assert np.median(errors(range(4))) < 5


@pytest.mark.slow
def test_true_views_tell_the_elevation_of_many_inputs():
    found = errors(range(100, 124))
    assert np.median(found) < 3
    assert np.percentile(found, 90) < 10


def test_a_draft_is_made_for_each_elevation_and_equal_ones_give_what_one_gives(monkeypatch):
    made = []

    def curves(target, hull, config):
        return np.stack([np.cos(np.deg2rad(config.candidates() - 17)), np.zeros(21)], axis=1)

    monkeypatch.setattr(elevation, "_score_curves", curves)
    monkeypatch.setattr(elevation, "fit_hull", lambda images, config: None)
    target = crop_object(np.full((9, 9, 4), 255, np.uint8), 64)
    estimate = estimate_elevation(target, made.append)
    assert made == [-10, 0, 10, 20, 30, 40]
    assert estimate.elevation_deg == pytest.approx(17.0, abs=0.05)
    np.testing.assert_allclose(estimate.scores, curves(None, None, ElevationConfig())[:, 0])
    within = np.rad2deg(np.arccos(1 - elevation.PEAK_DROP))
    assert estimate.uncertainty_deg == pytest.approx(within, rel=0.05)


def test_two_peaks_that_are_as_high_make_the_estimate_uncertain_and_the_curve_is_drawn():
    places = np.arange(-10.0, 40.1, 2.5)
    one = np.exp(-(((places - 20) / 5) ** 2))
    two = one + np.exp(-(((places + 2.5) / 5) ** 2))
    assert elevation._peak_half_width(places, one) < 2
    assert elevation._peak_half_width(places, two) > 10
    picture = elevation.plot_scores(ElevationEstimate(20.0, 2.0, places, one, one, one))
    assert picture.size == (480, 240)
    assert {(192, 48, 32), (31, 95, 168)} <= {c for _, c in picture.getcolors(10**6)}


def test_views_without_a_common_volume_are_an_error():
    views = np.ones((16, 64, 64, 3), np.float32)
    for k, view in enumerate(views):
        view[5:12, 5 + 3 * k : 9 + 3 * k] = 0.2
    target = crop_object(np.full((9, 9, 4), 255, np.uint8), 64)
    with pytest.raises(ValueError, match="no volume in common"):
        estimate_elevation(target, lambda _: views, ONE_DRAFT)


@pytest.mark.skipif(not DATA.is_dir(), reason="generated views are not beside the project")
@pytest.mark.parametrize(
    ("name", "strip", "published_deg"),
    [("aircraft", "aircraft-0", 30), ("elephant", "elephant", 30), ("giraffe", "giraffe", 10),
     ("sofa", "sofa", 30)],
)  # fmt: skip
def test_a_generated_draft_tells_the_published_elevation(name: str, strip: str, published_deg: int):
    target = crop_object(np.asarray(read_image(DATA / "testset" / f"{name}.png")), ONE_DRAFT.size)
    views = read_views(DATA / "generated" / f"{strip}.png", 16)
    estimate = estimate_elevation(target, lambda _: views, ONE_DRAFT)
    assert estimate.elevation_deg == pytest.approx(published_deg, abs=8)
