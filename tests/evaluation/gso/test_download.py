"""`python -m evaluation.gso download`, with real git and real files."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trimesh", reason="needs requirements/eval.txt")

from evaluation.depth import read_depth_maps
from evaluation.gso.download import main
from evaluation.gso.repository import FetchError, fetch_folder
from multiview.views import read_views
from tests.conftest import SHARED, needs_shared
from tests.evaluation.gso.conftest import SIZE, write_object

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def upstream(set_of_objects: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """URL of a repository with other folders and a later commit, and the commit of the objects."""
    folder = tmp_path_factory.mktemp("upstream")
    git(folder, "init", "--quiet")
    git(folder, "config", "uploadpack.allowFilter", "true")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    (folder / "weights").mkdir()
    (folder / "weights" / "large.bin").write_text("not asked for")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    shutil.copytree(set_of_objects, folder / "gso-eval")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "objects")
    commit = git(folder, "rev-parse", "HEAD")
    shutil.rmtree(folder / "gso-eval")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "without objects")
    return folder.as_uri(), commit


def download(output: Path, *flags: str | Path) -> int:
    """Run the command; return its exit status."""
    try:
        main(["download", "--output", str(output), "--device", "cpu", *map(str, flags)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def from_upstream(output: Path, upstream: tuple[str, str]) -> int:
    return download(output, "--url", upstream[0], "--commit", upstream[1])


@needs_git
def test_objects_are_fetched_checked_and_credited(
    upstream: tuple[str, str], set_of_objects: Path, tmp_path: Path, caplog
):
    assert from_upstream(tmp_path, upstream) == 0
    assert {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")} == {
        "box", "slab", "backpack", "objects.json", "CREDITS.md"
    }  # fmt: skip
    np.testing.assert_array_equal(read_views(tmp_path / "box"), read_views(set_of_objects / "box"))
    depth = read_depth_maps(tmp_path / "box", 16)
    assert depth is not None
    assert depth.shape == (16, SIZE, SIZE)
    assert (tmp_path / "box" / "true_mesh.ply").is_file()
    record = json.loads((tmp_path / "objects.json").read_text())
    assert record["objects"]["box"]["silhouette_iou"] == 1
    credit = (tmp_path / "CREDITS.md").read_text()
    assert "Google Scanned Objects" in credit
    assert "CC-BY 4.0" in credit
    assert upstream[1] in credit
    assert "backpack, box, slab" in credit
    assert "backpack: only its views can be evaluated" in caplog.text
    assert not (tmp_path / "backpack" / "model.obj").exists()


@needs_git
def test_a_second_run_fetches_nothing_and_a_damaged_set_is_noticed(
    upstream: tuple[str, str], tmp_path: Path, caplog
):
    caplog.set_level("INFO")
    assert from_upstream(tmp_path, upstream) == 0
    nowhere = ("file:///nowhere/at/all", upstream[1])
    record = tmp_path / "objects.json"
    record.write_text(record.read_text().replace(upstream[0], nowhere[0]))
    assert from_upstream(tmp_path, nowhere) == 0  # it would fail if it fetched
    assert "nothing was fetched" in caplog.text
    (tmp_path / "slab" / "003-depth.png").unlink()
    with pytest.raises(FetchError, match="give a copy of its folder gso-eval by --from"):
        from_upstream(tmp_path, nowhere)
    assert from_upstream(tmp_path, upstream) == 1
    assert f"003-depth.png: is missing; remove {tmp_path / 'slab'}" in caplog.text
    shutil.rmtree(tmp_path / "slab")
    assert from_upstream(tmp_path, upstream) == 0
    assert (tmp_path / "slab" / "003-depth.png").is_file()


@needs_git
def test_only_one_folder_of_one_commit_is_fetched(upstream: tuple[str, str], tmp_path: Path):
    folder = fetch_folder(*upstream, "gso-eval", tmp_path / "repository")
    assert (folder / "box" / "000.png").is_file()
    assert not (folder.parent / "weights").exists()
    assert git(folder, "rev-list", "--count", "HEAD") == "1"
    weights = git(Path(upstream[0].removeprefix("file://")), "hash-object", "weights/large.bin")
    fetched = git(folder, "cat-file", "--batch-all-objects", "--batch-check")
    assert "blob" in fetched
    assert weights not in fetched
    (folder / "box" / "000.png").unlink()  # as if the run was interrupted
    fetch_folder(*upstream, "gso-eval", tmp_path / "repository")
    assert (folder / "box" / "000.png").is_file()


@needs_git
def test_what_cannot_be_fetched_is_one_line_and_leaves_no_object(
    upstream: tuple[str, str], tmp_path: Path, monkeypatch
):
    url, commit = upstream
    for wrong, reason in (
        ((url, "0" * 40), "commit 000000000000 cannot be fetched"),
        (("http://127.0.0.1:9/x.git", commit), "cannot be fetched .*127.0.0.1"),
        ((url, git(Path(url.removeprefix("file://")), "rev-parse", "HEAD")), "no folder gso-eval"),
    ):
        with pytest.raises(FetchError, match=reason) as error:
            from_upstream(tmp_path / "a", wrong)
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "a").glob("[!.]*"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="git cannot be run"):
        from_upstream(tmp_path / "b", upstream)


def test_a_copy_is_taken_and_its_broken_objects_are_named(
    set_of_objects: Path, tmp_path: Path, caplog
):
    copy, output = tmp_path / "copy", tmp_path / "out"
    shutil.copytree(set_of_objects / "box", copy / "chicken-gt")
    (copy / "chicken-mesh" / "meshes").mkdir(parents=True)
    (copy / "chicken-gt" / "model.obj").rename(copy / "chicken-mesh" / "meshes" / "model.obj")
    shutil.copytree(set_of_objects / "slab", copy / "slab")
    assert download(output, "--from", copy) == 0
    assert (output / "chicken" / "015-depth.png").is_file()
    assert "chicken: the renders and the mesh do not agree" in caplog.text  # it is not turned

    (copy / "slab" / "004.png").write_bytes(b"not an image")
    assert download(tmp_path / "other", "--from", copy) == 1
    assert "slab: left out" in caplog.text
    assert "004.png" in caplog.text
    assert (tmp_path / "other" / "chicken" / "000.png").is_file()
    assert not (tmp_path / "other" / "slab").exists()
    assert not (tmp_path / "other" / "objects.json").exists()


def test_objects_of_others_are_not_replaced(set_of_objects: Path, tmp_path: Path, caplog):
    write_object(tmp_path / "out" / "box", (0.3, 0.3, 1))
    assert download(tmp_path / "out", "--from", set_of_objects) == 1
    assert "differs from" in caplog.text
    assert "choose another folder for --output" in caplog.text


def test_wrong_usage(tmp_path: Path, capsys):
    assert download(tmp_path, "--commit", "main") == 2
    assert "'main' is not a commit hash" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no such folder"):
        download(tmp_path, "--from", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no objects, expected <name>"):
        download(tmp_path, "--from", tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="--output must be a folder"):
        download(tmp_path / "file")


@needs_shared
@pytest.mark.integration
def test_the_silhouettes_of_scanned_objects_agree_with_their_renders(tmp_path: Path, caplog):
    for name in ("alarm", "sofa", "teapot"):  # turned by 270, -90 and 0 degrees
        shutil.copytree(SHARED / "data" / "gso" / name, tmp_path / "copy" / name)
    assert download(tmp_path / "out", "--from", tmp_path / "copy") == 0
    objects = json.loads((tmp_path / "out" / "objects.json").read_text())["objects"]
    assert all(each["silhouette_iou"] > 0.9999 for each in objects.values())
    assert not caplog.records
