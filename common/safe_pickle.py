"""Restricted unpickler for untrusted files: containers, numbers, text and NumPy arrays only.

NumPy's own unpickling functions are not called: they trust their arguments, and a crafted file can
make them read any address. Arrays are built here from checked parts.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

_NUMBER_OR_TEXT = re.compile(r"[<>|=]?([biufcSU])(\d{1,4})")


class _Type:
    """Placeholder for a `numpy.dtype` of numbers or text."""

    def __init__(self, code: object, *_: object) -> None:
        match = _NUMBER_OR_TEXT.fullmatch(code) if isinstance(code, str) else None
        if match is None:
            raise pickle.UnpicklingError(f"arrays of type {str(code)[:40]!r} are not read")
        self.code, self.order = match[1] + match[2], "="

    def __setstate__(self, state: Any) -> None:
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in rest[:3]):
            raise pickle.UnpicklingError("arrays of structures are not read")
        self.order = order

    def resolve(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Placeholder for a `numpy.ndarray` or NumPy scalar until the whole file is read."""

    value: np.ndarray | np.generic

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        self.value = _frombuffer(raw, kind, shape, "F" if fortran else "C").value


def _frombuffer(raw: object, kind: object, shape: object, order: object) -> _Array:
    if not isinstance(kind, _Type) or not isinstance(raw, bytes | bytearray):
        raise pickle.UnpicklingError("an array's values are not plain bytes")
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
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # empty bytes of protocols 0 to 2
}
for _package in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = lambda *_: _Array()
    _ALLOWED[f"{_package}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = _frombuffer


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only plain containers and NumPy arrays are read"
            ) from None


def _resolve(value: Any) -> Any:
    """Replace placeholders by their arrays."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_resolve(key): _resolve(entry) for key, entry in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(_resolve, value))
    if isinstance(value, _Type | type) or callable(value):
        raise pickle.UnpicklingError("it holds something that is neither data nor an array")
    return value


def read_pickle(path: Path) -> Any:
    """Read an untrusted pickle of plain containers, numbers, text and NumPy arrays only.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not a pickle, or one with anything else in it; none of its code is run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            return _resolve(_ArraysOnly(file).load())
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: not a pickle that can be read safely: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: the pickle is damaged: {error}") from error
