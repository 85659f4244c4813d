from __future__ import annotations

import json
from pathlib import Path

import pytest

from blender.objects import find_objects


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_is_searched_at_all_depths_for_models_only(tmp_path: Path):
    touch(tmp_path / "b.glb", tmp_path / "x/y/a.OBJ", tmp_path / "x/y/a.mtl")
    touch(tmp_path / ".trash/c.glb", tmp_path / "notes.txt", tmp_path / "d.e.ply")
    found = {m.uid: m.path.name for m in find_objects(tmp_path)}
    assert found == {"a": "a.OBJ", "b": "b.glb", "d.e": "d.e.ply"}


def test_lists_name_paths_beside_them(tmp_path: Path):
    (tmp_path / "list.txt").write_text("# models\nmeshes/b.glb\n\n/far/a.stl\n")
    found = {m.uid: m.path for m in find_objects(tmp_path / "list.txt")}
    assert found == {"a": Path("/far/a.stl"), "b": tmp_path / "meshes/b.glb"}
    (tmp_path / "list.json").write_text(json.dumps(["b.glb"]))
    assert find_objects(tmp_path / "list.json")[0].path == tmp_path / "b.glb"
    (tmp_path / "map.json").write_text(json.dumps({"lion": "l/model.obj", "shoe": "s/model.obj"}))
    assert [m.uid for m in find_objects(tmp_path / "map.json")] == ["lion", "shoe"]


def test_a_single_model_and_a_choice_of_objects(tmp_path: Path):
    touch(tmp_path / "a.glb", tmp_path / "b.glb", tmp_path / "c.glb")
    assert [m.uid for m in find_objects(tmp_path / "a.glb")] == ["a"]
    (tmp_path / "uids.txt").write_text("c\nb\nc\n")
    assert [m.uid for m in find_objects(tmp_path, tmp_path / "uids.txt")] == ["b", "c"]
    (tmp_path / "uids.txt").write_text("c\nz\n")
    with pytest.raises(FileNotFoundError, match="'z'"):
        find_objects(tmp_path, tmp_path / "uids.txt")


@pytest.mark.parametrize("names", [("a.glb", "a.obj"), ("x/a.glb", "y/a.glb"), ("a.glb", "A.ply")])
def test_two_models_of_one_name_are_refused(tmp_path: Path, names: tuple[str, str]):
    touch(*(tmp_path / name for name in names))
    with pytest.raises(ValueError, match="two models have the uid"):
        find_objects(tmp_path)


@pytest.mark.parametrize("uid", ["../a", "a/b", "..", "", ".hidden", "/etc/a", "a\\b", "con", "a."])
def test_names_that_leave_the_folder_or_cannot_be_one_are_refused(tmp_path: Path, uid: str):
    (tmp_path / "map.json").write_text(json.dumps({uid: "a.glb", "b": "b.glb"}))
    with pytest.raises(ValueError, match=r"map\.json"):
        find_objects(tmp_path / "map.json")


def test_what_is_no_list_is_refused_and_nothing_to_render_is_an_error(tmp_path: Path):
    wrong = [("a.json", content) for content in (b"{", b"3", b"[1]", b'{"a": 1}')]
    for name, content in (*wrong, ("a.txt", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            find_objects(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no models found"):
        find_objects(tmp_path)
    with pytest.raises(FileNotFoundError):
        find_objects(tmp_path / "missing")
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match="no models found"):
        find_objects(tmp_path / "empty.json")
