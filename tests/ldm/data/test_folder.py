"""The training item against the published one, and every bad input that a tree may hold."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.folder import FolderDataset, read_validation_set
from ldm.data.loader import DataConfig, make_loader, open_dataset
from ldm.data.samples import (
    TrainingBatch,
    TrainingItem,
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
    for name, image in (
        ("view0_uint8", ours.target_images[0]),
        ("view11_uint8", ours.target_images[11]),
        ("input_uint8", ours.input_image),
    ):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), golden[name])
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
    for k in range(16):
        pixels = read_rgba((tmp_path / "target" / "b" / f"{(k + 5) % 16:03d}.png").read_bytes())
        expected = white_blend_table()[pixels[..., 3:], pixels[..., :3]]
        np.testing.assert_array_equal(ours.target_images[k].permute(1, 2, 0), expected)
    pixels = read_rgba((tmp_path / "input" / "b" / "005.png").read_bytes())
    expected = white_blend_table()[pixels[..., 3:], pixels[..., :3]]
    np.testing.assert_array_equal(ours.input_image.permute(1, 2, 0), expected)
    assert ours.input_elevation == torch.tensor(elevations(1, 16)[5], dtype=torch.float32)
    assert ours.uid == "b"


def test_a_batch_is_its_items(tmp_path: Path):
    make_tree(tmp_path, ["a", "b"])
    source = FolderDataset(tmp_path)
    batch = TrainingBatch.empty(["a", "b"], 16, 8)
    for place, view in enumerate((3, 9)):
        decode_item_into(batch.item(place), source.read(place, view, 16), view)
    batch = batch.to("cpu")
    assert len(batch) == 2
    assert batch.uids == ("a", "b")
    assert batch.target_images.shape == (2, 16, 3, 8, 8)
    for place, view in enumerate((3, 9)):
        one = item(tmp_path, view, place, size=8)
        assert torch.equal(batch.target_images[place], one.target_images)
        assert torch.equal(batch.input_images[place], one.input_image)
        assert batch.input_elevations[place] == one.input_elevation


def test_8_bit_images_become_the_range_of_the_model():
    views = to_model_range(torch.tensor([0, 255], dtype=torch.uint8))
    assert views.tolist() == [-1.0, 1.0]


def test_input_views_are_drawn_evenly_and_follow_from_seed_epoch_and_uid():
    draws = [pick_input_view(6033, epoch, f"uid{n}") for epoch in range(20) for n in range(200)]
    counts = Counter(draws)
    assert set(counts) == set(range(16))
    chi_square = sum((count - 250) ** 2 / 250 for count in counts.values())
    assert chi_square < 38  # 15 degrees of freedom: one in a thousand is above
    assert pick_input_view(1, 2, "a") == pick_input_view(1, 2, "a")
    assert len({pick_input_view(1, epoch, "a") for epoch in range(40)}) > 8
    assert len({pick_input_view(seed, 0, "a") for seed in range(40)}) > 8


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def spoil_meta(root: Path, position: int, value: object) -> None:
    path = root / "input" / "b" / "meta.pkl"
    meta = pickle.loads(path.read_bytes())
    meta[position] = value
    path.write_bytes(pickle.dumps(meta))


def spoil_png(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip(content: bytearray) -> None:
    content[len(content) // 2] ^= 4


BAD: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (lambda r: shutil.rmtree(r / "target/b"), ["object b", "target/b", "1 of 3"]),
    "no input": (lambda r: shutil.rmtree(r / "input/b"), ["object b", "input/b"]),
    "15 views": (
        lambda r: (r / "target/b/007.png").unlink(),
        ["object b", "007.png is missing", "15 of 16"],
    ),
    "15 inputs": (lambda r: (r / "input/b/000.png").unlink(), ["object b", "input/b/000.png"]),
    "other size": (
        lambda r: (r / "target/b/007.png").write_bytes(png(1, 12)),
        ["object b", "target/b/007.png", "12 pixels", "16"],
    ),
    "not square": (
        lambda r: Image.new("RGBA", (16, 8)).save(r / "target/b/007.png"),
        ["object b", "target/b/007.png", "16 x 8"],
    ),
    "no alpha": (
        lambda r: (r / "target/b/007.png").write_bytes(png(1, mode="RGB")),
        ["object b", "target/b/007.png", "no alpha"],
    ),
    "cut off": (
        lambda r: spoil_png(r / "target/b/007.png", lambda c: c.__delitem__(slice(-40, None))),
        ["object b", "target/b/007.png", "cut off"],
    ),
    "a flipped bit": (
        lambda r: spoil_png(r / "target/b/007.png", flip),
        ["object b", "target/b/007.png", "damaged"],
    ),
    "text": (
        lambda r: (r / "target/b/007.png").write_text("hello"),
        ["object b", "target/b/007.png", "not a PNG"],
    ),
    "empty file": (
        lambda r: (r / "target/b/007.png").write_bytes(b""),
        ["object b", "target/b/007.png", "not a PNG"],
    ),
    "no meta": (lambda r: (r / "input/b/meta.pkl").unlink(), ["object b", "meta.pkl"]),
    "evil meta": (
        lambda r: (r / "input/b/meta.pkl").write_bytes(pickle.dumps(Evil(r / "ran"))),
        ["object b", "meta.pkl", "only plain containers"],
    ),
    "evil list": (
        lambda r: (r / "uid_set.pkl").write_bytes(pickle.dumps([Evil(r / "ran")])),
        ["uid_set.pkl", "only plain containers"],
    ),
    "degrees": (
        lambda r: spoil_meta(r, 2, np.linspace(-10, 40, 16)),
        ["object b", "meta.pkl", "radians"],
    ),
    "nan": (lambda r: spoil_meta(r, 2, np.full(16, np.nan)), ["object b", "radians"]),
    "15 elevations": (lambda r: spoil_meta(r, 2, np.zeros(15)), ["object b", "16 elevations"]),
    "words": (lambda r: spoil_meta(r, 2, ["up"] * 16), ["object b", "not numbers"]),
    "short meta": (
        lambda r: (r / "input/b/meta.pkl").write_bytes(pickle.dumps([1, 2])),
        ["object b", "meta.pkl", "expected a list of K, azimuths"],
    ),
    "empty set": (
        lambda r: (r / "uid_set.pkl").write_bytes(pickle.dumps([])),
        ["uid_set.pkl", "empty"],
    ),
    "no list": (lambda r: (r / "uid_set.pkl").unlink(), ["neither", "uid_set.pkl"]),
    "numbers": (
        lambda r: (r / "uid_set.pkl").write_bytes(pickle.dumps([1, 2])),
        ["uid_set.pkl", "names"],
    ),
    "twice": (
        lambda r: (r / "uid_set.pkl").write_bytes(pickle.dumps(["a", "b", "b"])),
        ["uid_set.pkl", "object b", "twice"],
    ),
    "outside": (
        lambda r: (r / "uid_set.pkl").write_bytes(pickle.dumps(["a", "../b"])),
        ["uid_set.pkl", "'../b'"],
    ),
    "no set": (lambda r: shutil.rmtree(r), ["set: the folder of training data does not exist"]),
}


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, 0) for name in BAD), ("a flipped bit", 1), ("evil meta", 1)]
)
def test_bad_trees_are_refused_naming_the_object_and_the_file(
    tmp_path: Path, name: str, workers: int
):
    root = make_tree(tmp_path / "set", ["a", "b", "c"])
    spoil, parts = BAD[name]
    spoil(root)
    config = DataConfig(batch_size=1, num_workers=workers)
    with pytest.raises((ValueError, OSError)) as caught:
        list(make_loader(open_dataset(str(root)), config, 16, 16, seed=1))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (root / "ran").exists()


def test_a_sound_tree_gives_every_object(tmp_path: Path):
    root = make_tree(tmp_path / "set", ["a", "b", "c"])
    loader = make_loader(open_dataset(str(root)), DataConfig(batch_size=1, num_workers=0), 16, 16)
    assert sorted(uid for batch in loader for uid in batch.uids) == ["a", "b", "c"]


def test_only_the_files_that_are_needed_are_touched_once_an_object_is_known(tmp_path: Path):
    dataset = FolderDataset(make_tree(tmp_path, ["a", "b"]))
    (tmp_path / "input" / "b" / "007.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"object b: .*007\.png is missing.*15 of 16"):
        dataset.read(1, 3, 16)
    expected = dataset.read(0, 3, 16)
    for view in set(range(16)) - {3}:
        (tmp_path / "input" / "a" / f"{view:03d}.png").unlink()
    assert dataset.read(0, 3, 16) == expected
    with pytest.raises(OSError, match=r"object a: .*004\.png: cannot be read"):
        dataset.read(0, 4, 16)


def test_grey_images_with_transparency_are_read():
    pixels = read_rgba(png(0, mode="LA"))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 1])
    assert len(np.unique(pixels[..., 3])) > 2


def test_validation_images_are_framed_and_their_elevation_is_read(tmp_path: Path):
    picture = Image.new("RGBA", (40, 40))
    picture.paste((255, 0, 0, 255), (10, 10, 31, 21))
    for name in ("b-x-30", "a--10", "c-7.5"):
        picture.save(tmp_path / f"{name}.png")
    images = read_validation_set(tmp_path, 64)
    assert [image.name for image in images] == ["a", "b-x", "c"]
    assert [round(math.degrees(image.elevation), 9) for image in images] == [-10, 30, 7.5]
    assert images[0].image.shape == (3, 64, 64)
    red = (images[0].image[1] < 0).any(dim=0)
    assert 49 <= red.sum() <= 51  # 200 of 256 pixels


@pytest.mark.parametrize("name", ["a", "a-x", "a-91", "30", "a-30-"])
def test_a_validation_image_without_an_elevation_is_refused(tmp_path: Path, name: str):
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=rf"{name}\.png: the name must end"):
        read_validation_set(tmp_path, 64)


def test_a_validation_folder_without_images_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="has no PNG"):
        read_validation_set(tmp_path, 64)
    with pytest.raises(FileNotFoundError, match=r"no: .*does not exist"):
        read_validation_set(tmp_path / "no", 64)


def test_what_makes_pillow_stumble_is_called_damaged(monkeypatch):
    def stumble(_: object) -> None:
        raise IndexError("index out of range")

    content = png(0)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stumble)
    with pytest.raises(ValueError, match="the image is damaged"):
        decode_rgba(content)
