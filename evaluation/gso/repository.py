"""One folder of one commit of a git repository, fetched by the program git."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_OF_CALLERS_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
_SETTINGS = {
    "core.autocrlf": "false",
    "core.sparseCheckout": "true",
    "http.lowSpeedLimit": "1000",  # bytes a second; slower for a minute counts as broken
    "http.lowSpeedTime": "60",
}


class FetchError(OSError):
    """The folder cannot be fetched; the message is one line."""


def fetch_folder(url: str, commit: str, folder: str, repository: Path) -> Path:
    """Fetch one folder of one commit, without history and without the other folders.

    What an interrupted call fetched is used by the next one.

    Args:
        url: of the repository.
        commit: its full hash; git checks that the content is the commit's.
        folder: path inside the repository.
        repository: where to fetch to; created if needed.

    Returns:
        path of the folder.

    Raises:
        FetchError: git is not installed, or fails; says why.
    """
    if not (repository / ".git").is_dir():
        _git("init", "--quiet", str(repository))
    for key, value in {**_SETTINGS, "remote.origin.url": url}.items():
        _git("-C", str(repository), "config", key, value)
    patterns = repository / ".git" / "info" / "sparse-checkout"
    patterns.parent.mkdir(exist_ok=True)
    patterns.write_text(f"/{folder}/\n", encoding="utf-8")
    show = ["--progress" if sys.stderr is not None and sys.stderr.isatty() else "--quiet"]
    fetch = ["fetch", *show, "--depth", "1", "--filter=blob:none", "origin", commit]
    try:
        _git("-C", str(repository), *fetch)
        _git("-C", str(repository), "checkout", *show, "--force", "--detach", commit)
    except FetchError as error:
        raise FetchError(f"{url}: commit {commit[:12]} cannot be fetched ({error})") from error
    if not (repository / folder).is_dir():
        raise FetchError(f"{url}: commit {commit[:12]} has no folder {folder}")
    return repository / folder


def _git(*arguments: str) -> None:
    """Run git; on a terminal its progress is shown."""
    environment = {k: v for k, v in os.environ.items() if k not in _OF_CALLERS_REPOSITORY}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            ["git", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise FetchError(f"the program git cannot be run: {error.strerror}") from error
    assert process.stderr is not None
    output = ""
    try:
        while chunk := process.stderr.read(64).decode(errors="replace"):
            output = (output + chunk)[-4000:]
            if "--progress" in arguments:
                sys.stderr.write(chunk)
                sys.stderr.flush()
        status = process.wait()
    finally:
        process.terminate()  # no effect if it has ended
        process.wait()
    if status:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        fatal = [line for line in lines if line.startswith(("fatal: ", "error: "))]
        reason = (fatal or lines or [f"git ended with exit status {status}"])[-1]
        raise FetchError(reason.removeprefix("fatal: ").removeprefix("error: "))
