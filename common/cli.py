"""Plumbing of all commands: help format, common flags, logging, exit codes."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.files import DISK_FULL, unwritable

log = logging.getLogger(__name__)

SEED = 6033
"""Default of all commands and of the Python API."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show defaults other than None, and keep the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command has."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<n> or mps")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")


def project_file(name: str | Path) -> Path:
    """A file of the project, such as a default configuration, is found from any folder."""
    own = Path(__file__).parents[1] / name
    return own if own.exists() and not Path(name).exists() else Path(name)


def weights_folder(name: str | Path = "ckpt") -> Path:
    """Where downloaded weights go: into the clone, or, if this is a wheel, where the user is."""
    return project_file(name) if project_file("pyproject.toml").exists() else Path(name)


@contextmanager
def advise(advice: str, *errors: type[Exception]) -> Iterator[None]:
    """Append advice on flags, such as "; choose another --out", to the messages of these errors."""
    try:
        yield
    except errors as error:
        raise type(error)(f"{one_line(error)}{advice}") from error


def one_line(error: BaseException) -> str:
    """An error's message on one line, without the escape codes that some libraries colour it by.

    An error of the file system names the file first; of one that cannot be written it says so.
    """
    if isinstance(error, OSError) and error.errno and error.strerror:
        if error.errno in (errno.EROFS, *DISK_FULL):
            return unwritable(error.filename or "the output", error)
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(error)).split())


def limit_numpy_threads() -> None:
    """Give NumPy's own BLAS one thread.

    Several spin while they wait for each other: a product of small arrays, which gains nothing from
    them, takes many times as long while another program runs.
    """
    try:
        import numpy  # noqa: F401 - loads its BLAS
        from threadpoolctl import ThreadpoolController
    except ImportError:  # in Blender's own Python
        return
    for library in ThreadpoolController().lib_controllers:
        if Path(library.filepath).parent.name.startswith("numpy"):  # torch may have one too
            library.set_num_threads(1)


def run_script(main: Callable[[list[str] | None], None]) -> None:
    """Run a command's `main`: exit 1 with one line when it fails, with a traceback if --debug."""
    if sys.stderr is None:  # closed by the parent process
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - stays open until the end
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    logging.getLogger("trimesh").setLevel(logging.WARNING)  # it logs every mesh that it cuts
    # Read by torch when it is first imported: operators that Apple's GPU lacks run on its CPU, and
    # idle threads sleep; by default they spin, and take cores that other programs leave free.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    limit_numpy_threads()
    with suppress(ValueError):  # outside the main thread; SIGTERM cleans up as Ctrl-C does
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main(None)
    except KeyboardInterrupt:
        log.error("interrupted")
        sys.exit(130)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        log.error("%s", one_line(error) or type(error).__name__)
        sys.exit(1)
