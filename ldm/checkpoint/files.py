"""Read the tensors of a checkpoint without running code in it; write torch files atomically."""

from __future__ import annotations

import functools
import logging
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.cli import one_line
from common.files import atomic_write, check_content
from ldm.checkpoint.foreign import BlockedError, read_foreign

log = logging.getLogger(__name__)

FileFormat = Literal["safetensors", "zip", "pickle"]
AGAIN = "; download it again (the published weights: remove it, python -m ldm.download)"
MAX_STRUCTURE_BYTES = 100_000_000
"""Limit for the part of a torch file that lists its tensors; real ones are below 1 MB."""
EMA_KEYS = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "params_ema", "ema")
STATE_KEYS = ("state_dict", "model_state_dict", "model", "module", "params", "net")
"""Entries of checkpoints that hold tensors by name: the moving average of the weights, or these."""
LDM_EMA = "model_ema."
"""Prefix of the moving average of `model.` in files of latent diffusion; its names lack dots."""
EMA_PREFIXES = (LDM_EMA, "ema.", "ema_model.", "ema_model.module.")
"""Prefixes of moving averages beside the weights."""
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
UNKNOWN = "no kind of checkpoint known here"


def describe_state_dict(names: Iterable[str]) -> str:
    """Name the kind of checkpoint that has tensors with these names."""
    names = list(names)
    for prefixes, kind in KINDS:
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            return kind
    return UNKNOWN


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
    check_content(path, "the weights", AGAIN)
    if head.startswith(b"PK"):
        _check_zip(path, size)
        return "zip"
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    if path.suffix == ".safetensors":
        return "safetensors"
    kinds = ".ckpt or .safetensors"
    raise ValueError(f"{path}: is no checkpoint ({kinds}); it starts with {head[:8]!r}")


def _check_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {e.filename.split("/", 1)[-1]: e.file_size for e in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{path}: looks like a half download: {size} bytes, and the end of the archive is "
            f"missing or damaged{AGAIN}"
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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a checkpoint into memory, by name, without running code in it.

    The file is a Lightning or plain torch checkpoint, or safetensors; the tensors' data are read on
    first use. Objects of unknown classes, which old Lightning files hold beside the weights, are
    left out. Errors say what to do.
    """
    file_format = detect_format(path)
    if file_format == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError) as error:
            kind = f"damaged or half downloaded safetensors file ({one_line(error)[:200]})"
            raise ValueError(f"{path}: {kind}{AGAIN}") from error
    else:
        content = load_torch_file(path, file_format == "zip")
    state, taken = choose_weights(content)
    if taken:
        _say_once(f"{path}: {'; '.join(taken)}")
    return _checked(path, state)


def choose_weights(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Find the named tensors in a checkpoint's content: those of a moving average (EMA), if any.

    Without an entry of a usual name, the dictionary that has most of them is taken.
    Prefixes of wrappers are removed where the names then are those of a known kind of checkpoint.
    Returns the tensors and what was done besides taking `state_dict`.
    """
    state: dict[str, Tensor] = {}
    taken: list[str] = []
    if not isinstance(content, Mapping):
        return state, taken
    states, averages = (
        [found for key in keys if (found := _largest(content.get(key), key))[1]][:1]
        for keys in (STATE_KEYS, EMA_KEYS)
    )
    for key, tensors in states + averages or [_largest(content)]:
        named, note = _without_wrappers(tensors)
        state.update(named)
        taken += [f"took '{key}'"] * (key not in ("state_dict", "")) + note
    return _with_ema_beside(state, taken)


def _largest(content: Any, key: str = "", depth: int = 2) -> tuple[str, dict[str, Tensor]]:
    """The tensors by name of a dictionary, or of the one in it that has most of them; its key."""
    items = content.items() if isinstance(content, Mapping) else ()
    named = [(name, entry) for name, entry in items if isinstance(name, str)]
    best = key, {name: entry.detach() for name, entry in named if isinstance(entry, Tensor)}
    for name, entry in named if depth else ():
        found = _largest(entry, f"{key}.{name}".lstrip("."), depth - 1)
        best = found if len(found[1]) > len(best[1]) else best
    return best


def _without_wrappers(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors without prefixes of wrappers; `torch.compile` also puts its own in names' middle."""
    counted = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    names = [name.replace("_orig_mod.", "") for name in counted]
    for prefix in ("module.", "model."):
        if names and all(name.startswith(prefix) for name in names):
            shorter = [name.removeprefix(prefix) for name in names]
            names = shorter if describe_state_dict(shorter) != UNKNOWN else names
    if names == list(counted) or len(set(names)) < len(names):
        return tensors, []
    note = "removed the prefixes 'module.', 'model.' and '_orig_mod.' of wrapped models"
    return dict(zip(names, counted.values(), strict=True)), [note]


def _with_ema_beside(
    state: dict[str, Tensor], taken: list[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Take the moving average that a SyncDreamer checkpoint may have beside the weights.

    Those of Zero123 and Stable Diffusion, which training starts from, are left where they are.
    """
    if not any(name.startswith("spatial_volume.") for name in state):
        return state, taken
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(EMA_PREFIXES)}
    averages = {
        name: state[average]
        for name in kept
        for average in (*(prefix + name for prefix in EMA_PREFIXES), _ldm_average_name(name))
        if average in state
    }
    note = f"took the moving average (EMA) of {len(averages)} tensors"
    return {**kept, **averages}, taken + [note] * bool(averages)


def _ldm_average_name(name: str) -> str:
    return LDM_EMA + name.removeprefix("model.").replace(".", "")


@functools.cache
def _say_once(message: str) -> None:
    """Log what was taken from a file, which is read several times, once."""
    log.info("%s", message)


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write a torch file completely or not at all; an OSError names the file and the free space."""
    with atomic_write(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # torch reports a full disk like this
            free = shutil.disk_usage(path.parent).free / 2**20
            message = (
                f"is the disk full? {free:.0f} MiB are left; torch says: {one_line(error)[:200]}"
            )
            raise OSError(message) from error


def _checked(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the named tensors; refuse sparse, quantized and meta tensors."""
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name, expected a 'state_dict'")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{path}: '{name}' is a sparse, quantized or empty tensor")
    return tensors


def load_torch_file(path: Path, mapped: bool) -> Any:
    """Read the content of a torch file, see `read_state_dict`; `mapped` is for the zip format.

    Inert placeholders stand for objects of unknown classes.
    """
    try:
        if path.suffix == ".safetensors":  # torch goes by the name
            raise pickle.UnpicklingError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats; errors are raised below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        content, foreign = _load_foreign(path, mapped)
    except Exception as error:  # damaged pickles raise all kinds of errors
        raise _damaged(path, error) from error
    if foreign:
        _say_once(f"{path}: objects of other classes are left out ({', '.join(foreign)})")
    return content


def _load_foreign(path: Path, mapped: bool) -> tuple[Any, list[str]]:
    try:
        return read_foreign(path, mapped)
    except BlockedError as error:
        raise ValueError(
            f"{path}: refused, it holds more than tensors and plain values, and these cannot "
            f"be read without running code that the file names ({error})"
        ) from error
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> Exception:
    if "Cannot allocate memory" in str(error):
        return MemoryError(f"{path}: not enough memory to map the file")
    reason = one_line(error)[:200] or type(error).__name__
    return ValueError(f"{path}: damaged or half downloaded ({reason}){AGAIN}")
