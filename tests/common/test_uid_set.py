from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from common.uid_set import read_uid_set


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "content",
    [
        ["a", "b"], ("a", "b"), {"b", "a"}, frozenset("ab"), [b"a", b"b"], np.array(["a", "b"]),
        np.array([b"a", b"b"]), np.array(["a", "b"], dtype=object), [np.str_("a"), "b"],
    ],
)  # fmt: skip
def test_names_in_any_container_are_read(tmp_path: Path, content, protocol: int):
    path = tmp_path / "uid_set.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    names = read_uid_set(path)
    assert names == ["a", "b"]
    assert all(type(name) is str for name in names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a pickle", "not a pickle that can be read safely.*expected a pickled list"),
        (b"", "is empty.*expected a pickled list"),
        (pickle.dumps("abc"), "holds str 'abc'; expected a pickled list"),
        (pickle.dumps({"a": 1}), "holds dict"),
        (pickle.dumps(["a", 1]), "holds int '1' among the names"),
        (pickle.dumps(["a", None]), "holds NoneType"),
        (pickle.dumps(np.array([1, 2])), "holds int '1' among"),
        (pickle.dumps([b"\xff"]), "not UTF-8"),
        (pickle.dumps(["a", "b", "a"]), "object a is listed twice"),
        (pickle.dumps(["a", b"a"]), "object a is listed twice"),
        (pickle.dumps(["../a"]), "not a path"),
    ],
)
def test_what_is_no_list_of_names_is_said(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "uid_set.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"uid_set\.pkl: .*{message}"):
        read_uid_set(path)
