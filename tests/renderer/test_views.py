from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from multiview.cameras import orbit_cameras
from renderer.views import MaskError, read_input
from tests.renderer.small_runs import (
    TINY,
    ellipsoid,
    opaque_views,
    read_image,
    with_alpha,
    write_strip,
)
from tests.renderer.traced import ball_masks


def test_alpha_of_the_input_is_the_mask_and_no_segmenter_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("renderer.views.open_segmenter", None)
    path = write_strip(tmp_path / "0.png", ellipsoid())
    given, _ = read_input(path, TINY, "cpu")
    np.testing.assert_allclose(given.masks, ellipsoid()[..., 3], atol=0.5 / 255 + 1e-6)
    assert read_input(path, replace(TINY, use_mask=False), "cpu")[0].masks is None
    edges = (ellipsoid()[..., 3] > 0) & (ellipsoid()[..., 3] < 1)
    assert (given.images[edges].min(axis=-1) > ellipsoid()[edges][:, :3].min(axis=-1)).any()


def test_the_segmenter_that_is_chosen_finds_the_object(strip, monkeypatch):
    asked = []

    def opened(backend: str, device: str) -> Callable[[np.ndarray], np.ndarray]:
        asked.append((backend, device))
        return lambda image: (image.min(axis=-1) < 0.9).astype(np.float32)

    monkeypatch.setattr("renderer.views.open_segmenter", opened)
    given, _ = read_input(strip, replace(TINY, segmenter="u2net"), "cuda:1")
    assert asked == [("u2net", "cuda:1")]
    inside = ellipsoid()[..., :3].min(axis=-1) < 0.9
    assert (given.masks[inside] == 1).mean() > 0.99


def test_the_fingerprint_is_that_of_views_and_alpha(strip, tmp_path):
    rgba = write_strip(tmp_path / "rgba.png", with_alpha(ellipsoid()[..., 3] > 0))
    other = write_strip(tmp_path / "other.png", with_alpha(ellipsoid()[..., 3] > 0.5))
    config = replace(TINY, use_mask=False)
    prints = [read_input(path, config, "cpu")[1] for path in (strip, strip, rgba, other)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_folder_of_views_gives_the_same_as_a_strip(strip, tmp_path):
    for k, view in enumerate(np.split(read_image(strip), 16, axis=1)):
        Image.fromarray(view).save(tmp_path / f"{k:03d}.png")
    (one, digest), (other, same) = (read_input(p, TINY, "cpu") for p in (strip, tmp_path))
    np.testing.assert_array_equal(one.images, other.images)
    assert digest == same


def test_large_views_are_reduced_and_those_that_no_memory_holds_refused(
    strip, tmp_path, monkeypatch, caplog
):
    given, _ = read_input(strip, TINY, "cpu")
    size = given.size
    monkeypatch.setattr("renderer.views.READ_PIXELS", 16 * (size // 2) ** 2)
    caplog.set_level("INFO")
    for k, view in enumerate(np.split(read_image(strip), 16, axis=1)):
        Image.fromarray(view).save(tmp_path / f"{k:03d}.png")
    means = given.images.reshape(16, size // 2, 2, size // 2, 2, 3).mean(axis=(2, 4))
    for path in (strip, tmp_path):
        small, _ = read_input(path, TINY, "cpu")
        assert small.images.shape == (16, size // 2, size // 2, 3)
        assert small.cameras.intrinsics[0, 0, 2] == size / 4
        assert np.abs(small.images - means).mean() < 0.01
    assert f"000.png: reduced from {size} to {size // 2} pixels a side" in caplog.text
    monkeypatch.setattr("multiview.views.MAX_INPUT_PIXELS", 16 * size**2 - 16)
    with pytest.raises(ValueError, match=r"000\.png: the image of .* make it smaller first"):
        read_input(tmp_path, TINY, "cpu")


def test_a_few_bad_masks_only_give_a_warning(tmp_path, caplog):
    alpha = opaque_views(3, 9)
    alpha[5] = 0
    path = write_strip(tmp_path / "0.png", with_alpha(alpha))
    given, _ = read_input(path, replace(TINY, repair_masks=False), "cpu")
    assert "the mask is empty in views 5 and full in views 3, 9" in caplog.text
    assert given.replaced == ()
    assert given.masks[3].min() == 1


def test_bad_masks_are_replaced_and_named(tmp_path, caplog):
    path = write_strip(tmp_path / "0.png", with_alpha(opaque_views(3)))
    given, _ = read_input(path, TINY, "cpu")
    assert given.replaced == (3,)
    assert "0.png: the masks of views 3 " in caplog.text
    true = ellipsoid()[3, ..., 3] >= 0.5
    assert ((given.masks[3] >= 0.5) != true).mean() < 0.05


def test_a_segmenter_that_found_nothing_is_named_and_alpha_has_none(strip, tmp_path, monkeypatch):
    path = write_strip(tmp_path / "0.png", with_alpha(0.4 * (ellipsoid()[..., 3] > 0)))
    with pytest.raises(MaskError) as caught:
        read_input(path, TINY, "cpu")
    assert caught.value.segmenter is None
    nothing = lambda image: np.zeros(image.shape[:2], np.float32)  # noqa: E731
    monkeypatch.setattr("renderer.views.open_segmenter", lambda *arguments: nothing)
    with pytest.raises(MaskError, match="u2net") as caught:
        read_input(strip, replace(TINY, segmenter="u2net"), "cpu")
    assert caught.value.segmenter == "u2net"


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        (ellipsoid()[..., 3] < 0.5, r"16 of 16 masks cover all borders .* are they inverted"),
        ((ellipsoid()[..., 3] > 0.5) / 255, "alpha is at most 1 of 255, .* multiply it by 255"),
    ],
)
def test_inverted_and_faint_alpha_is_refused_with_advice(tmp_path, alpha, message):
    path = write_strip(tmp_path / "0.png", with_alpha(alpha))
    with pytest.raises(ValueError, match=rf"0\.png: .*{message}"):
        read_input(path, TINY, "cpu")


def test_views_in_reverse_order_are_refused_and_the_order_that_fits_is_named(tmp_path):
    cameras = orbit_cameras(16, image_size=64)
    masks = ball_masks([(0, 0, -0.1, 0.25), (0.25, 0.1, 0.2, 0.15)], cameras, 64)
    views = masks[..., None] * np.array([0.5, 0.5, 0.5, 1.0], np.float32)
    read_input(write_strip(tmp_path / "0.png", views), TINY, "cpu")
    reverse = write_strip(tmp_path / "reverse.png", views[-np.arange(16) % 16])
    with pytest.raises(
        ValueError, match=r"reverse\.png: .* in reverse order only .*: view 0 stays"
    ):
        read_input(reverse, TINY, "cpu")
