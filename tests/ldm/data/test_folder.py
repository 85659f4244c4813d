"""Datasets in folders: every bad input that a tree may have; validation images."""

from __future__ import annotations

import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.folder import FolderDataset, read_validation_set
from ldm.data.loader import DataConfig, make_loader, open_dataset
from tests.ldm.training.training_tree import make_tree, png


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
        ["object b", "target/b/007.png", "damaged"],
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
