"""Read the tensors of a checkpoint without running code in it; write torch files atomically."""

from __future__ import annotations

import pickle
import shlex
import shutil
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.files import atomic_write

FileFormat = Literal["safetensors", "zip", "pickle"]
AGAIN = "download it again (the published weights: remove it, python -m ldm.download)"
MAX_STRUCTURE_BYTES = 100_000_000
"""Limit for the part of a torch file that lists its tensors; real ones are below 1 MB."""
KINDS = (
    (("spatial_volume.", "model.diffusion_model."), "a SyncDreamer checkpoint"),
    (("module.",), "a checkpoint of a model wrapped for several GPUs (all names begin 'module.')"),
    (
        ("cc_projection.", "cond_stage_model."),
        "a Zero123 checkpoint (a starting point for training, not for sampling)",
    ),
    (("cond_stage_model.", "model.diffusion_model."), "a Stable Diffusion checkpoint"),
    (("visual.",), "a CLIP file (not needed for sampling: a SyncDreamer checkpoint holds CLIP)"),
    (("encoder.", "decoder.", "quant_conv."), "an autoencoder"),
    (("renderer.",), "a checkpoint of a renderer (NeuS or NeRF)"),
)
"""Prefixes of tensor names that a kind of checkpoint has; the first that fits counts."""


def describe_state_dict(names: Iterable[str]) -> str:
    """Name the kind of checkpoint that has tensors with these names."""
    names = list(names)
    for prefixes, kind in KINDS:
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            return kind
    return "no kind of checkpoint known here"


def detect_format(path: Path) -> FileFormat:
    """Return the format: "zip" is torch's, which can be mapped, "pickle" torch's before 1.6.

    ValueError if it is not a checkpoint, or incomplete; it says what the file is instead.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; `python -m ldm.download` fetches weights (ckpt/README.md)"
        )
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"{path}: is {kind}, expected a checkpoint file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path}: the file is empty; {AGAIN}")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: is a git-lfs pointer of {size} bytes, not the weights; "
            f"fetch them with 'git lfs pull'"
        )
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise ValueError(f"{path}: is a web page, not the weights; {AGAIN}")
    if head.startswith(b"PK"):
        _check_zip(path, size)
        return "zip"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    kinds = ".ckpt or .safetensors"
    raise ValueError(f"{path}: is no checkpoint ({kinds}); it starts with {head[:8]!r}")


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {e.filename.split("/", 1)[-1]: e.file_size for e in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path}: looks like a half download: {size} bytes, and the end of the archive is "
            f"missing or damaged; {AGAIN}"
        ) from error
    if "constants.pkl" in sizes:
        raise ValueError(
            f"{path}: is a TorchScript archive, as OpenAI's CLIP file (ViT-L-14.pt) is; a "
            f"SyncDreamer checkpoint is expected (it holds CLIP's weights itself)"
        )
    if "data.pkl" not in sizes:
        raise ValueError(f"{path}: is a zip archive without torch weights in it")
    if sizes["data.pkl"] > MAX_STRUCTURE_BYTES:
        raise ValueError(
            f"{path}: refused, its list of tensors alone would take {sizes['data.pkl']} bytes"
        )


def read_state_dict(path: Path, placeholders: bool = False) -> dict[str, Tensor]:
    """Map the tensors of a checkpoint into memory, by name, without running code in it.

    The file is a Lightning or plain torch checkpoint, or safetensors; the tensors' data are read on
    first use. With `placeholders` objects of unknown classes, which old Lightning files hold beside
    the weights, become inert placeholders, else the file is refused. Errors say what to do.
    """
    file_format = detect_format(path)
    if file_format == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _checked(path, load_file(path))
        except (SafetensorError, OSError) as error:
            kind = f"damaged or half downloaded safetensors file ({_one_line(error)})"
            raise ValueError(f"{path}: {kind}; {AGAIN}") from error
    content = _load_pickled(path, file_format == "zip", placeholders)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    return _checked(path, state if isinstance(state, Mapping) else {})


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write a torch file completely or not at all; an OSError names the file and the free space."""
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch reports a full disk like this
            free = shutil.disk_usage(path.parent).free / 2**20
            message = f"is the disk full? {free:.0f} MiB are left; torch says: {_one_line(error)}"
            raise OSError(message) from error


def _checked(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the named tensors; refuse sparse, quantized and meta tensors."""
    tensors = {
        name: value.detach()
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name, expected a 'state_dict'")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{path}: '{name}' is a sparse, quantized or empty tensor")
    return tensors


def _load_pickled(path: Path, mapped: bool, placeholders: bool) -> Any:
    def load() -> Any:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats; errors are raised below
            return _load_with_placeholders(path, load) if placeholders and mapped else load()
    except pickle.UnpicklingError as error:
        if placeholders or not mapped:
            raise ValueError(
                f"{path}: refused, it holds more than tensors and plain values, and these cannot "
                f"be read without running code that the file names"
            ) from error
        raise ValueError(_refusal(path)) from error
    except Exception as error:  # damaged pickles raise all kinds of errors
        if "Cannot allocate memory" in str(error):
            raise MemoryError(f"{path}: not enough memory to map the file") from error
        reason = _one_line(error) or type(error).__name__
        raise ValueError(f"{path}: damaged or half downloaded ({reason})") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _refusal(path: Path) -> str:
    """Explain why a file with foreign classes is refused, what it seems to be and what to do."""
    looks_like = describe_state_dict(read_state_dict(path, placeholders=True))
    command = ["python", "-m", "ldm.checkpoint", "convert"]
    command += [str(path), str(path.with_suffix(".safetensors"))]
    return (
        f"{path}: refused, because loading it in full would run code that the file names "
        f"({', '.join(_foreign_globals(path))}). It looks like {looks_like}; to take its tensors "
        f"out without running anything: {shlex.join(command)}"
    )


def _foreign_globals(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except pickle.UnpicklingError:  # too damaged to list; loading it fails with a clear error
        return []


def _load_with_placeholders(path: Path, load: Callable[[], Any]) -> Any:
    """Load a file with an empty class in place of every class that torch does not know.

    The weights-only unpickler calls these instead of the classes that the file names. It only fills
    real dictionaries, so a foreign dictionary class needs a placeholder that is a dictionary.
    """

    def ignore(self: object, *args: object, **kwargs: object) -> None:
        """Ignore the object's content."""

    def dictionary(cls: type, *args: object, **kwargs: object) -> OrderedDict[Any, Any]:  # noqa: ARG001
        return OrderedDict()

    def load_with(attributes: dict[str, Any]) -> Any:
        stand_ins = [(type("Placeholder", (), attributes), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            return load()

    names = _foreign_globals(path)
    try:
        return load_with({"__init__": ignore, "__setstate__": ignore})
    except (pickle.UnpicklingError, TypeError):  # the latter from older torch
        return load_with({"__new__": dictionary})
