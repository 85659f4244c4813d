"""Pickle files of others, read without running anything in them."""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # how old protocols write bytes
}
for _package in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    _ALLOWED[f"{_package}.multiarray", "_reconstruct"] = np.empty(0).__reduce__()[0]
    _ALLOWED[f"{_package}.multiarray", "scalar"] = np.float64(0).__reduce__()[0]
    _ALLOWED[f"{_package}.numeric", "_frombuffer"] = np.empty(0).__reduce_ex__(5)[0]


class _ArraysOnly(pickle.Unpickler):
    """Knows plain containers, numbers, text and NumPy arrays, and refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only plain containers and NumPy arrays are read"
            ) from None


def read_pickle(path: Path) -> Any:
    """Read a pickle that holds plain containers, numbers, text and NumPy arrays only.

    Args:
        path: the file; it need not be trusted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a pickle, or one that asks for anything else; nothing of it is run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            return _ArraysOnly(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path}: not a pickle that can be read safely: {error}") from error
    except (AttributeError, ImportError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path}: the pickle is damaged: {error}") from error
