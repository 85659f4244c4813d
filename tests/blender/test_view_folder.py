from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blender.plan import ViewSettings, meta_matches, plan_cameras, write_meta
from blender.view_folder import ViewFolder
from multiview.depth_png import levels_to_depth

SETTINGS = ViewSettings("random", num_images=4, resolution=16)


def folder_of(path: Path, settings: ViewSettings = SETTINGS, **changes: object) -> ViewFolder:
    cameras = plan_cameras(settings, "chair")
    return ViewFolder(path, cameras, settings.resolution, {"samples": 8, **changes})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(views: ViewFolder) -> ViewFolder:
    for index in views.prepare():
        image = views.path / ".view.tmp.png"
        Image.new("RGBA", (views.resolution, views.resolution), (index, 0, 0, 255)).save(image)
        depth = np.full((views.resolution, views.resolution), 1.0) if views.depth else None
        views.add_view(index, image, depth)
    return views


def test_a_folder_is_complete_when_all_views_are_in_and_keeps_them(tmp_path: Path):
    views = folder_of(tmp_path / "chair")
    assert not views.is_complete()
    fill(views)
    assert views.is_complete()
    assert " ".join(names(views.path)) == "000.png 001.png 002.png 003.png meta.pkl"
    assert folder_of(tmp_path / "chair").prepare() == []


def test_damaged_missing_and_foreign_views_are_rendered_again(tmp_path: Path, caplog):
    views = fill(folder_of(tmp_path))
    (tmp_path / "000.png").unlink()
    (tmp_path / "001.png").write_bytes((tmp_path / "001.png").read_bytes()[:-20])
    with Image.open(tmp_path / "002.png") as image:
        image.copy().save(tmp_path / "002.png")  # whole, but who knows from which camera
    caplog.set_level(logging.INFO)
    assert views.prepare() == [0, 1, 2]
    assert "001.png" in caplog.text
    assert "002.png: rendered with other settings" in caplog.text
    assert names(tmp_path) == ["003.png", "meta.pkl"]
    (tmp_path / "000.png").write_bytes((tmp_path / "003.png").read_bytes())
    assert views.missing() == [0, 1, 2]


def test_a_new_meta_beside_old_views_is_noticed(tmp_path: Path):
    views = fill(folder_of(tmp_path))
    other = plan_cameras(replace(SETTINGS, seed=1), "chair")
    write_meta(tmp_path / "meta.pkl", other)
    assert not views.is_complete()
    assert ViewFolder(tmp_path, other, 16, {"samples": 8}).missing() == [0, 1, 2, 3]
    assert views.prepare() == []  # the views are of these cameras: only meta.pkl is mended
    assert views.is_complete()


def test_meta_is_written_only_after_the_views_of_other_cameras_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fill(folder_of(tmp_path))
    other = folder_of(tmp_path, replace(SETTINGS, seed=1))

    def interrupted(path: Path, cameras: object) -> None:
        assert not list(tmp_path.glob("*.png"))
        raise KeyboardInterrupt

    monkeypatch.setattr("blender.view_folder.write_meta", interrupted)
    with pytest.raises(KeyboardInterrupt):
        other.prepare()


def test_other_settings_invalidate_all_views_and_fewer_views_remove_some(tmp_path: Path):
    fill(folder_of(tmp_path))
    for change in ({"samples": 9}, {"model": "another"}, {"up": "y"}):
        assert folder_of(tmp_path, **change).missing() == [0, 1, 2, 3]
    assert folder_of(tmp_path, replace(SETTINGS, resolution=32)).prepare() == [0, 1, 2, 3]
    fixed = replace(SETTINGS, camera_type="fixed")
    fill(folder_of(tmp_path, fixed))
    fewer = folder_of(tmp_path, replace(fixed, num_images=2))
    assert fewer.prepare() == [1]  # view 0 is the same in both
    assert names(tmp_path) == ["000.png", "meta.pkl"]
    assert meta_matches(tmp_path / "meta.pkl", fewer.cameras)


def test_files_of_others_are_left_alone_and_leftovers_removed(tmp_path: Path):
    views = folder_of(tmp_path)
    for name in ("notes.txt", "0000.png", "photo.png"):
        (tmp_path / name).write_text("mine")
    for name in (".view.tmp.png", ".000.123.tmp.png", ".depth.z.0001.exr", "007.png"):
        (tmp_path / name).write_text("left over")
    views.prepare()
    assert names(tmp_path) == ["0000.png", "meta.pkl", "notes.txt", "photo.png"]


def test_depth_is_part_of_a_view_when_it_is_asked_for(tmp_path: Path):
    without = fill(folder_of(tmp_path))
    views = replace(without, depth=True)
    assert views.missing() == [0, 1, 2, 3]
    fill(views)
    assert without.prepare() == []
    assert (tmp_path / "000-depth.png").exists()
    with Image.open(tmp_path / "000-depth.png") as image:
        np.testing.assert_allclose(levels_to_depth(np.asarray(image)), 1.0, atol=2e-5)
    (tmp_path / "002-depth.png").write_bytes(b"")
    assert views.prepare() == [2]
    assert not (tmp_path / "002.png").exists()


def test_what_is_no_png_never_becomes_a_view(tmp_path: Path):
    views = folder_of(tmp_path)
    views.prepare()
    (tmp_path / ".view.tmp.png").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"000\.png: not a PNG"):
        views.add_view(0, tmp_path / ".view.tmp.png", None)
    assert not (tmp_path / "000.png").exists()
