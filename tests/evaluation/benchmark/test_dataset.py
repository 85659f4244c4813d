from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from evaluation.benchmark.dataset import BenchmarkDataset
from tests.evaluation.conftest import EXAMPLES, ring_of_views, save_views


def test_objects_are_found_in_every_layout(tmp_path: Path):
    views = ring_of_views(16)
    true, predicted = tmp_path / "gt", tmp_path / "pr"
    for folder in ("a", "b-gt", "c/c-gt", "d", "e"):
        save_views(true / folder, views)
    true_meshes = ("a/model.obj", "b-mesh/meshes/model.obj", "c/c-mesh/meshes/model.obj")
    for file in true_meshes:
        (true / file).parent.mkdir(parents=True, exist_ok=True)
        (true / file).touch()
    for folder in ("a", "b-pr", "c/c-pr"):
        save_views(predicted / folder, views)
    (predicted / "d").mkdir()
    strip = Image.new("RGB", (16 * 16, 16))
    strip.save(predicted / "d" / "0.png")
    strip.save(predicted / "e.png")
    (predicted / "notes.png").touch()
    for file in ("a/mesh.ply", "b-pr/mesh.ply", "c.ply", "e-pr.ply", "a/rendering.mp4"):
        (predicted / file).touch()
    dataset = BenchmarkDataset([true], [predicted], None)
    assert dataset.names() == ["a", "b", "c", "d", "e"]
    found = {name: dataset.find(name) for name in dataset.names()}
    assert [found[name].predicted for name in "abcde"] == [
        predicted / path for path in ("a", "b-pr", "c/c-pr", "d/0.png", "e.png")
    ]
    assert [found[name].true for name in "abcde"] == [
        true / path for path in ("a", "b-gt", "c/c-gt", "d", "e")
    ]
    assert [found[name].mesh for name in "abcde"] == [
        predicted / "a/mesh.ply", predicted / "b-pr/mesh.ply", predicted / "c.ply", None,
        predicted / "e-pr.ply",
    ]  # fmt: skip
    assert [found[name].true_mesh for name in "abc"] == [true / path for path in true_meshes]
    assert found["a"].video == predicted / "a/rendering.mp4"


def test_true_and_predicted_objects_may_share_a_folder_and_meshes_lie_elsewhere(tmp_path: Path):
    dataset = BenchmarkDataset([EXAMPLES], [EXAMPLES], None)
    assert dataset.names() == ["locomotive"]
    files = dataset.find("locomotive")
    assert files.true == EXAMPLES / "locomotive-gt"
    assert files.predicted == EXAMPLES / "locomotive-pr"
    (tmp_path / "locomotive").mkdir()
    (tmp_path / "locomotive" / "mesh.ply").touch()
    files = BenchmarkDataset([EXAMPLES], [EXAMPLES], tmp_path).find("locomotive")
    assert files.mesh == tmp_path / "locomotive" / "mesh.ply"


def test_of_several_folders_and_strips_the_first_that_has_an_object_counts(tmp_path: Path):
    views, true, other = ring_of_views(16), tmp_path / "true", tmp_path / "other" / "c"
    for name in "ab":
        save_views(true / name, views)
        (true / name / "model.obj").touch()
    save_views(other / "c-gt", views)
    save_views(other / "c-pr", views)
    (tmp_path / "made").mkdir()
    strip = tmp_path / "made" / "a.png"
    Image.new("RGB", (16 * 16, 16)).save(strip)
    (tmp_path / "made" / "b.png").touch()  # not named: of another object
    (tmp_path / "made" / "a.ply").touch()
    dataset = BenchmarkDataset([true, other], [strip, true, other], None)
    assert dataset.names() == ["a", "b", "c"]
    a, b, c = map(dataset.find, "abc")
    assert (a.true, a.predicted, a.mesh) == (true / "a", strip, tmp_path / "made" / "a.ply")
    assert (b.true, b.predicted, b.mesh) == (true / "b", true / "b", true / "b" / "model.obj")
    assert (c.true, c.predicted, c.mesh) == (other / "c-gt", other / "c-pr", None)
    with pytest.raises(FileNotFoundError, match=r"missing\.png: no such folder"):
        BenchmarkDataset([true], [tmp_path / "missing.png"], None)
