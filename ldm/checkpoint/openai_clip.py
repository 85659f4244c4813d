"""Read CLIP's weights from OpenAI's file, a TorchScript archive, without running code in it.

Such an archive is a zip: `data.pkl` is the tree of modules, `data/<key>` the values of a tensor.
The tree is unpickled with a placeholder for every class; any other global is refused.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.checkpoint.files import MAX_STRUCTURE_BYTES

PREFIX = "visual."
UNUSED_TEXT = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "token_embedding.weight",
    "ln_final.weight",
    "ln_final.bias",
)
"""Text tensors in published checkpoints besides the image tower; the text tower is left out."""
STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Node:
    """Placeholder for an object of one of the archive's classes; keeps its attributes."""

    def __init__(self, *_: object) -> None:
        self.attributes: dict[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = state


class _Storage:
    """Placeholder for a storage type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _strided(
    values: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> Tensor:
    """Rebuild a tensor from its storage; refuse one that reaches beyond it."""
    if math.prod(size) > len(values):
        raise ValueError("a tensor has more numbers than its data")
    reach = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if offset < 0 or min(stride, default=0) < 0 or (0 not in size and reach >= len(values)):
        raise ValueError("a tensor reaches beyond its data")
    return values.as_strided(size, stride, offset).clone()


class _TreeUnpickler(pickle.Unpickler):
    """Unpickler that builds placeholders and tensors only; any other global is an error."""

    def __init__(self, file: Any, read: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self.read = read
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the placeholder for a global of the pickle."""
        if module.split(".")[0] == "__torch__":
            return _Node
        if module == "torch" and name in STORAGES:
            return _Storage(STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return lambda value, *_: value
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """Read a storage from the archive."""
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise pickle.UnpicklingError(f"unknown object {kind!r}")
        if key not in self.storages:
            values = torch.frombuffer(bytearray(self.read(str(key))), dtype=storage.dtype)
            if len(values) < count:
                raise ValueError(f"the data of storage {key} are cut off")
            self.storages[key] = values
        return self.storages[key]


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a TorchScript archive by name without running code in it.

    Raises:
        ValueError: it is damaged or holds more than modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename: entry.file_size for entry in archive.infolist()}
            tree = next(name for name in members if name.split("/", 1)[-1] == "data.pkl")
            root = tree.removesuffix("data.pkl")
            if members[tree] > MAX_STRUCTURE_BYTES:
                raise ValueError("its list of tensors is too large")
            with archive.open(tree) as file:
                top = _TreeUnpickler(file, lambda key: archive.read(f"{root}data/{key}")).load()
            return dict(_tensors("", top, 0))
    except Exception as error:  # damaged files raise all kinds of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: cannot be read as a TorchScript archive: {reason}") from error


def _tensors(name: str, value: object, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Node):
        if depth > 50:
            raise ValueError("its modules are nested too deeply")
        for key, child in value.attributes.items():
            yield from _tensors(f"{name}.{key}" if name else str(key), child, depth + 1)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def select_clip_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select CLIP's tensors that a SyncDreamer checkpoint holds, as float32."""
    return {
        name: tensor.float()
        for name, tensor in state.items()
        if name.startswith(PREFIX) or name in UNUSED_TEXT
    }
