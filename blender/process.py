"""Blender as a subprocess: finding the program, and one run of it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

SCRIPT = Path(__file__).resolve().parents[1] / "blender_script.py"
MACOS_APP = Path("/Applications/Blender.app/Contents/MacOS/Blender")
MIN_VERSION = (3, 4)
POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""


class RenderError(Exception):
    """A failed run of Blender; the message is one line."""


def find_blender(name: str | None) -> str:
    """Find the program that runs `blender_script.py`; FileNotFoundError if there is none.

    `name` is a path or name in $PATH, of Blender or of a Python with the package bpy. None is
    "blender" in $PATH, else the macOS application, else this Python if it has bpy.
    """
    found = shutil.which(name or "blender")
    if name is None:
        found = found or shutil.which(str(MACOS_APP))
        if found is None and importlib.util.find_spec("bpy") is not None:
            return sys.executable
    if found is None:
        problem = f"{name}: no such program" if name else "there is no blender in $PATH"
        packages = "Debian, Ubuntu: apt-get install blender python3-numpy; others: blender.org"
        raise FileNotFoundError(f"{problem}; install Blender 3.4 or newer ({packages})")
    return found


def blender_command(program: str, arguments: list[str]) -> list[str]:
    """The command that runs `blender_script.py` with these arguments."""
    if _is_python(program):
        return [program, str(SCRIPT), *arguments]
    start = [program, "--background", "--factory-startup", "--python-exit-code", "1"]
    return [*start, "--python", str(SCRIPT), "--", *arguments]


def _is_python(program: str) -> bool:
    return Path(program).name.lower().startswith("python")


def check_version(program: str) -> str:
    """Run the program once and return Blender's version; RenderError if it is none or too old."""
    code = "import bpy; print('Blender', bpy.app.version_string)"
    command = [program, "-c", code] if _is_python(program) else [program, "--version"]
    options: dict[str, Any] = {"text": True, "errors": "replace", "timeout": 120}
    try:
        process = subprocess.run(command, capture_output=True, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RenderError(f"{program} cannot be run: {error}") from error
    found = re.search(r"^Blender (\d+)\.(\d+)\S*", process.stdout, re.M)
    if found is None:
        output = (process.stderr.strip() or process.stdout.strip()).splitlines() or ["no output"]
        raise RenderError(f"{program} is not a working Blender: {output[-1][:200]}")
    if (int(found[1]), int(found[2])) < MIN_VERSION:
        expected = ".".join(map(str, MIN_VERSION))
        raise RenderError(f"{program} is {found[0]}; expected {expected} or newer")
    return found[0].removeprefix("Blender ")


def run_blender(
    command: list[str],
    log: BinaryIO,
    deadline: float,
    is_stopped: Callable[[], bool],
    environment: dict[str, str],
) -> list[str]:
    """Run Blender, and terminate it and its child processes if this function is left early.

    Returns the warnings of `blender_script.py`.

    `log` gets the output; the deadline is on the clock of `time.monotonic`; `is_stopped` returns
    True to abort; `environment` has additional variables. RenderError: it failed, crashed, took too
    long, or was aborted.
    """
    begin = log.tell()
    # Debian's Blender takes the packages of the Python that is first in the path: not conda's.
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", os.defpath)])
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, **environment},
            start_new_session=True,  # a process group, which can be terminated as a whole
        )
    except OSError as error:
        raise RenderError(f"{command[0]} cannot be run: {error}") from error
    try:
        status = _wait(process, deadline, is_stopped)
    finally:
        _terminate_group(process)
    if status != 0:
        reason = f"signal {-status}" if status < 0 else f"exit status {status}"
        errors = _marked_lines(Path(log.name), begin, "ERROR: ", "blender_script.py: error: ")
        raise RenderError(errors[-1] if errors else f"Blender ended by {reason}")
    return _marked_lines(Path(log.name), begin, "WARNING: ")


def _wait(process: subprocess.Popen[bytes], deadline: float, is_stopped: Callable[[], bool]) -> int:
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if is_stopped():
                raise RenderError("aborted, as the batch was stopped") from None
            if time.monotonic() > deadline:
                raise RenderError("took longer than the time limit, and was terminated") from None


def _terminate_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process, if it is running, and all processes of its group."""
    if os.name == "nt":
        process.kill()  # only this one: its children are not known
        process.wait()  # until it has ended its files cannot be renamed
        return
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)  # also children that an ended Blender left behind
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the latter on macOS for ended processes
        os.killpg(group, number)


def _marked_lines(log: Path, begin: int, *markers: str) -> list[str]:
    """What follows the first of these markers that occurs, in the log from a position on.

    A marker may be inside a line: Blender's reports may end without a line feed.
    """
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    for marker in markers:
        found = [line.split(marker, 1)[1] for line in lines if marker in line]
        if found:
            return found
    return []
