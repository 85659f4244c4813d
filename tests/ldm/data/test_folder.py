"""Datasets in folders: every bad input that a tree may have; validation images."""

from __future__ import annotations

import math
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.folder import FolderDataset, read_validation_set
from ldm.data.loader import DataConfig, make_loader, open_dataset
from tests.ldm.training.training_tree import encode_png, make_tree, png


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def meta(elevations: object) -> bytes:
    return pickle.dumps([np.eye(3), np.zeros(16), elevations, np.ones(16), np.zeros((16, 3, 4))])


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


VIEW, META, LIST = "target/b/007.png", "input/b/meta.pkl", "uid_set.pkl"
BAD: dict[str, tuple[str, bytes | None, str]] = {
    "no folder": ("target/b", None, "1 of 3"),
    "no input": ("input/b", None, "1 of 3"),
    "15 views": (VIEW, None, "is missing; the folder has 15 of 16"),
    "15 inputs": ("input/b/000.png", None, "15 of 16"),
    "other size": (VIEW, png(1, 12), "is 12 pixels wide, the views before it 16"),
    "not square": (VIEW, encode_png(np.zeros((8, 16, 4), np.uint8)), "16 x 8"),
    "no alpha": (VIEW, png(1, mode="RGB"), "no alpha"),
    "cut off": (VIEW, png(0)[:-40], "damaged"),
    "a flipped bit": (VIEW, flipped(png(0)), "damaged"),
    "text": (VIEW, b"hello", "not a PNG"),
    "empty file": (VIEW, b"", "not a PNG"),
    "no meta": (META, None, "no such file"),
    "evil meta": (META, pickle.dumps(Evil()), "only plain containers"),
    "evil list": (LIST, pickle.dumps([Evil()]), "only plain containers"),
    "degrees": (META, meta(np.linspace(-10, 40, 16)), "radians"),
    "nan": (META, meta(np.full(16, np.nan)), "radians"),
    "15 elevations": (META, meta(np.zeros(15)), "16 elevations"),
    "words": (META, meta(["up"] * 16), "not numbers"),
    "short meta": (META, pickle.dumps([1, 2]), "expected a list of K, azimuths"),
    "empty set": (LIST, pickle.dumps([]), "empty"),
    "no list": (LIST, None, "neither"),
    "numbers": (LIST, pickle.dumps([1, 2]), "names"),
    "twice": (LIST, pickle.dumps(["a", "b", "b"]), "object b is listed twice"),
    "outside": (LIST, pickle.dumps(["a", "../b"]), "'../b'"),
    "no set": ("", None, "set: the folder of training data does not exist"),
}


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, 0) for name in BAD), ("a flipped bit", 1), ("evil meta", 1)]
)
def test_bad_trees_are_refused_naming_the_object_and_the_file(
    tmp_path: Path, monkeypatch, name: str, workers: int
):
    monkeypatch.chdir(tmp_path)
    root = make_tree(tmp_path / "set", ["a", "b", "c"])
    file, content, message = BAD[name]
    if content is not None:
        (root / file).write_bytes(content)
    elif (root / file).is_dir():
        shutil.rmtree(root / file)
    else:
        (root / file).unlink()
    config = DataConfig(batch_size=1, num_workers=workers)
    with pytest.raises((ValueError, OSError)) as caught:
        list(make_loader(open_dataset(str(root)), config, 16, 16, seed=1))
    for part in (message, file, "object b" if "/b" in file else ""):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


@pytest.mark.integration
def test_only_the_files_that_are_needed_are_touched_once_an_object_is_known(tmp_path: Path):
    dataset = FolderDataset(make_tree(tmp_path, ["a"]))
    expected = dataset.read(0, 3, 16)
    for view in set(range(16)) - {3}:
        (tmp_path / "input" / "a" / f"{view:03d}.png").unlink()
    assert dataset.read(0, 3, 16) == expected
    with pytest.raises(OSError, match=r"object a: .*004\.png: cannot be read"):
        dataset.read(0, 4, 16)


def test_validation_images_are_framed_and_their_elevation_is_read(tmp_path: Path):
    picture = Image.new("RGBA", (40, 40))
    picture.paste((255, 0, 0, 255), (10, 10, 31, 21))
    for name in ("b-x-30.png", "a--10.PNG", "c-7.5.webp"):
        picture.save(tmp_path / name, lossless=True)
    (tmp_path / "notes.txt").write_text("no image")
    images = read_validation_set(tmp_path, 64)
    assert [image.name for image in images] == ["a", "b-x", "c"]
    assert [round(math.degrees(image.elevation), 9) for image in images] == [-10, 30, 7.5]
    assert images[0].image.shape == (3, 64, 64)
    red = (images[0].image[1] < 0).any(dim=0)
    assert 49 <= red.sum() <= 51  # 200 of 256 pixels


def test_validation_images_without_an_elevation_and_folders_without_images_are_refused(tmp_path):
    for name in ("a", "a-x", "a-91", "30", "a-30-"):
        (tmp_path / f"{name}.png").write_bytes(png(0))
        with pytest.raises(ValueError, match=rf"{name}\.png: the name must end"):
            read_validation_set(tmp_path, 64)
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(ValueError, match="there are no images"):
        read_validation_set(tmp_path, 64)
    with pytest.raises(FileNotFoundError, match=r"no: .*does not exist"):
        read_validation_set(tmp_path / "no", 64)
