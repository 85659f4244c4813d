"""Training items and batches against the published ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data.folder import FolderDataset
from ldm.data.samples import (
    TrainingBatch,
    TrainingItem,
    check_png,
    decode_item,
    decode_item_into,
    decode_rgba,
    pick_input_view,
    to_model_range,
    white_blend_table,
)
from tests.conftest import SHARED, needs_shared
from tests.ldm.training.training_tree import elevations, make_tree, png

TABLE_SHA256 = "d565fa9d89cf272a5584453498da15865e5b693e6acf5ef2ed887aad79fd4a9d"


def read_rgba(content: bytes) -> np.ndarray:
    return np.frombuffer(decode_rgba(content), np.uint8).reshape(16, 16, 4)


def item(root: Path, view: int, index: int = 0, size: int = 16) -> TrainingItem:
    files = FolderDataset(root).read(index, view, 16)
    return decode_item(files, view, size)


@needs_shared
def test_the_item_is_the_published_one():
    golden = np.load(SHARED / "goldens" / "data_item.npz")
    start = int(golden["start_index"])
    ours = item(SHARED / "goldens" / "data_example", start, size=256)
    assert ours.target_images.shape == (16, 3, 256, 256)
    views = {"view0": ours.target_images[0], "view11": ours.target_images[11]}
    for name, image in {**views, "input": ours.input_image}.items():
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), golden[f"{name}_uint8"])
    views = to_model_range(ours.target_images).double().flatten(1)
    stats = [views.mean(1), views.std(1, correction=0), views.abs().sum(1)]
    stats += [views.amin(1), views.amax(1)]
    np.testing.assert_allclose(torch.stack(stats, 1), golden["target_stats"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ours.input_elevation, golden["input_elevation"][0], rtol=1e-7)
    small = item(SHARED / "goldens" / "data_example", start, size=64)
    np.testing.assert_array_equal(
        small.target_images[0].permute(1, 2, 0), golden["composed_before_resize_target5"]
    )
    np.testing.assert_array_equal(white_blend_table(), golden["composition_table_alpha_value"])


def test_the_table_of_values_over_white_is_the_published_one():
    assert hashlib.sha256(white_blend_table().tobytes()).hexdigest() == TABLE_SHA256
    assert (white_blend_table()[0] == 255).all()
    assert (white_blend_table()[255] != np.arange(256)).sum() == 95


def test_the_targets_are_rolled_so_that_the_input_view_comes_first(tmp_path: Path):
    make_tree(tmp_path, ["a", "b"])
    ours = item(tmp_path, view=5, index=1)
    places = [(image, f"target/b/{(k + 5) % 16:03d}") for k, image in enumerate(ours.target_images)]
    for image, name in [*places, (ours.input_image, "input/b/005")]:
        pixels = read_rgba((tmp_path / f"{name}.png").read_bytes())
        expected = white_blend_table()[pixels[..., 3:], pixels[..., :3]]
        np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
    assert ours.input_elevation == torch.tensor(elevations(1, 16)[5], dtype=torch.float32)
    assert ours.uid == "b"


def test_a_batch_is_its_items(tmp_path: Path):
    make_tree(tmp_path, ["a", "b"])
    source = FolderDataset(tmp_path)
    batch = TrainingBatch.empty(["a", "b"], 16, 8)
    for place, view in enumerate((3, 9)):
        decode_item_into(batch.item(place), source.read(place, view, 16), view)
    batch = batch.to("cpu")
    assert (len(batch), batch.uids) == (2, ("a", "b"))
    assert batch.target_images.shape == (2, 16, 3, 8, 8)
    for place, view in enumerate((3, 9)):
        one = item(tmp_path, view, place, size=8)
        assert torch.equal(batch.target_images[place], one.target_images)
        assert torch.equal(batch.input_images[place], one.input_image)
        assert batch.input_elevations[place] == one.input_elevation


def test_input_views_are_drawn_evenly_and_follow_from_seed_epoch_and_uid():
    draws = [pick_input_view(6033, epoch, f"uid{n}") for epoch in range(20) for n in range(200)]
    counts = Counter(draws)
    assert set(counts) == set(range(16))
    chi_square = sum((count - 250) ** 2 / 250 for count in counts.values())
    assert chi_square < 38  # 15 degrees of freedom: one in a thousand is above
    assert pick_input_view(1, 2, "a") == pick_input_view(1, 2, "a")
    assert len({pick_input_view(1, epoch, "a") for epoch in range(40)}) > 8
    assert len({pick_input_view(seed, 0, "a") for seed in range(40)}) > 8


def test_grey_images_with_transparency_are_read():
    pixels = read_rgba(png(0, mode="LA"))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    assert len(np.unique(pixels[..., 3])) > 2


def test_any_flipped_bit_and_any_cut_of_a_png_is_found():
    content = png(0)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        for damaged in (bytes(flipped), content[:place]):
            with pytest.raises(ValueError, match=r"damaged|not a PNG|expected a square"):
                check_png(damaged)


def test_what_makes_pillow_stumble_is_called_damaged(monkeypatch):
    def stumble(_: object) -> None:
        raise IndexError("index out of range")

    content = png(0)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stumble)
    with pytest.raises(ValueError, match="the image is damaged"):
        decode_rgba(content)
