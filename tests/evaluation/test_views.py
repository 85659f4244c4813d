from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.view_metrics import read_pair
from evaluation.views import read_views
from multiview.images import views_to_strip
from tests.evaluation.conftest import ring_of_views, save_views


def test_views_come_in_the_order_of_their_names_and_in_0_to_1(tmp_path: Path):
    views = read_views(save_views(tmp_path / "a", ring_of_views()))
    assert views.shape == (16, 64, 64, 3)
    assert views.dtype == np.float32
    np.testing.assert_allclose(views, ring_of_views(), atol=0.5 / 255 + 1e-6)


def test_a_strip_holds_the_same_views_as_a_folder(tmp_path: Path):
    folder = save_views(tmp_path / "a", ring_of_views())
    strip = (views_to_strip(ring_of_views()) * 255).round().astype(np.uint8)
    Image.fromarray(strip).save(tmp_path / "0.png")
    np.testing.assert_array_equal(read_views(tmp_path / "0.png"), read_views(folder))


def test_rgba_views_are_composited_on_white(tmp_path: Path):
    rgba = np.zeros((16, 16, 16, 4))
    rgba[:, :, :8] = [1.0, 0.0, 0.0, 128 / 255]
    views = read_views(save_views(tmp_path / "a", rgba))
    np.testing.assert_allclose(views[:, :, 8:], 1.0)
    np.testing.assert_allclose(views[3, 5, 2], [1.0, 127 / 255, 127 / 255], atol=1e-6)


def test_missing_views_are_named(tmp_path: Path):
    folder = save_views(tmp_path / "a", ring_of_views(16))
    for name in ("003.png", "011.png"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"14 of 16 .* missing: 003\.png, 011\.png$"):
        read_views(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of views"):
        read_views(tmp_path / "nowhere")


def test_views_of_another_size_are_named(tmp_path: Path):
    folder = save_views(tmp_path / "a", ring_of_views(32))
    Image.new("RGB", (48, 40)).save(folder / "005.png")
    with pytest.raises(ValueError, match=r"most have 32 x 32 pixels, but not 005\.png \(48 x 40\)"):
        read_views(folder)


def test_views_must_be_square(tmp_path: Path):
    folder = tmp_path / "a"
    save_views(folder, np.zeros((16, 20, 30, 3)))
    with pytest.raises(ValueError, match=r"30 x 20 pixels .*expected square"):
        read_views(folder)


def test_true_and_predicted_views_of_different_sizes_are_both_named(tmp_path: Path):
    a = save_views(tmp_path / "true", ring_of_views(32))
    b = save_views(tmp_path / "predicted", ring_of_views(16))
    with pytest.raises(ValueError, match=r"predicted: views of 16 x 16 .*true have 32 x 32"):
        read_pair(a, b)


def test_an_image_that_is_no_strip_of_sixteen_is_refused(tmp_path: Path):
    Image.new("RGB", (64, 16)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"64 x 16 pixels .*expected 16 square views"):
        read_views(tmp_path / "0.png")


def test_a_damaged_view_is_named(tmp_path: Path):
    folder = save_views(tmp_path / "a", ring_of_views(16))
    (folder / "007.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"007\.png: not an image"):
        read_views(folder)
