"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

GRACE_SECONDS = 15
"""Between SIGTERM and SIGKILL; compiled code handles signals late."""


def prepare_worker() -> None:
    """Call this first in a worker process: it ends with its parent, and on SIGTERM.

    Ctrl-C is left to the parent; progress bars are off.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when it is imported


def _exit_with_parent() -> None:
    """Exit when the parent process was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def terminate(processes: Iterable[BaseProcess]) -> None:
    """End processes, those that have ended too."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(GRACE_SECONDS)
        process.kill()  # no effect if it has ended


def how_it_ended(process: BaseProcess) -> str:
    """Wait for the end of a process, and describe it: "signal 9" or "exit status 3"."""
    process.join()
    code = process.exitcode
    return f"signal {-code}" if code and code < 0 else f"exit status {code}"
