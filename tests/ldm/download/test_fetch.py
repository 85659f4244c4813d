"""Downloads from a server on this machine, over real sockets."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from ldm.download.catalogue import FILES
from ldm.download.fetch import fetch
from tests.conftest import ROOT
from tests.ldm.download.hub_server import (
    CHUNK,
    COMMIT,
    CONTENT,
    HTML,
    SECOND,
    WEIGHTS,
    Hub,
    Repo,
)

COMMAND = """
import signal, sys
from pathlib import Path
from common.cli import run_script
from ldm.download.fetch import fetch
from tests.ldm.download.hub_server import WEIGHTS
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
run_script(lambda _: fetch(WEIGHTS, Path(sys.argv[1])))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ckpt"


def started(folder: Path, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder)],
        cwd=ROOT, env=dict(os.environ), text=True, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors


def is_whole(folder: Path) -> bool:
    """The file is whole, and nothing else but its lock is there."""
    names = {path.name for path in folder.iterdir()} - {".w.ckpt.lock"}
    return names == {"w.ckpt"} and (folder / "w.ckpt").read_bytes() == CONTENT


def test_a_file_is_fetched_once_and_the_token_is_for_the_hub_alone(hub: Hub, folder: Path):
    assert fetch(WEIGHTS, folder) == folder / "w.ckpt"
    assert is_whole(folder)
    paths = {request.path for request in hub.requests}
    assert paths == {f"/one/weights/resolve/{COMMIT}/w.ckpt", "/storage/one/weights"}
    for request in hub.requests:
        to_hub = not request.path.startswith("/storage/")
        assert request.token == ("Bearer hf_secret" if to_hub else None)
    count = len(hub.requests)
    fetch(WEIGHTS, folder)
    assert len(hub.requests) == count


def test_a_cut_connection_goes_on_where_it_ended(hub: Hub, folder: Path):
    hub.repos["one/weights"].cuts = [CHUNK + 1000]
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert hub.ranges() == [None, f"bytes={CHUNK}-"]


def test_a_source_that_cannot_continue_sends_the_whole_file(hub: Hub, folder: Path):
    hub.repos["one/weights"].ignores_range = True
    hub.repos["one/weights"].cuts = [CHUNK + 1000]
    fetch(WEIGHTS, folder)
    assert is_whole(folder)


def test_an_interrupted_download_goes_on_in_the_next_run(hub: Hub, folder: Path):
    hub.repos["one/weights"].holds = CHUNK + 1000
    process = started(folder)
    assert hub.holding.wait(30)
    part = folder / ".w.ckpt.part"
    for _ in range(3000):
        if part.stat().st_size >= CHUNK:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, errors = ended(process)
    assert (code, errors.splitlines()[-1]) == (130, "ERROR: interrupted")
    assert not (folder / "w.ckpt").exists()
    assert part.read_bytes() == CONTENT[:CHUNK]
    hub.repos["one/weights"].holds = None
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert hub.ranges() == [None, f"bytes={CHUNK}-"]


def test_of_two_downloads_at_once_the_second_waits_and_fetches_nothing(hub: Hub, folder: Path):
    hub.repos["one/weights"].holds = CHUNK
    first = started(folder)
    assert hub.holding.wait(30)
    second = started(folder)
    assert second.stderr is not None
    assert "another process is downloading it" in second.stderr.readline()
    hub.released.set()
    assert (ended(first)[0], ended(second)[0]) == (0, 0)
    assert is_whole(folder)
    assert hub.ranges() == [None]


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (Repo(CONTENT[::-1], etag=WEIGHTS.sha256), "gives a file of SHA-256"),
        (Repo(CONTENT[::-1]), "has a file of SHA-256"),
        (Repo(CONTENT[:-1]), "has a file of 11534335 bytes, expected 11534336"),
        (Repo(HTML, WEIGHTS.sha256, len(CONTENT)), "a web page in place of the file"),
        (Repo(lacks_headers=True), "is no Hub: a proxy's or login page"),
        (Repo(status=401), r"refuses access \(401\).*HF_TOKEN"),
        (Repo(status=503), "503"),
        (None, r"has no such file \(404\)"),
    ],
    ids=["content", "sha256", "size", "html", "proxy", "401", "503", "404"],
)
def test_the_next_source_is_used_and_the_log_says_why(
    hub: Hub, folder: Path, caplog: pytest.LogCaptureFixture, first: Repo | None, reason: str
):
    caplog.set_level(logging.INFO)
    del hub.repos["one/weights"]
    if first is not None:
        hub.repos["one/weights"] = first
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert "w.ckpt from space two/weights" in caplog.messages
    hub.repos.pop("spaces/two/weights")
    (folder / "w.ckpt").unlink()
    with pytest.raises(OSError, match=f"no source gives it: one/weights: .*{reason}") as error:
        fetch(WEIGHTS, folder)
    assert "space two/weights: has no such file (404)" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in folder.iterdir()] == [".w.ckpt.lock"]


