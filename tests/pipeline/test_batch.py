"""Several images with one model, and what fails among them."""

from __future__ import annotations

import csv
import logging
import os

import pytest
from PIL import Image

from pipeline.batch import images_to_3d
from pipeline.view_generator import ModelError
from tests.fakes import FakeGenerator


def test_one_bad_picture_of_a_batch_is_reported_and_the_others_are_done(
    photo, single, context, tmp_path, stand_in, caplog
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "d"):
        (folder / f"{name}.png").write_bytes(photo.read_bytes())
    (folder / "b.png").write_bytes(photo.read_bytes()[:300])
    Image.new("RGB", (64, 64), "white").save(folder / "c.png")
    output = tmp_path / "out"
    assert images_to_3d([folder], output, single, context) == [folder / "b.png", folder / "c.png"]
    assert (output / "a" / "mesh.glb").exists()
    assert (output / "d" / "report.html").exists()
    with (output / "failures.csv").open(newline="") as file:
        (first, second) = csv.DictReader(file)
    assert first["input"] == str(folder / "b.png")
    assert "damaged or cut off" in first["error"]
    assert "c.png: segment: no object was found" in second["error"]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all("\n" not in record.getMessage() for record in errors)

    for name in ("b", "c"):
        (folder / f"{name}.png").unlink()
    assert images_to_3d([folder], output, single, context) == []
    assert not (output / "failures.csv").exists()


def test_a_model_that_cannot_be_loaded_ends_a_batch(photo, config, context, tmp_path, monkeypatch):
    def draw(*_):
        raise ModelError("no such weights")

    monkeypatch.setattr(FakeGenerator, "generate", draw)
    (tmp_path / "b.png").write_bytes(photo.read_bytes())
    with pytest.raises(ModelError, match="no such weights"):
        images_to_3d([tmp_path], tmp_path / "out", config, context)


def test_names_that_are_no_text_or_look_like_tags_do_no_harm(
    photo, single, context, tmp_path, stand_in, caplog
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    tag = "<img src=x onerror=alert(1)>\n&quot;"
    for name in (tag.encode(), b"\xff"):
        (folder / os.fsdecode(name + b".png")).write_bytes(photo.read_bytes())
    (folder / os.fsdecode(b"\xfe.png")).write_text("no picture")
    output = tmp_path / "out"
    assert len(images_to_3d([folder], output, single, context)) == 1
    with (output / "failures.csv").open(newline="", encoding="utf-8") as file:
        (failed,) = csv.DictReader(file)
    assert failed["input"].endswith("\\udcfe.png")
    assert (output / os.fsdecode(b"\xff") / "report.html").read_text(encoding="utf-8")
    page = (output / tag / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_a_batch_says_at_once_what_is_wrong_with_its_folder(photo, config, context, tmp_path):
    other = tmp_path / "failures.csv.png"
    for path in (other, tmp_path / "b.png"):
        path.write_bytes(photo.read_bytes())
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file"):
        images_to_3d([photo, tmp_path / "b.png"], file, config, context)
    with pytest.raises(ValueError, match=r"cannot be called failures\.csv"):
        images_to_3d([photo, other], tmp_path / "out", config, context)
    assert not (tmp_path / "out").exists()
