from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from common.files import file_lock
from webapp import sessions as module
from webapp.job import Job, Progress
from webapp.sessions import FOLDER_PREFIX, SessionStore, remove_leftovers, server_folder


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "sessions", tmp_path / "cache")


def test_folders_cannot_be_guessed_or_read_by_others(store):
    first, second = store.open("a"), store.open("b")
    assert store.open("a") is first
    assert len(first.folder.name) >= 32
    assert first.folder.name != second.folder.name
    assert first.tag not in first.folder.name
    assert first.folder.stat().st_mode & 0o077 == 0
    assert store.find("c") is None


def test_closing_a_session_removes_its_files_and_their_copies_and_no_others(store):
    first, second = store.open("a"), store.open("b")
    copies = []
    for session in (first, second):
        copy = store.cache / session.tag[::-1] / session.file("model", ".glb").name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(b"x")
        copies.append(copy)
    store.close("a")
    assert [path.exists() for path in copies] == [False, True]
    assert not first.folder.exists()
    assert second.folder.exists()
    store.close("a")  # a second time does nothing


def test_files_stay_until_the_job_has_finished_its_last_step(store):
    session = store.open("a")
    seen: list[bool] = []

    def work(on_progress):
        while True:
            time.sleep(0.05)
            seen.append(session.folder.exists())
            on_progress(Progress(0.0, ""))

    session.job = Job(work).start()
    while not seen:
        time.sleep(0.01)
    store.close("a")
    session.job.wait(5)
    assert all(seen)
    assert not session.folder.exists()


def test_of_too_many_sessions_the_one_idle_for_longest_is_closed(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    for age, name in enumerate(["new", "old", "older"]):
        store.open(name).last_used -= age if name != "older" else 0
    assert store.find("old") is None
    assert store.find("new") is not None
    assert store.find("older") is not None


def test_a_servers_folder_is_removed_at_its_end(tmp_path):
    with pytest.raises(KeyboardInterrupt), server_folder(tmp_path) as folder:  # noqa: PT012
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "file").write_bytes(b"x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_leftovers_are_removed_but_no_folders_that_are_locked_new_or_of_other_names(tmp_path):
    old, used, new, other = (
        tmp_path / name
        for name in (f"{FOLDER_PREFIX}a", f"{FOLDER_PREFIX}b", f"{FOLDER_PREFIX}c", "other")
    )
    target = tmp_path / "target"
    for folder in (old, used, new, other, target):
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    link = tmp_path / f"{FOLDER_PREFIX}link"
    link.symlink_to(target)
    with file_lock(used / "server"):
        for folder in (old, used, other, target):
            os.utime(folder, (1, 1))
        os.utime(link, (1, 1), follow_symlinks=False)
        remove_leftovers(tmp_path, 3600)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {used.name, new.name, other.name, "target", link.name}
    assert (target / "file").exists()