def test_a_truncated_file_is_completed_by_the_next_source(hub: Hub, folder: Path):
    hub.repos["one/weights"] = Repo(CONTENT[:-1000], WEIGHTS.sha256, len(CONTENT))
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert hub.ranges() == [None, f"bytes={len(CONTENT) - 1000}-"]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(CONTENT) + 1)], ids=["wrong", "long"])
def test_a_damaged_partial_file_is_fetched_anew(hub: Hub, folder: Path, left: bytes):
    folder.mkdir()
    (folder / ".w.ckpt.part").write_bytes(left)
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert hub.ranges()[-1] is None


def test_without_a_connection_the_error_names_every_source(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"one/weights: .*refused.*space two/weights: .*refused"):
        fetch(WEIGHTS, folder)
    assert not (folder / "w.ckpt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_not_the_source_s_fault(hub: Hub, folder: Path):
    folder.mkdir()
    (folder / ".w.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"w\.ckpt\.part: cannot be written \(No space left"):
        fetch(WEIGHTS, folder)
    assert not (folder / "w.ckpt").exists()
    assert hub.ranges() == [None]


def test_what_was_written_before_the_disk_was_full_is_kept(hub: Hub, folder: Path):
    """The limit of a file's size is met when writing, as a full disk is."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK - 1, CHUNK - 1))

    code, errors = ended(started(folder, preexec_fn=limit))
    last = errors.splitlines()[-1]
    assert code == 1
    assert "w.ckpt.part: cannot be written (File too large); what came is kept" in last
    assert not (folder / "w.ckpt").exists()
    assert len(hub.ranges()) == 1
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert hub.ranges()[1] == f"bytes={CHUNK - 1}-"


def test_nothing_is_fetched_that_does_not_fit_on_the_disk(hub: Hub, folder: Path):
    with pytest.raises(OSError, match=r"not enough disk space: up to .* MiB are needed"):
        fetch(WEIGHTS, folder, spare=10**18)
    assert not hub.ranges()


def test_another_file_of_the_name_is_left_alone(hub: Hub, folder: Path):
    folder.mkdir()
    for content, found in ((b"mine", "4 bytes, expected"), (CONTENT[::-1], "SHA-256")):
        (folder / "w.ckpt").write_bytes(content)
        with pytest.raises(ValueError, match=f"w.ckpt: is not the published file .{found}"):
            fetch(WEIGHTS, folder)
        assert (folder / "w.ckpt").read_bytes() == content
    assert not hub.requests


def test_the_cache_of_the_hub_s_client_is_used(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    cached = hf_hub_download(
        SECOND.repo, SECOND.path, revision=COMMIT, repo_type="space", endpoint=hub.endpoint
    )
    count = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(WEIGHTS, folder)
    assert is_whole(folder)
    assert len(hub.requests) == count
    assert (folder / "w.ckpt").samefile(cached)


def test_offline_nothing_is_asked(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, errors = ended(started(folder))
    assert code == 1
    assert "HF_HUB_OFFLINE forbids to download it" in errors
    assert not hub.requests


def test_every_source_of_the_published_weights_is_pinned():
    for name, file in FILES.items():
        assert len(file.sha256) == 64
        assert file.sources
        if name == "syncdreamer":
            assert file.size == 5_570_034_171
            assert [len(source.revision) for source in file.sources] == [40, 40, 40]
