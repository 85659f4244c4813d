from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiview.segmentation import segment_white
from tests.conftest import ROOT
from webapp.mask_editor import MAX_SIDE, MaskEditor, UserError, read_upload

TOY = ROOT / "testset" / "locomotive.png"


def square() -> Image.Image:
    """A red square, 20 pixels a side, in the middle of 60 white ones."""
    pixels = np.full((60, 60, 3), 255, dtype=np.uint8)
    pixels[20:40, 20:40] = (200, 0, 0)
    return Image.fromarray(pixels)


@pytest.fixture
def editor() -> MaskEditor:
    return MaskEditor(square(), segment_white, "white")


def kept(editor: MaskEditor) -> int:
    return int((editor.alpha >= 128).sum())


def test_the_object_is_segmented_unless_the_image_has_a_mask(editor):
    assert kept(editor) == 400
    image = Image.open(TOY)
    own = MaskEditor(image, segment_white, "white").alpha
    assert np.array_equal(own, np.asarray(image)[..., 3])


def test_a_click_erases_or_keeps_a_disc_of_the_brush(editor):
    editor.click(30, 30, keep=False, brush=0.1)  # radius 3
    disc = sum(1 for x in range(-3, 4) for y in range(-3, 4) if x * x + y * y <= 9)
    assert kept(editor) == 400 - disc
    editor.click(5, 5, keep=True, brush=0.1)
    assert kept(editor) == 400
    assert editor.alpha[5, 5] == 255
    assert editor.alpha[30, 30] == 0


def test_similar_colours_end_where_the_colour_does(editor):
    editor.click(25, 25, keep=False, brush=1.0, similar=True)
    assert kept(editor) == 0
    editor.undo()
    editor.click(2, 2, keep=True, brush=0.5, similar=True)
    assert editor.alpha[5, 5] == 255
    assert kept(editor) > 400


def test_undo_and_reset(editor):
    first = editor.alpha
    editor.click(30, 30, False, 0.2)
    second = editor.alpha
    editor.click(30, 30, False, 0.4)
    editor.undo()
    assert editor.alpha is second
    editor.reset()
    assert editor.alpha is first
    editor.undo()
    assert editor.alpha is second
    for _ in range(50):
        editor.undo()
    assert editor.alpha is first


@pytest.mark.parametrize("position", [(-50, 30), (1e9, 30), (30, -1), (30, 1e9)])
def test_a_click_outside_is_clipped_to_the_edge(editor, position):
    editor.click(*position, keep=True, brush=0.05)
    rows, columns = np.nonzero(editor.alpha >= 128)
    assert {0, 59} & ({*rows} | {*columns})


def test_an_empty_mask_and_a_full_one_are_refused(editor):
    editor.click(30, 30, keep=False, brush=1.0)
    with pytest.raises(UserError, match="mask is empty"):
        editor.result()
    for x, y in [(0, 0), (59, 0), (0, 59), (59, 59)]:
        editor.click(x, y, keep=True, brush=1.0)
    editor.click(30, 30, keep=True, brush=1.0)
    with pytest.raises(UserError, match="whole image"):
        editor.result()


def test_the_result_has_the_mask_as_alpha_and_the_preview_fades_the_background(editor):
    result = np.asarray(editor.result())
    assert np.array_equal(result[..., :3], np.asarray(square()))
    assert np.array_equal(result[..., 3], editor.alpha)
    assert np.array_equal(np.asarray(editor.preview())[25, 25], [200, 0, 0])
    editor.click(30, 30, False, 1.0)
    assert np.asarray(editor.preview())[25, 25].min() > 170


def test_an_image_without_an_object_can_be_masked_by_hand():
    editor = MaskEditor(Image.new("RGB", (60, 60), "white"), segment_white, "white")
    assert "No object was found" in editor.notice
    editor.click(30, 30, keep=True, brush=0.5)
    assert kept(editor) > 500


def test_large_images_are_reduced_and_their_metadata_is_dropped(tmp_path: Path):
    path = tmp_path / "large.jpg"
    image = Image.new("RGB", (3000, 1500), "red")
    exif = image.getexif()
    exif[0x010E] = "secret"
    image.save(path, exif=exif)
    read = read_upload(path)
    assert read.size == (MAX_SIDE, MAX_SIDE // 2)
    assert not read.info


@pytest.mark.parametrize(
    ("size", "message"),
    [((9000, 9000), "more than 50 million"), ((8, 200), "only 8 x 200"), ((9000, 20), "too long")],
)
def test_images_of_unfit_sizes_are_refused(tmp_path: Path, size, message):
    path = tmp_path / "image.png"
    Image.new("1", size).save(path)
    with pytest.raises(UserError, match=message):
        read_upload(path)


def test_a_file_that_is_no_image_is_refused_without_naming_its_path(tmp_path: Path):
    for name, content in {"a.png": b"x", "b.png": b"", "c.png": TOY.read_bytes()[:5000]}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_upload(path)
        assert str(tmp_path) not in str(caught.value)
