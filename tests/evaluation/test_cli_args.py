"""Errors of the packages, with the flags that the commands add to them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common.cli import advise
from evaluation.cli_args import check_log_flag, choose_points_form, open_engine
from tests.evaluation.colmap.conftest import FakeEngine


def test_advice_keeps_the_type_and_the_message():
    with (
        pytest.raises(FileNotFoundError, match=r"^x is missing; try --y$"),
        advise("; try --y", OSError),
    ):
        raise FileNotFoundError("x is missing")
    with pytest.raises(ValueError, match=r"^wrong$"), advise("; try --y", OSError):
        raise ValueError("wrong")


def test_errors_name_the_flag_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError, match=r"no-such-colmap: .*--colmap"):
        open_engine("no-such-colmap")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pycolmap.*--colmap"):
        open_engine(None)
    with pytest.raises(ValueError, match="--mode sparse"):
        choose_points_form("dense", FakeEngine())
    (tmp_path / "log.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"log\.csv: .*--log"):
        check_log_flag(tmp_path / "log.csv")
