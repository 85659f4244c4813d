from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from renderer.checkpoint import (
    CheckpointError,
    CheckpointMismatchError,
    NoCheckpointError,
    RunFingerprint,
    read_checkpoint,
    write_checkpoint,
)

FINGERPRINT = RunFingerprint({"kind": "mlp", "mlp": {"steps": 10, "peak": (1, 2)}}, 6033, "abc")
MISSING = object()


def written(path: Path) -> Path:
    write_checkpoint(path, FINGERPRINT, {"step": 3, "values": torch.arange(1000)}, 12.5)
    return path


def test_a_checkpoint_gives_back_its_state_and_leaves_no_other_file(tmp_path: Path):
    state, seconds = read_checkpoint(written(tmp_path / "ckpt" / "last.ckpt"), FINGERPRINT)
    assert state["step"] == 3
    assert_close(state["values"], torch.arange(1000))
    assert seconds == 12.5
    assert [path.name for path in (tmp_path / "ckpt").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 6033, is 1"),
        ({"views": "x"}, "other views"),
        ({"settings": {"kind": "nerf", "nerf": {}}}, "kind was mlp, is nerf"),
        ({"settings": {"kind": "mlp", "mlp": {"steps": 5, "peak": (1, 2)}}}, "steps was 10, is 5"),
        ({"settings": {"kind": "mlp", "mlp": {"steps": 10, "peak": (1, 3)}}}, "mlp.peak was"),
        ({"settings": {**FINGERPRINT.settings, "half": True}}, "half was None, is True"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path, change, message):
    path = written(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointMismatchError, match=f"last.ckpt: .*{message}"):
        read_checkpoint(path, replace(FINGERPRINT, **change))


def test_other_files_of_torch_and_other_versions_are_refused(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    contents = {"not a checkpoint": {"state_dict": {}}, "format 0, exp": {"state": {}, "format": 0}}
    for message, content in contents.items():
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=rf"last\.ckpt: .*{message}"):
            read_checkpoint(path, FINGERPRINT)
    with pytest.raises(NoCheckpointError, match=r"no\.ckpt"):
        read_checkpoint(tmp_path / "no.ckpt", FINGERPRINT)


class Program:
    """What would be run by a file of any Python objects."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_damaged_and_dangerous_files_are_refused_in_short_words(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    torch.save({"state": Program(), "format": 1}, path)
    dangerous = path.read_bytes()
    whole = written(path).read_bytes()
    damaged = [whole[: len(whole) // 2], b"", b"text", whole[:2000] + whole[4000:]]
    for content in (dangerous, *damaged):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"last\.ckpt: ") as caught:
            read_checkpoint(path, FINGERPRINT)
        assert "weights_only" not in str(caught.value)  # torch's advice is to run the file
        assert len(str(caught.value)) < len(str(path)) + 120
    assert not (tmp_path / "executed").exists()
    for content, message in ((b"", "is empty"), (b"version https://git-lfs", "git-lfs pointer")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path, FINGERPRINT)


@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_is_an_error_and_an_older_checkpoint_stays(tmp_path: Path, older: bool):
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    before = {written(path): path.read_bytes()} if older else {}
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"last\.ckpt: .*File too large") as caught:
            written(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "inline_container" not in str(caught.value)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", "text"),
        ("settings", torch.zeros(2)),
        ("seed", "6033"),
        ("seed", True),
        ("views", 3),
        ("state", [1, 2]),
        ("seconds", None),
        ("seconds", float("nan")),
        ("seconds", -1.0),
        *((name, MISSING) for name in ("settings", "seed", "views", "seconds")),
    ],
)
def test_a_checkpoint_with_a_bad_part_or_without_it_is_called_damaged(tmp_path: Path, name, value):
    path = written(tmp_path / "last.ckpt")
    content = {**torch.load(path, weights_only=True), name: value}
    torch.save({key: value for key, value in content.items() if value is not MISSING}, path)
    message = "missing" if value is MISSING else ""
    with pytest.raises(CheckpointError, match=rf"last\.ckpt: .*\({name} is {message}"):
        read_checkpoint(path, FINGERPRINT)


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = written(tmp_path / "last.ckpt")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match=r"last\.ckpt: cannot be read \(Permission denied\)"):
        read_checkpoint(path, FINGERPRINT)


def test_old_settings_do_not_matter_and_settings_that_cannot_be_compared_are_others(tmp_path: Path):
    path = written(tmp_path / "last.ckpt")
    newer = replace(FINGERPRINT, settings={"kind": "mlp", "mlp": {"steps": 10}})
    assert read_checkpoint(path, newer)[1] == 12.5
    section = {f"setting {k}": list(range(50)) for k in range(50)}
    for settings in ({"kind": torch.zeros(2)}, {1: 2, "kind": "grid"}, {"grid": section}):
        torch.save({**torch.load(path, weights_only=True), "settings": settings}, path)
        with pytest.raises(CheckpointMismatchError, match=r": kind was .* is mlp") as caught:
            read_checkpoint(path, FINGERPRINT)
        assert len(str(caught.value)) < len(str(path)) + 400
