from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from common.safe_pickle import read_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_numbers_text_and_arrays_are_read(tmp_path: Path, protocol: int):
    content = [
        np.eye(3), {"a": (1, 2.5, "b", None, True)}, np.float32(0.5), [np.arange(3)],
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["ab", "c"]),
        np.arange(3, dtype=">i2"), np.array(True), np.zeros((0, 3)),
        np.array(["a", [1], np.float64(2)], dtype=object), {"a"}, frozenset([1]), b"\xff",
    ]  # fmt: skip
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    read = read_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read[0], np.eye(3))
    assert read[1] == content[1]
    assert read[2] == np.float32(0.5)
    assert isinstance(read[2], np.float32)
    for made, expected in zip(read[3] + read[4:9], content[3] + content[4:9], strict=True):
        np.testing.assert_array_equal(made, expected)
        assert made.dtype == expected.dtype
    assert read[9].tolist() == content[9].tolist()
    assert read[10:] == content[10:]


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_nothing_in_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(ValueError, match=r"a\.pkl: not a pickle that can be read safely: it asks"):
        read_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "pwned").exists()


def call(function: str, *arguments: object, state: object = None) -> bytes:
    """A pickle that calls `module name` with arguments, then hands a state to what comes."""
    parts = f"c{function.replace(' ', chr(10))}\n(".encode()
    for argument in arguments:
        is_raw = isinstance(argument, Raw)
        parts += argument.code if is_raw else pickle.dumps(argument, 2)[2:-1]
    parts += b"tR"
    if state is not None:
        parts += state.code if isinstance(state, Raw) else pickle.dumps(state, 2)[2:-1]
        parts += b"b"
    return parts


class Raw:
    """A part of a pickle by its opcodes."""

    def __init__(self, code: bytes) -> None:
        self.code = code


NUMBERS = Raw(call("numpy dtype", "f8", False, True))
OBJECTS = Raw(call("numpy dtype", "O8", False, True))
FIELDS = ("x",), {"x": (1, 10**9)}


@pytest.mark.parametrize(
    "code",
    [
        call("numpy.core.multiarray scalar", OBJECTS, "A" * 8),
        call("numpy._core.numeric _frombuffer", "A" * 8, OBJECTS, (1,), "C"),
        call("numpy ndarray", (1,), OBJECTS, "A" * 8),
        call("numpy.core.multiarray _reconstruct", Raw(b"cnumpy\nndarray\n"), (0,), "b",
             state=Raw(b"(K\x01K\x01\x85" + OBJECTS.code + b"\x89U\x08AAAAAAAAt")),
        call("numpy dtype", "V8", False, True),
        call("numpy dtype", "f8", False, True, state=(3, "<", None, *FIELDS, 8, 8, 0)),
        call("numpy dtype", "f8", False, True, state=(3, "<", ("O8", 1), None, None, 8, 8, 0)),
        call("numpy dtype", "U" + "9" * 9, False, True),
        call("numpy.core.multiarray _reconstruct", Raw(b"cnumpy\nndarray\n"), (0,), "b",
             state=Raw(b"(K\x01J\xff\xff\xff\x7f\x85" + NUMBERS.code + b"\x89U\x08AAAAAAAAt")),
        b"cnumpy\ndtype\n",
        NUMBERS.code,
        b"]q\x00h\x00a",  # a list that holds itself
    ],
)  # fmt: skip
def test_arrays_of_pointers_and_other_crafted_arrays_are_refused(tmp_path: Path, code: bytes):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + code + b".")
    with pytest.raises(
        ValueError, match=r"a\.pkl: not a pickle that can be read safely|a\.pkl: .*recursion"
    ):
        read_pickle(tmp_path / "a.pkl")


def byte_string(content: bytes) -> Raw:
    """A `str` of Python 2."""
    return Raw(b"T" + len(content).to_bytes(4, "little") + content)


def test_texts_and_arrays_of_python_2_are_read(tmp_path: Path):
    values = np.linspace(-1, 1, 16)
    kind = call("numpy dtype", byte_string(b"f8"), 0, 1)
    kind += b"(K\x03" + byte_string(b"<").code + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x10\x85" + kind + b"\x89" + byte_string(values.tobytes()).code + b"t"
    array = call("numpy.core.multiarray _reconstruct", Raw(b"cnumpy\nndarray\n"), (0,),
                 byte_string(b"b"), state=Raw(state))  # fmt: skip
    texts = [byte_string(name).code for name in ("äb".encode(), b"caf\xe9", b"plain")]
    parts = [array, *texts, pickle.dumps("ünicode", 2)[2:-1]]
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02(" + b"".join(parts) + b"l.")
    made, *names = read_pickle(tmp_path / "a.pkl")
    np.testing.assert_array_equal(made, values)
    assert names == ["äb", "café", "plain", "ünicode"]


def test_damaged_and_missing_files_are_named(tmp_path: Path):
    whole = pickle.dumps([np.arange(100.0)])
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pkl").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pkl"):
            read_pickle(tmp_path / "cut.pkl")
    contents = (whole[:10], b"", b"version https://git-lfs.github.com", b"<html></html>")
    for content, message in zip(contents, ("damaged: .", "empty", "lfs", "web page"), strict=True):
        (tmp_path / "cut.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_pickle(tmp_path / "cut.pkl")
    with pytest.raises(FileNotFoundError, match=r"none\.pkl"):
        read_pickle(tmp_path / "none.pkl")


def test_memory_that_a_file_names_is_not_allocated(tmp_path: Path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02]r" + (2**24).to_bytes(4, "little") + b".")
    tracemalloc.start()
    try:
        assert read_pickle(tmp_path / "a.pkl") == []
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
