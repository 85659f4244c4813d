from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from common.cli import advise, run_script


def test_failures_exit_1_with_one_line_and_a_traceback_only_on_request(monkeypatch, caplog):
    def main(argv):
        raise ValueError("a.png: is\nbroken")

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 1
    assert "a.png: is broken" in caplog.text
    monkeypatch.setattr(sys, "argv", ["script", "--debug"])
    with pytest.raises(ValueError, match="broken"):
        run_script(main)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EROFS, "Read-only file system", "out"),
         "ERROR: out: cannot be written to (Read-only file system); choose another folder"),
        (OSError(errno.ENOSPC, "No space left", "out"),
         "out: cannot be written to (No space left); free some space, or choose another folder"),
        (OSError(errno.ENOSPC, "No space left"), "ERROR: the output: cannot be written to (No spa"),
        (OSError(errno.EIO, "Input/output error"), "ERROR: Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "a.png"), "a.png: Permission denied"),
        (OSError("a.png: its own words"), "ERROR: a.png: its own words"),
        (RuntimeError("\x1b[1;31mred\x1b[0m\n\x1b[?25hwords"), "ERROR: red words"),
        (RuntimeError(), "ERROR: RuntimeError"),
    ],
)  # fmt: skip
def test_messages_name_the_file_and_have_no_numbers_or_colours(monkeypatch, capfd, error, message):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setattr("logging.root.handlers", [])
    with pytest.raises(SystemExit):
        run_script(fail)
    printed = capfd.readouterr().err.strip()
    assert message in printed
    assert printed.isprintable()
    assert "Errno" not in printed


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_idle_threads_sleep_unless_the_user_says_otherwise(given, expected):
    code = "import os; from common.cli import run_script; run_script(lambda _: print(os.environ))"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert f"'OMP_WAIT_POLICY': '{expected}'" in done.stdout.decode()


def test_numpys_threads_do_not_spin_in_a_command(monkeypatch):
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    ours = [each for each in libraries if "numpy" in each.filepath]
    if not ours:
        pytest.skip("NumPy has no BLAS of its own here")
    for library in ours:
        library.set_num_threads(2)
    monkeypatch.setattr(sys, "argv", ["script"])
    run_script(lambda _: None)
    assert [library.get_num_threads() for library in ours] == [1] * len(ours)


def test_an_interrupt_exits_130(monkeypatch):
    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as caught:
        run_script(interrupt)
    assert caught.value.code == 130


def test_advice_is_added_to_the_message_of_an_error_of_that_type_only():
    def fail(error: Exception) -> None:
        with advise("; choose another --out", FileExistsError):
            raise error

    with pytest.raises(FileExistsError, match=r"a\.csv: exists; choose another --out") as caught:
        fail(FileExistsError("a.csv: exists"))
    assert isinstance(caught.value.__cause__, FileExistsError)
    with pytest.raises(ValueError, match=r"^broken$"):
        fail(ValueError("broken"))
