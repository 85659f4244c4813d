from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview.images import views_to_strip
from multiview.views import read_views, read_views_and_alpha
from tests.evaluation.conftest import ring_of_views, save_views


def test_views_of_a_folder_and_a_strip_come_in_their_order_and_in_0_to_1(tmp_path: Path):
    views = read_views(save_views(tmp_path / "a", ring_of_views()))
    assert views.shape == (16, 64, 64, 3)
    assert views.dtype == np.float32
    np.testing.assert_allclose(views, ring_of_views(), atol=0.5 / 255 + 1e-6)
    strip = save_strip(tmp_path / "0.png", ring_of_views())
    np.testing.assert_array_equal(read_views(strip), views)


def save_strip(path: Path, views: np.ndarray) -> Path:
    Image.fromarray((views_to_strip(views) * 255).round().astype(np.uint8)).save(path)
    return path


def test_rgba_views_are_composited_on_white(tmp_path: Path):
    rgba = np.zeros((16, 16, 16, 4))
    rgba[:, :, :8] = [1.0, 0.0, 0.0, 128 / 255]
    views = read_views(save_views(tmp_path / "a", rgba))
    np.testing.assert_allclose(views[:, :, 8:], 1.0)
    np.testing.assert_allclose(views[3, 5, 2], [1.0, 127 / 255, 127 / 255], atol=1e-6)


def test_views_whose_scores_would_take_gigabytes_are_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("multiview.views.MAX_VIEW_PIXELS", 64 * 64 - 1)
    folder = save_views(tmp_path / "a", ring_of_views())
    strip = save_strip(tmp_path / "0.png", ring_of_views())
    for path, name in ((folder, r"000\.png"), (strip, r"0\.png")):
        with pytest.raises(ValueError, match=rf"{name}: the image of .* make it smaller first"):
            read_views(path)


def test_missing_views_are_named(tmp_path: Path):
    folder = save_views(tmp_path / "a", ring_of_views(16))
    for name in ("003.png", "011.png"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"14 of 16 .* missing: 003\.png, 011\.png$"):
        read_views(folder)


@pytest.mark.parametrize("name", ["{:03d}.jpg", "{:03d}.PNG", "{}.png", "{:02d}.JPEG", "{}.webp"])
def test_views_of_other_formats_and_unpadded_numbers_are_read(tmp_path: Path, name: str):
    expected = read_views(save_views(tmp_path / "a", ring_of_views()))
    folder = tmp_path / "b"
    folder.mkdir()
    for index in range(16):
        with Image.open(tmp_path / "a" / f"{index:03d}.png") as view:
            view.convert("RGB").save(folder / name.format(index), quality=95)
    found = read_views(folder)
    assert np.abs(found - expected).mean() < 0.01
    Image.new("RGB", (64, 64)).save(folder / "3.bmp")
    with pytest.raises(ValueError, match=r"b: .* are all view 3; remove all but one"):
        read_views(folder)
    for index in range(16):
        (tmp_path / "a" / f"{index:03d}.png").rename(folder / f"{index:03d}.png")
    np.testing.assert_array_equal(read_views(folder), expected)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("view_{:02d}.png", r"other images are there \(view_01\.png, .* and 13 more\): name the "),
        ("{:03d}.png", r"missing: 000\.png; the first is 000\.png, not 001\.png"),
    ],
)
def test_how_to_name_the_views_is_said(tmp_path: Path, name: str, advice: str):
    for index in range(1, 17):
        Image.new("RGB", (64, 64)).save(tmp_path / name.format(index))
    with pytest.raises(FileNotFoundError, match=advice):
        read_views(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"), [("0.JPG", "file"), ("0.webp", "file"), ("a", "folder of views")]
)
def test_what_does_not_exist_is_called_a_file_or_a_folder(tmp_path: Path, name: str, what: str):
    with pytest.raises(FileNotFoundError, match=rf"{name}: no such {what}"):
        read_views(tmp_path / name)


def test_views_beyond_the_sixteen_are_ignored_with_a_warning(tmp_path: Path, caplog):
    folder = save_views(tmp_path / "a", ring_of_views(32))
    (folder / "notes.txt").touch()
    expected = read_views(folder)
    assert not caplog.records
    for name in ("016.png", "100.png"):
        Image.new("RGB", (32, 32)).save(folder / name)
    np.testing.assert_array_equal(read_views(folder), expected)
    assert "a: 16 views are read; ignored: 016.png, 100.png" in caplog.text


def test_views_of_another_size_or_that_are_not_square_are_named(tmp_path: Path):
    folder = save_views(tmp_path / "a", ring_of_views(32))
    Image.new("RGB", (48, 40)).save(folder / "005.png")
    with pytest.raises(ValueError, match=r"most have 32 x 32 pixels, but not 005\.png \(48 x 40\)"):
        read_views(folder)
    with pytest.raises(ValueError, match=r"30 x 20 pixels .*expected square"):
        read_views(save_views(tmp_path / "b", np.zeros((16, 20, 30, 3))))
    for path in (tmp_path / "0.png", tmp_path / "c"):
        (save_views if path.suffix == "" else save_strip)(path, np.ones((16, 15, 15, 3)))
        with pytest.raises(ValueError, match="15 x 15 pixels, expected at least 16 x 16"):
            read_views(path)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((64, 16), "64 x 16 pixels .*this looks like 4 views of 16 px, expected 16 square views"),
        ((2048, 256), "this looks like 8 views of 256 px, expected 16"),
        ((256, 256), "this looks like one view of 256 px"),
        ((32, 512), "this looks like 16 views of 32 px below one another, expected 16 .*side by"),
        ((32, 64), "this looks like 2 views of 32 px below one another"),
        ((511, 32), "this looks like 16 views, 1 pixels too narrow for their height"),
        ((513, 32), "this looks like 16 views, 1 pixels too wide for their height"),
        ((100, 32), "this is no row of square views, expected 16"),
    ],
)
def test_an_image_that_is_no_strip_of_sixteen_is_refused_and_named(tmp_path: Path, size, message):
    Image.new("RGB", size).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match=rf"0\.png: .*{message}"):
        read_views(tmp_path / "0.png")


def rgba_views() -> np.ndarray:
    """Views whose alpha is their number, in 16ths."""
    views = np.ones((16, 16, 16, 4))
    views[..., 3] = np.arange(16)[:, None, None] / 15
    return views


def test_the_alpha_of_a_strip_and_of_a_folder_is_that_of_each_view(tmp_path: Path):
    folder = save_views(tmp_path / "a", rgba_views())
    for path in (folder, save_strip(tmp_path / "0.png", rgba_views())):
        _, alpha = read_views_and_alpha(path)
        np.testing.assert_allclose(alpha, rgba_views()[..., 3], atol=1e-6)


def test_alpha_that_is_full_or_of_some_views_only_is_none_and_the_others_are_named(
    tmp_path, caplog
):
    opaque = np.ones((16, 16, 16, 4))
    for name, views in (("b", opaque), ("c", opaque[..., :3])):
        assert read_views_and_alpha(save_views(tmp_path / name, views))[1] is None
    folder = save_views(tmp_path / "a", rgba_views())
    for name in ("004.png", "011.png"):
        Image.new("RGB", (16, 16)).save(folder / name)
    read_views(folder)
    assert not caplog.records  # of no importance where nobody asks for the alpha
    assert read_views_and_alpha(folder)[1] is None
    assert "have none: 004.png, 011.png" in caplog.text
