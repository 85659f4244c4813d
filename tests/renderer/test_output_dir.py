from __future__ import annotations

import pytest

from common.files import atomic_write
from renderer.checkpoint import NoCheckpointError
from renderer.output_dir import check_folder, clear, clear_temporary, own_files
from tests.renderer.small_runs import RESULTS, files


def test_only_names_that_the_command_writes_are_its_own(tmp_path):
    own = ["input-0.png", "masked-31.png", "images/250.jpg", "ckpt/last.ckpt", *RESULTS]
    for name in [*own, "input-00.png", "input-32.png", "images/a.jpg", "250.jpg", "last.ckpt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(str(path.relative_to(tmp_path)) for path in own_files(tmp_path)) == sorted(own)


def test_a_folder_with_results_is_refused_with_and_without_a_checkpoint(tmp_path):
    (tmp_path / "input-0.png").touch()
    with pytest.raises(FileExistsError, match=r"input-0\.png.*no checkpoint"):
        check_folder(tmp_path, resume=False, overwrite=False)
    with pytest.raises(NoCheckpointError, match=r"last\.ckpt"):
        check_folder(tmp_path, resume=True, overwrite=False)
    check_folder(tmp_path, resume=False, overwrite=True)
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt" / "last.ckpt").touch()
    with pytest.raises(FileExistsError, match="a checkpoint"):
        check_folder(tmp_path, resume=False, overwrite=False)
    for folder in (tmp_path / "input-0.png", tmp_path / "input-0.png" / "b"):
        with pytest.raises(NotADirectoryError, match=r"0\.png: is a file, expected a folder"):
            check_folder(folder, resume=False, overwrite=False)


@pytest.mark.parametrize("remove", [clear_temporary, clear])
def test_files_that_are_not_whole_are_removed_and_nothing_else(tmp_path, remove):
    left = ["ckpt/.last.123.tmp.ckpt", "images/.250.9.tmp.jpg", ".mesh.1.tmp.glb"]
    left += [".input-3.77.tmp.png", ".masked-15.77.tmp.png", ".metrics.5.tmp.json"]
    others = [".notes.123.tmp.txt", ".mesh.x.tmp.glb", ".mesh.1.tmp.obj", "mesh.1.tmp.glb"]
    others += [".input-32.7.tmp.png", ".250.9.tmp.jpg", "images/.a.9.tmp.jpg", ".mesh.tmp.glb"]
    for name in [*left, *others]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove(tmp_path)
    assert files(tmp_path) == sorted(others)


def test_the_temporary_names_are_those_of_files_that_are_being_written(tmp_path):
    for name in RESULTS:
        with atomic_write(tmp_path / name) as temporary:
            temporary.touch()
            clear_temporary(tmp_path)
            assert not temporary.exists()
            temporary.touch()
    assert files(tmp_path) == sorted(RESULTS)
