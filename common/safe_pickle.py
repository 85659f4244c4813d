"""Restricted unpickler for untrusted files: containers, numbers, text and NumPy arrays only.

NumPy's own unpickling functions are not called: they trust their arguments, and a crafted file can
make them read any address. Arrays are built here from checked parts.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.files import check_content

_NUMBER_OR_TEXT = re.compile(r"[<>|=]?([biufcSUO])(\d{1,4})")


class _Bytes(bytes):
    """Bytes that are no text of Python 2."""


def _text(value: object) -> object:
    return value.decode("latin1") if isinstance(value, bytes) else value


class _Type:
    """Placeholder for a `numpy.dtype` of numbers, text or plain objects."""

    def __init__(self, code: object, *_: object) -> None:
        code = _text(code)
        match = _NUMBER_OR_TEXT.fullmatch(code) if isinstance(code, str) else None
        if match is None:
            raise pickle.UnpicklingError(f"arrays of type {str(code)[:40]!r} are not read")
        self.code, self.order = match[1] + match[2], "="

    def __setstate__(self, state: Any) -> None:
        _, order, *rest = map(_text, state)
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
            raise pickle.UnpicklingError("arrays of structures are not read")
        self.order = order

    def resolve(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Placeholder for a `numpy.ndarray` or NumPy scalar until the whole file is read."""

    value: np.ndarray | np.generic

    def __init__(self, *arguments: object) -> None:
        if arguments:
            raise pickle.UnpicklingError("an array is not built of its parts")

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if isinstance(kind, _Type) and kind.code.startswith("O"):
            self.value = _object_array(raw, shape)
            return
        self.value = _frombuffer(raw, kind, shape, "F" if fortran else "C").value


def _object_array(entries: object, shape: object) -> np.ndarray:
    """A vector of objects, which are plain containers or placeholders themselves."""
    if not isinstance(entries, list) or shape != (len(entries),):
        raise pickle.UnpicklingError("an array of objects is not a plain list of them")
    array = np.empty(len(entries), object)
    for place, entry in enumerate(entries):  # NumPy would look into entries that are lists
        array[place] = entry
    return array


def _frombuffer(raw: object, kind: object, shape: object, order: object) -> _Array:
    if not isinstance(kind, _Type) or not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError("an array's values are not plain bytes")
    if kind.code.startswith("O"):
        raise pickle.UnpicklingError("an array of objects is not a plain list of them")
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError("an array's shape is not a tuple of sizes")
    dtype = kind.resolve()
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} has {len(raw)} bytes")
    flat = np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)
    array = _Array()
    array.value = flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")
    return array


def _scalar(kind: object, raw: object) -> _Array:
    array = _frombuffer(raw, kind, (), "C")
    array.value = np.asarray(array.value)[()]
    return array


def _encode(text: object, encoding: object) -> bytes:
    """Decode bytes of pickle protocols 0 to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in another encoding than latin1")
    return _Bytes(text.encode("latin1"))


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _Bytes,  # empty bytes of protocols 0 to 2
}
for _builtins in ("builtins", "__builtin__"):
    for _container in (set, frozenset):
        _ALLOWED[_builtins, _container.__name__] = _container
for _package in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = lambda *_: _Array()
    _ALLOWED[f"{_package}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = _frombuffer


# That in C allocates and clears memory for any number of objects that a file names (LONG_BINPUT).
if TYPE_CHECKING:
    SlowUnpickler = pickle.Unpickler
else:
    SlowUnpickler = pickle._Unpickler


class _ArraysOnly(SlowUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only plain containers and NumPy arrays are read"
            ) from None


def _resolve(value: Any, python2: bool) -> Any:
    """Replace placeholders by their arrays, and bytes of Python 2 by text."""
    if isinstance(value, _Array):
        array = value.value
        if not isinstance(array, np.ndarray) or array.dtype != object:
            return array
        return _object_array([_resolve(entry, python2) for entry in array], array.shape)
    if isinstance(value, bytes):
        return _python2_text(value) if python2 and type(value) is bytes else bytes(value)
    if isinstance(value, dict):
        entries = value.items()
        return {_resolve(key, python2): _resolve(entry, python2) for key, entry in entries}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_resolve(entry, python2) for entry in value)
    if isinstance(value, _Type | type) or callable(value):
        raise pickle.UnpicklingError("it holds something that is neither data nor an array")
    return value


def _python2_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin1")


def read_pickle(path: Path) -> Any:
    """Read an untrusted pickle of plain containers, numbers, text and NumPy arrays only.

    Byte strings of Python 2 are text, in UTF-8 or else Latin-1.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a pickle, or one with anything else in it; none of its code is run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    check_content(path, "a pickle", "")
    try:
        with path.open("rb") as file:
            head = file.read(2)
            file.seek(0)
            content = _ArraysOnly(file, encoding="bytes").load()
        return _resolve(content, python2=head[:1] != b"\x80" or head[1:] < b"\x03")
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: not a pickle that can be read safely: {error}") from error
    except KeyError as error:
        found = f"it has the unknown code {error}"
        raise ValueError(f"{path}: not a pickle that can be read safely: {found}") from error
    except Exception as error:  # a damaged pickle can raise anything
        found = str(error) or "it is cut off"
        raise ValueError(f"{path}: the pickle is damaged: {found}") from error
