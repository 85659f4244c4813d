from __future__ import annotations

import time
from pathlib import Path

import pytest

from webapp.job import Job, Progress
from webapp.sessions import SessionStore


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
