from __future__ import annotations

from pathlib import Path

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
    dataset = BenchmarkDataset(true, predicted, None)
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
    dataset = BenchmarkDataset(EXAMPLES, EXAMPLES, None)
    assert dataset.names() == ["locomotive"]
    files = dataset.find("locomotive")
    assert files.true == EXAMPLES / "locomotive-gt"
    assert files.predicted == EXAMPLES / "locomotive-pr"
    (tmp_path / "locomotive").mkdir()
    (tmp_path / "locomotive" / "mesh.ply").touch()
    files = BenchmarkDataset(EXAMPLES, EXAMPLES, tmp_path).find("locomotive")
    assert files.mesh == tmp_path / "locomotive" / "mesh.ply"
