"""Blender as a program: where it is, and one run of it."""

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
from typing import BinaryIO

SCRIPT = Path(__file__).resolve().parents[1] / "blender_script.py"
MACOS_APP = Path("/Applications/Blender.app/Contents/MacOS/Blender")
OLDEST = (3, 4)
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_END = 5.0
"""For Blender, between being asked to end and being ended."""


class RenderError(Exception):
    """A run of Blender that did not do what it should; says why in one line."""


def find_blender(name: str | None) -> str:
    """Find the program that runs `blender_script.py`.

    Args:
        name: of a Blender, or of a Python that has the bpy package; a path, or a name in $PATH.
            None takes "blender" from $PATH, else macOS's application, else this Python if it
            has bpy.

    Raises:
        FileNotFoundError: there is none.
    """
    found = shutil.which(name or "blender")
    if found is None and name is None:
        found = shutil.which(str(MACOS_APP))
    if found is None and name is None and importlib.util.find_spec("bpy") is not None:
        return sys.executable
    if found is None:
        what = f"--blender {name}: no such program" if name else "there is no blender in $PATH"
        raise FileNotFoundError(
            f"{what}; install Blender 3.4 or newer (Debian, Ubuntu: apt-get install blender "
            f"python3-numpy; others: blender.org) and give its path as --blender"
        )
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
    """Run the program once, before all objects fail for the same reason.

    Returns:
        Blender's version.

    Raises:
        RenderError: it does not run, is no Blender, or too old.
    """
    code = "import bpy; print('Blender', bpy.app.version_string)"
    command = [program, "-c", code] if _is_python(program) else [program, "--version"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RenderError(f"{program} cannot be run: {error}") from error
    found = re.search(r"^Blender (\d+)\.(\d+)\S*", done.stdout, re.M)
    if found is None:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["nothing"]
        raise RenderError(f"{program} is no Blender that runs; it says: {said[-1][:200]}")
    if (int(found[1]), int(found[2])) < OLDEST:
        raise RenderError(f"{program} is {found[0]}; expected {OLDEST[0]}.{OLDEST[1]} or newer")
    return found[0].removeprefix("Blender ")


def run_blender(
    command: list[str],
    log: BinaryIO,
    deadline: float,
    stopped: Callable[[], bool],
    environment: dict[str, str],
) -> None:
    """Run Blender; whatever ends this ends Blender, and all that Blender started.

    Args:
        command: program and arguments.
        log: takes all that Blender says.
        deadline: on the clock of `time.monotonic`.
        stopped: says whether to give up.
        environment: variables that are set for it.

    Raises:
        RenderError: it failed, crashed, took too long, or was given up.
    """
    begin = log.tell()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,  # a group of its own, which can be ended as a whole
        )
    except OSError as error:
        raise RenderError(f"{command[0]} cannot be run: {error}") from error
    try:
        status = _wait(process, deadline, stopped)
    finally:
        _end_group(process)
    if status != 0:
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise RenderError(_error_line(Path(log.name), begin) or f"Blender ended by {ended}")


def _wait(process: subprocess.Popen[bytes], deadline: float, stopped: Callable[[], bool]) -> int:
    while True:
        try:
            return process.wait(SECONDS_BETWEEN_LOOKS)
        except subprocess.TimeoutExpired:
            if stopped():
                raise RenderError("given up, as all was stopped") from None
            if time.monotonic() > deadline:
                raise RenderError("took longer than --timeout allows, and was ended") from None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process, if it runs, and all processes of its group."""
    if os.name == "nt":
        process.kill()  # alone: what it has started is not known
        process.wait()  # till then its files cannot be renamed
        return
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_END)
    _signal_group(process.pid, signal.SIGKILL)  # also what an ended Blender left behind
    process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of ended ones
        os.killpg(group, number)


def _error_line(log: Path, begin: int) -> str | None:
    """The last line, from a position on, that `blender_script.py` says on failure."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("ERROR: ")]
    if not errors:  # wrong usage
        errors = [line for line in lines if line.startswith("blender_script.py: error: ")]
    return errors[-1].split(": ", 1)[1] if errors else None
