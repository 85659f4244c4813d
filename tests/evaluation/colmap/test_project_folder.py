from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evaluation.colmap import project_folder as module
from evaluation.colmap.project_folder import MANIFEST, UNFINISHED, project_folder


def fill(folder: Path) -> None:
    for name in ("images/000.png", "sparse/points3D.bin", "database.db"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("ours")


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_removes_what_the_first_made_and_nothing_else(tmp_path):
    project = tmp_path / "deep" / "project"
    with project_folder(project) as folder:
        fill(folder)
    (project / "notes.txt").write_text("mine")
    with project_folder(project) as folder:
        assert contents(folder) == {"notes.txt", MANIFEST}
        fill(folder)
    assert contents(project) >= {"notes.txt", "images/000.png", "database.db", MANIFEST}


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("foreign", ["images/holiday.png", "dense", "sparse/deep/model.bin"])
def test_foreign_files_under_our_names_are_refused_and_all_is_left_untouched(
    tmp_path, foreign, earlier
):
    if earlier:
        with project_folder(tmp_path) as folder:
            fill(folder)
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"such as {foreign},"):
        project_folder(tmp_path).__enter__()
    assert contents(tmp_path) == before


def test_nothing_behind_a_link_is_removed(tmp_path):
    project, album = tmp_path / "project", tmp_path / "album"
    with project_folder(project) as folder:
        fill(folder)
    shutil.move(project / "images", album)
    (project / "images").symlink_to(album)
    with pytest.raises(FileExistsError, match="such as images"):
        project_folder(project).__enter__()
    assert (album / "000.png").exists()


def test_a_run_that_failed_or_was_killed_can_be_repeated_in_its_folder(tmp_path):
    for _ in range(2):
        project, error = project_folder(tmp_path), RuntimeError("COLMAP failed")
        fill(project.__enter__())
        assert not project.__exit__(RuntimeError, error, None)
    with project_folder(tmp_path) as folder:
        assert (folder / MANIFEST).read_text() == f"{UNFINISHED}\n"
        fill(folder)
    (tmp_path / MANIFEST).write_text(f"{UNFINISHED}\n")  # as if it had been killed in there
    with project_folder(tmp_path) as folder:
        assert contents(folder) == {MANIFEST}
        fill(folder)
    assert "images/000.png" in (tmp_path / MANIFEST).read_text()


def test_two_runs_in_one_folder_do_not_mix_and_a_file_is_no_folder(tmp_path):
    with project_folder(tmp_path / "p"), pytest.raises(OSError, match="another process"):
        project_folder(tmp_path / "p").__enter__()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file: expected a folder"):
        project_folder(tmp_path / "file").__enter__()


def test_without_a_project_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    with project_folder(None) as folder:
        fill(folder)
    assert not list(tmp_path.iterdir())
