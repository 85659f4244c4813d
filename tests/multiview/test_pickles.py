from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from multiview.pickles import read_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_numbers_text_and_arrays_are_read(tmp_path: Path, protocol: int):
    content = [np.eye(3), {"a": (1, 2.5, "b", None, True)}, np.float32(0.5), [np.arange(3)]]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    read = read_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read[0], np.eye(3))
    assert read[1] == content[1]
    assert read[2] == np.float32(0.5)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_nothing_in_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(ValueError, match=r"a\.pkl: not a pickle that can be read safely: it asks"):
        read_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "pwned").exists()


def test_damaged_and_missing_files_are_named(tmp_path: Path):
    whole = pickle.dumps([np.arange(100.0)])
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pkl").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pkl"):
            read_pickle(tmp_path / "cut.pkl")
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        read_pickle(tmp_path / "none.pkl")
