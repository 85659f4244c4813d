from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.files import atomic_write, check_file_name, check_free_space, file_lock, sha256

ROOT = Path(__file__).parents[2]


def test_what_is_no_plain_name_on_every_system_is_refused():
    for name in ("", " ", ".", "..", "a/b", "a\\b", "c:", "a ", "x.", "con", "LPT1.txt"):
        with pytest.raises(ValueError, match=r"empty|not a path|on every system"):
            check_file_name(name)
    for name in ("a", "a b", ".a", "a.b", "ä", "contra", "com10"):
        check_file_name(name)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.fixture
def umask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A umask that keeps files from other users; all threads share it, so it must not change."""
    former, set_umask = os.umask(0o027), os.umask
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is changed"))
    yield
    set_umask(former)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file permissions")
@pytest.mark.parametrize("by_library", [None, 0o600, 0o666])
def test_written_files_have_the_usual_permissions(tmp_path: Path, umask, by_library):
    path = tmp_path / "a.txt"
    with atomic_write(path) as temporary:
        assert not temporary.exists()
        temporary.write_text("new")
        if by_library is not None:
            temporary.chmod(by_library)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_of_the_same_number_left_is_not_taken_over(tmp_path: Path):
    left = tmp_path / f".a.{os.getpid()}.tmp.txt"
    left.write_text("half")
    left.chmod(0o600)
    with atomic_write(tmp_path / "a.txt") as temporary:
        assert temporary == left
        temporary.open("a").close()
    assert (tmp_path / "a.txt").read_text() == ""


def test_what_cannot_be_written_is_named(tmp_path: Path):
    path = tmp_path / "missing" / "a.txt"
    with pytest.raises(OSError, match=r"missing.a\.txt"), atomic_write(path):
        pass
    with (
        pytest.raises(OSError, match=r"b\.txt: cannot be written to .*choose another folder"),
        atomic_write(tmp_path / "b.txt"),
    ):
        raise OSError(errno.EROFS, "Read-only file system")


def test_too_little_space_is_an_error(tmp_path: Path):
    check_free_space(tmp_path, 1)
    with pytest.raises(OSError, match="not enough disk space"):
        check_free_space(tmp_path, 2**60)


LOCK_AND_WAIT = """
import sys
from pathlib import Path
from common.files import file_lock
with file_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_another_process_that_holds_the_lock_is_waited_for_only_with_patience(tmp_path: Path):
    path = tmp_path / "work"
    with subprocess.Popen(
        [sys.executable, "-c", LOCK_AND_WAIT, str(path)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        start = time.monotonic()
        for patience in (0.0, 0.2):
            lock = file_lock(path, wait=False, patience=patience)
            with pytest.raises(OSError, match="work: another process"), lock:
                pytest.fail("the lock was taken twice")
        assert 0.2 <= time.monotonic() - start < 30
        other.communicate()
    with file_lock(path, wait=False):
        pass
    assert {item.name for item in tmp_path.iterdir()} <= {".work.lock"}


@pytest.mark.skipif(sys.platform != "linux", reason="flock is replaced as a dynamic library can")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS])
def test_where_there_are_no_locks_the_work_goes_on_after_one_warning(tmp_path: Path, code: int):
    """As on NFS without lockd, Lustre without -o flock, and FUSE."""
    script = (
        "import fcntl, logging, os, sys; from pathlib import Path\n"
        "def flock(*_): raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))\n"
        "fcntl.flock = flock\n"
        "from common.files import file_lock\n"
        "logging.basicConfig()\n"
        "for name in ('a', 'b'):\n"
        "    with file_lock(Path(sys.argv[1]) / name, wait=False): print('worked')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(code)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if code == errno.EROFS:
        assert f"OSError: {tmp_path}: cannot be written to (Read-only" in done.stderr
        return
    assert done.stdout == "worked\nworked\n", done.stderr
    assert done.stderr.count("this file system has no locks") == 1
    assert len(done.stderr.splitlines()) == 1


def test_another_thread_is_kept_out_too(tmp_path: Path):
    path = tmp_path / "work"
    with file_lock(path), ThreadPoolExecutor(1) as other:
        taken = other.submit(file_lock(path, wait=False).__enter__)
        with pytest.raises(OSError, match="another process"):
            taken.result()


def test_files_are_written_without_any_installed_package(tmp_path: Path):
    """As in Blender's own Python, which has neither torch nor filelock."""
    code = (
        "import sys; from pathlib import Path; from common.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary: temporary.write_text('x')\n"
    )
    path = tmp_path / "a.txt"
    isolated = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "check": True}
    subprocess.run([sys.executable, "-S", "-c", code, str(path)], **isolated)
    assert path.read_text() == "x"


def test_the_checksum_is_that_of_the_whole_content(tmp_path: Path):
    content = b"x" * 3_000_001
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["x" * 250 + ".png", "ä" * 125 + ".json", "x" * 255])
def test_names_of_255_bytes_can_be_written_and_locked(tmp_path: Path, name: str):
    path = tmp_path / name
    with file_lock(path), atomic_write(path) as temporary:
        assert temporary.name.endswith(f".{os.getpid()}.tmp{path.suffix}")
        temporary.write_text("new")
    assert path.read_text() == "new"
