from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from common.files import file_lock
from webapp import sessions as module
from webapp.job import Job, Update
from webapp.sessions import PREFIX, Visits, remove_leftovers, server_folder


@pytest.fixture
def visits(tmp_path: Path) -> Visits:
    return Visits(tmp_path / "visits", tmp_path / "cache")


def test_folders_cannot_be_guessed_or_read_by_others(visits):
    first, second = visits.open("a"), visits.open("b")
    assert visits.open("a") is first
    assert len(first.folder.name) >= 32
    assert first.folder.name != second.folder.name
    assert first.tag not in first.folder.name
    assert first.folder.stat().st_mode & 0o077 == 0
    assert visits.find("c") is None


def test_the_end_of_a_visit_takes_its_files_and_their_copies_and_no_others(visits):
    first, second = visits.open("a"), visits.open("b")
    copies = []
    for visit in (first, second):
        copy = visits.cache / visit.tag[::-1] / visit.file("model", ".glb").name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(b"x")
        copies.append(copy)
    visits.close("a")
    assert [path.exists() for path in copies] == [False, True]
    assert not first.folder.exists()
    assert second.folder.exists()
    visits.close("a")  # once more does nothing


def test_files_stay_until_the_job_has_done_its_last_step(visits):
    visit = visits.open("a")
    seen: list[bool] = []

    def work(tell):
        while True:
            time.sleep(0.05)
            seen.append(visit.folder.exists())
            tell(Update(0.0, ""))

    visit.job = Job(work).start()
    while not seen:
        time.sleep(0.01)
    visits.close("a")
    visit.job.wait(5)
    assert all(seen)
    assert not visit.folder.exists()


def test_of_too_many_visitors_the_idle_longest_is_forgotten(visits, monkeypatch):
    monkeypatch.setattr(module, "MAX_VISITS", 2)
    for age, name in enumerate(["new", "old", "older"]):
        visits.open(name).touched -= age if name != "older" else 0
    assert visits.find("old") is None
    assert visits.find("new") is not None
    assert visits.find("older") is not None


def test_a_servers_folder_is_gone_at_its_end(tmp_path):
    with pytest.raises(KeyboardInterrupt), server_folder(tmp_path) as folder:  # noqa: PT012
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "file").write_bytes(b"x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_leftovers_are_removed_but_not_those_in_use_or_new_or_of_others(tmp_path):
    old, used, new, other = (
        tmp_path / name for name in (f"{PREFIX}a", f"{PREFIX}b", f"{PREFIX}c", "other")
    )
    target = tmp_path / "target"
    for folder in (old, used, new, other, target):
        folder.mkdir()
        (folder / "file").write_bytes(b"x")
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(target)
    with file_lock(used / "server"):
        for folder in (old, used, other, target):
            os.utime(folder, (1, 1))
        os.utime(link, (1, 1), follow_symlinks=False)
        remove_leftovers(tmp_path, 3600)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {used.name, new.name, other.name, "target", link.name}
    assert (target / "file").exists()
