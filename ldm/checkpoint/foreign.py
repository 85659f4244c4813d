"""Read the tensors of torch files whose pickles name foreign classes, such as old Lightning files.

No class and no function that a file names is imported or called: inert objects stand for them. The
tensors are built from checked sizes, and their data stay mapped from the file.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from common.safe_pickle import SlowUnpickler

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the pickles in torch's format before 1.6."""
MAX_DEPTH = 3
"""Tensors are looked for in so many levels of dictionaries."""
BLOCKED_MODULES = frozenset({"os", "posix", "nt", "sys", "subprocess"})
BUILTIN_TYPES = {
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long"),
    *("object", "range", "set", "slice", "str", "tuple", "type", "unicode", "xrange"),
    *("Ellipsis", "NotImplemented"),
}
"""Other builtins, such as eval, are in no honest checkpoint."""


class BlockedError(pickle.UnpicklingError):
    """A file that is not read: no file of torch, or one that names functions of the system."""


class _Inert(dict[Any, Any]):
    """Stands for an object of a foreign class; keeps the entries of a dictionary, nothing else."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def ignore(self, *_: object) -> None:
        """Ignore what the pickle adds to the object."""

    __setstate__ = append = extend = add = ignore


@dataclass(eq=False)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


@dataclass(eq=False)
class _TensorPlan:
    """A tensor in the file; offset, size and stride in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def __setstate__(self, _: object) -> None:
        """Ignore attributes of tensors."""


def _plan_tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> _TensorPlan:
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor has an impossible size")
    typed = [value for value in more if isinstance(value, torch.dtype)]
    plan = _TensorPlan(storage, offset, size, stride, typed[0] if typed else storage.dtype)
    steps = [(n - 1) * step for n, step in zip(size, stride, strict=True)]
    end = offset + sum(steps) + 1 if math.prod(size) else 0
    if end * plan.dtype.itemsize > storage.count * storage.dtype.itemsize:
        raise pickle.UnpicklingError("a tensor extends beyond its storage")
    return plan


def _first(value: Any = None, *_: object) -> Any:
    return value


def _rebuild(function: Any, _type: object, arguments: Any, *_: object) -> Any:
    if function not in (_plan_tensor, _first):
        raise pickle.UnpicklingError("a tensor of an unknown kind")
    return function(*arguments)


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _plan_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _plan_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _plan_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild,
    ("torch.storage", "UntypedStorage"): torch.uint8,
}
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool",
}  # fmt: skip
for _storage, _dtype in _STORAGES.items():
    _KNOWN["torch", f"{_storage}Storage"] = _KNOWN["torch", _dtype] = getattr(torch, _dtype)


class _TensorsOnly(SlowUnpickler):
    """Builds plans of tensors, plain containers and inert objects."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.foreign: dict[str, type[_Inert]] = {}
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        builtin = module in ("builtins", "__builtin__")
        full = f"{module}.{name}"
        if module.split(".")[0] in BLOCKED_MODULES or (builtin and name not in BUILTIN_TYPES):
            raise BlockedError(f"it names {full}")
        if module == "torch._utils" and name.startswith("_rebuild"):
            raise pickle.UnpicklingError(f"a tensor of an unknown kind ({name})")
        if builtin:
            return type("Inert", (_Inert,), {})
        return self.foreign.setdefault(full, type("Inert", (_Inert,), {}))

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a class with its source, in torch's format before 1.6
            return pid[1]
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        if type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage has an impossible size")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, count))


def read_foreign(path: Path, zipped: bool) -> tuple[Any, list[str]]:
    """Read a torch file; returns its content and the names of the foreign classes.

    In the content tensors are in up to `MAX_DEPTH` levels of dictionaries. A damaged file raises
    all kinds of errors, one that names functions of the system `BlockedError`.
    """
    content, reader, starts = _read_zip(path) if zipped else _read_legacy(path)
    file_size = path.stat().st_size
    whole = torch.UntypedStorage.from_file(str(path), False, file_size)
    parts: dict[str, torch.UntypedStorage] = {}

    def tensor(plan: _TensorPlan) -> Tensor:
        storage = plan.storage
        if storage.key not in parts:
            start, nbytes = starts[storage.key], storage.count * storage.dtype.itemsize
            if start + nbytes > file_size:
                raise EOFError("the data of a tensor are cut off")
            part = whole[start : start + nbytes]
            parts[storage.key] = part if start % 8 == 0 else part.clone()
        result = torch.empty(0, dtype=plan.dtype)
        return result.set_(parts[storage.key], plan.offset, plan.size, plan.stride)

    def resolve(value: Any, depth: int = 0) -> Any:
        if isinstance(value, _TensorPlan):
            return tensor(value)
        if isinstance(value, dict) and depth < MAX_DEPTH:
            return {key: resolve(entry, depth + 1) for key, entry in value.items()}
        return value

    return resolve(content), sorted(reader.foreign)


def _read_zip(path: Path) -> tuple[Any, _TensorsOnly, dict[str, int]]:
    """Return the content, its reader, and the first byte of every storage, by its key."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        entries = {entry.filename: entry for entry in archive.infolist()}
        structure = next(name for name in entries if name.split("/", 1)[-1] == "data.pkl")
        folder = structure.removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order is not None and archive.read(order) != b"little":
            raise ValueError("it was written on a big-endian machine")
        with archive.open(structure) as pickled:
            reader = _TensorsOnly(pickled)
            content = reader.load()
        starts = {}
        for key, storage in reader.storages.items():
            entry = entries[f"{folder}data/{key}"]
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its tensors are compressed")
            if entry.file_size < storage.count * storage.dtype.itemsize:
                raise EOFError("the data of a tensor are cut off")
            file.seek(entry.header_offset + 26)
            starts[key] = entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return content, reader, starts


def _read_legacy(path: Path) -> tuple[Any, _TensorsOnly, dict[str, int]]:
    """Do as `_read_zip` for torch's format before 1.6: pickles, then the storages' data."""
    with path.open("rb") as file:
        if _TensorsOnly(file).load() != LEGACY_MAGIC:
            raise BlockedError("it is a pickle that torch did not write")
        for _ in range(2):  # version of the format, and the machine
            _TensorsOnly(file).load()
        reader = _TensorsOnly(file)
        content = reader.load()
        starts = {}
        for key in _TensorsOnly(file).load():
            storage = reader.storages[str(key)]
            (count,) = struct.unpack("<q", file.read(8))
            if count != storage.count:
                raise EOFError("the data of a tensor are cut off")
            starts[storage.key] = file.tell()
            file.seek(count * storage.dtype.itemsize, 1)
    return content, reader, starts
