"""Errors of the packages, with the flags that the commands add to them."""

from __future__ import annotations

import sys

import pytest

from evaluation.cli_args import choose_points_form, open_engine
from tests.evaluation.colmap.conftest import FakeEngine


def test_errors_name_the_flag_to_change(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError, match=r"no-such-colmap: .*--colmap"):
        open_engine("no-such-colmap")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ModuleNotFoundError, match=r"pycolmap.*--colmap"):
        open_engine(None)
    with pytest.raises(ValueError, match="--mode sparse"):
        choose_points_form("dense", FakeEngine())
