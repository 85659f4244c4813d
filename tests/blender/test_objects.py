from __future__ import annotations

import json
import os
import sys
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
    """The others are rendered."""
    (tmp_path / "map.json").write_text(json.dumps({uid: "a.glb", "b": "b.glb"}))
    errors = {m.uid: m.error for m in find_objects(tmp_path / "map.json")}
    assert errors.pop("b") is None
    assert "folder" in errors[uid] or "empty" in errors[uid]
    (tmp_path / "map.json").write_text(json.dumps({uid: "a.glb"}))
    with pytest.raises(ValueError, match=r"map\.json"):
        find_objects(tmp_path / "map.json")


def test_what_is_no_list_is_refused_and_nothing_to_render_is_an_error(tmp_path: Path):
    wrong = [("a.json", content) for content in (b"{", b"3", b"[1]", b'{"a": 1}')]
    wrong += [("a.json", content) for content in (b"[" * 10**5, b'["\\ud800"]', b'["\\u0000"]')]
    for name, content in (*wrong, ("a.txt", b"\xff\xfe\x00"), ("a.txt", b"a\0.glb")):
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


def test_names_that_clash_are_errors_of_their_objects_and_a_file_listed_twice_is_one(
    tmp_path: Path,
):
    touch(tmp_path / "a.glb", tmp_path / "A.obj", tmp_path / "b.glb")
    (tmp_path / "list.txt").write_text("a.glb\nA.obj\nb.glb\n./b.glb\n")
    found = find_objects(tmp_path / "list.txt")
    assert [m.uid for m in found if m.error is None] == ["b"]
    errors = [m.error for m in found if m.error is not None]
    assert len(errors) == 2
    assert all("a.glb" in error and "A.obj" in error for error in errors)


@pytest.mark.parametrize("layout", ["{}/meshes/model.obj", "{}/models/model_normalized.obj"])
def test_objects_of_a_layout_with_a_folder_each_have_its_name(tmp_path: Path, layout: str):
    touch(*(tmp_path / layout.format(name) for name in ("lion", "shoe")))
    assert [m.uid for m in find_objects(tmp_path)] == ["lion", "shoe"]
    assert [m.uid for m in find_objects(tmp_path / layout.format("lion"))] == ["lion"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_windows_are_read(tmp_path: Path, encoding: str):
    (tmp_path / "list.txt").write_text("\"ä b.glb\"\r\n'c.glb'\r\n", encoding=encoding)
    assert [m.uid for m in find_objects(tmp_path / "list.txt")] == ["c", "ä b"]
    (tmp_path / "uids.json").write_text('["c"]', encoding=encoding)
    assert [m.uid for m in find_objects(tmp_path / "list.txt", tmp_path / "uids.json")] == ["c"]


def test_a_key_that_is_there_twice_is_named(tmp_path: Path):
    (tmp_path / "map.json").write_text('{"a": "a.glb", "b": "b.glb", "a": "c.glb"}')
    with pytest.raises(ValueError, match=r"map\.json.*'a'.* twice"):
        find_objects(tmp_path / "map.json")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_linked_folders_are_searched_once_and_loops_end(tmp_path: Path):
    models = tmp_path / "models"
    touch(models / "a.glb", tmp_path / "elsewhere/b.glb")
    (models / "linked").symlink_to(tmp_path / "elsewhere")
    (models / "again").symlink_to(tmp_path / "elsewhere")
    (models / "loop").symlink_to(models)
    assert [m.uid for m in find_objects(models)] == ["a", "b"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_name_that_is_not_utf8_is_an_error_of_its_object_only(tmp_path: Path):
    touch(tmp_path / "a.glb", tmp_path / os.fsdecode(b"b\xe9.glb"))
    wrong = {m.uid: m.error for m in find_objects(tmp_path) if m.error is not None}
    assert "not UTF-8" in wrong[os.fsdecode(b"b\xe9")]
