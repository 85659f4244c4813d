"""Checkpoint files: loading them without running their code, saying what they are, converting.

    python -m ldm.checkpoint manifest --cfg configs/syncdreamer.yaml
    python -m ldm.checkpoint inspect ckpt/syncdreamer-pretrain.ckpt
    python -m ldm.checkpoint convert ckpt/syncdreamer-pretrain.ckpt ckpt/syncdreamer.safetensors

Files are memory-mapped and put into a model built on the meta device: there is no random
initialisation and no second copy of the weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import pickle
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.config import GenerateConfig
from ldm.model import SyncDreamer, SyncDreamerConfig, model_buffers
from multiview.runtime import atomic_write, check_free_space, load_config, run_script

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PART_BYTES = 256 * 2**20
"""Weights that are converted are read in parts of this size, each through a fresh mapping, so
that the pages of the file that were already read do not count as memory of this process."""
USED_BUFFERS = ("alphas_cumprod", "poses", "Ks", "azimuth")
MAX_BUFFER_DEVIATION = 1e-3


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file compare with those of a model.

    Attributes:
        missing: names that the model has and the file lacks (buffers can be computed, and do
            not count).
        unexpected: names that only the file has.
        mismatched: (name, shape in the file, shape in the model).
    """

    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    @property
    def exact(self) -> bool:
        """Whether the file fits."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = []
        for label, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                parts.append(f"{len(names)} keys {label} (first: {', '.join(names[:3])})")
        if self.mismatched:
            name, found, expected = self.mismatched[0]
            parts.append(
                f"{len(self.mismatched)} shapes differ (first: {name} is {found} in the file, "
                f"{expected} in the model)"
            )
        return "; ".join(parts) or "every name and shape fits"


def describe_names(names: Mapping[str, Any]) -> str:
    """Say in words what a state dict with these names looks like."""

    def has(*prefixes: str) -> bool:
        return all(any(name.startswith(prefix) for name in names) for prefix in prefixes)

    if has("spatial_volume.", "model.diffusion_model."):
        return "a SyncDreamer checkpoint"
    if has("cc_projection.", "cond_stage_model."):
        return "a Zero123 checkpoint (a starting point for training, not for sampling)"
    if has("cond_stage_model.", "model.diffusion_model."):
        return "a Stable Diffusion checkpoint"
    if has("visual."):
        return "a CLIP file (not needed for sampling: a SyncDreamer checkpoint holds CLIP)"
    if has("encoder.", "decoder.", "quant_conv."):
        return "an autoencoder"
    if has("renderer."):
        return "a checkpoint of a renderer (NeuS or NeRF)"
    return "no kind of checkpoint known here"


def _check_container(path: Path) -> str:
    """Return "safetensors", "zip" or "pickle", or say what the file is instead.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, or not all of it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint; ckpt/README.md says where to get it")
    if not path.is_file():
        raise ValueError(f"{path}: is a folder, expected a checkpoint file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path}: the file is empty; download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: is a git-lfs pointer of {size} bytes, not the weights; "
            f"fetch them with 'git lfs pull'"
        )
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise ValueError(f"{path}: is a web page, not the weights; download the file itself")
    if head.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise ValueError(
                f"{path}: looks like a half download: {size} bytes, and the end of the archive is "
                f"missing; download it again"
            )
        return "zip"
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        _check_safetensors(path, head, size)
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    raise ValueError(
        f"{path}: is no checkpoint (.ckpt or .safetensors); it starts with {head[:8]!r}"
    )


def _check_safetensors(path: Path, head: bytes, size: int) -> None:
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if not 2 <= length <= 100_000_000:
        raise ValueError(f"{path}: is no safetensors file: its header's length makes no sense")
    end = None
    if 8 + length <= size:
        with path.open("rb") as file:
            file.seek(8)
            try:
                header = json.loads(file.read(length))
                entries = [v for k, v in header.items() if k != "__metadata__"]
                end = 8 + length + max((entry["data_offsets"][1] for entry in entries), default=0)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(f"{path}: the safetensors header is damaged") from error
    if end is None or size < end:
        raise ValueError(
            f"{path}: looks like a half download: {size} bytes, "
            f"{end or 'more'} expected; download it again"
        )


def read_state(path: Path, placeholders: bool = False) -> dict[str, Tensor]:
    """Map the tensors of a checkpoint file into memory; nothing in the file is run.

    Args:
        path: a Lightning or plain torch checkpoint, or a safetensors file.
        placeholders: let objects of unknown classes, which old Lightning files hold beside the
            weights, become inert placeholders instead of refusing the file.

    Returns:
        tensors by name, on the CPU, read from the file when they are used.

    Raises:
        FileNotFoundError, ValueError: naming the file, what it is and what to do.
    """
    container = _check_container(path)
    if container == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: damaged safetensors file ({error})") from error
    if container == "zip":
        with zipfile.ZipFile(path) as archive:
            names = [name.split("/", 1)[-1] for name in archive.namelist()]
        if "constants.pkl" in names:
            raise ValueError(
                f"{path}: is a TorchScript archive, as OpenAI's CLIP file (ViT-L-14.pt) is; a "
                f"SyncDreamer checkpoint is expected (it holds CLIP's weights itself)"
            )
        if "data.pkl" not in names:
            raise ValueError(f"{path}: is a zip archive without torch weights in it")
    content = _load_pickled(path, mapped=container == "zip", placeholders=placeholders)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    tensors = {k: v for k, v in (state or {}).items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors by name, expected a 'state_dict'")
    return tensors


def _load_pickled(path: Path, mapped: bool, placeholders: bool) -> Any:
    def load() -> Any:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)

    try:
        if not placeholders:
            return load()
        with torch.serialization.safe_globals(_placeholders(path) if mapped else []):
            return load()
    except pickle.UnpicklingError as error:
        if placeholders or not mapped:
            raise ValueError(
                f"{path}: refused, its tensors cannot be read without running code that is in it"
            ) from error
        raise ValueError(
            f"{path}: refused, because loading it in full would run code that the file names "
            f"({', '.join(_foreign_globals(path))}); take its tensors out without running it: "
            f"python -m ldm.checkpoint convert {path} {path.with_suffix('.safetensors')}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged or half downloaded ({' '.join(str(error).split())[:200]})"
        ) from error


def _foreign_globals(path: Path) -> list[str]:
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))


def _placeholders(path: Path) -> list[Any]:
    """Make an empty class for every class that the file names and torch does not know.

    The weights-only unpickler calls these instead of what the file asks for, so the file's own
    code is never imported, let alone run.
    """

    def make(full_name: str) -> tuple[type, str]:
        def ignore(self: object, *args: object, **kwargs: object) -> None:
            """Accept and forget whatever the file says."""

        return type("Placeholder", (), {"__init__": ignore, "__setstate__": ignore}), full_name

    return [make(name) for name in _foreign_globals(path)]


def fit(shapes: Mapping[str, tuple[int, ...]], model: SyncDreamer) -> Fit:
    """Compare the names and shapes of a file with those of a model."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    buffers = {name for name, _ in model.named_buffers()}
    return Fit(
        missing=[name for name in expected if name not in shapes and name not in buffers],
        unexpected=[name for name in shapes if name not in expected],
        mismatched=[
            (name, tuple(shapes[name]), shape)
            for name, shape in expected.items()
            if name in shapes and tuple(shapes[name]) != shape
        ],
    )


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Identify weights whatever file they are in, from names, shapes and each one's first values.

    Reads one page a tensor, so it takes no time on a file of any size.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten()[:16].float().numpy().tobytes())
    return digest.hexdigest()[:16]


def empty_model(config: SyncDreamerConfig) -> SyncDreamer:
    """Build the model on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return SyncDreamer(config)


def load_model(
    config: SyncDreamerConfig, path: Path, device: torch.device, dtype: torch.dtype
) -> SyncDreamer:
    """Build a model with the weights of a file, ready for inference.

    Peak memory is the weights in use and `PART_BYTES`: with float32 on the CPU the weights stay
    mapped from the file.

    Compat: the schedule and the cameras in the checkpoint win over computed ones, which are
    used only where the file has none.

    Args:
        config: sizes of the model.
        path: see `read_state`.
        device: where the weights go.
        dtype: their type, but see `SyncDreamer.storage_dtype`.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read or does not fit.
    """
    state = read_state(path)
    model = empty_model(config)
    found = fit({name: tuple(tensor.shape) for name, tensor in state.items()}, model)
    if not found.exact:
        raise ValueError(
            f"{path} does not fit the model: {found}. The file looks like "
            f"{describe_names(state)}; expected is a SyncDreamer checkpoint of the sizes in --cfg"
        )
    buffers = model_buffers(config)
    _report_deviations(path, state, buffers)
    computed = {k: v.to(device) for k, v in buffers.items() if k not in state}
    model.load_state_dict(computed, strict=False, assign=True)

    parts = list(_parts(state))
    del state
    for names in parts:
        mapped = read_state(path)
        placed = {
            name: mapped[name].to(device, SyncDreamer.storage_dtype(name, dtype)) for name in names
        }
        model.load_state_dict(placed, strict=False, assign=True)
        del mapped, placed
    left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    assert not left, f"not loaded: {left[:3]}"  # `fit` has made sure of it
    return model.eval().requires_grad_(False)


def _parts(state: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Split the names into runs of at most `PART_BYTES` bytes (or one tensor)."""
    names: list[str] = []
    size = 0
    for name, tensor in state.items():
        if names and size + tensor.nbytes > PART_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    yield names


def _report_deviations(
    path: Path, state: Mapping[str, Tensor], computed: Mapping[str, Tensor]
) -> None:
    for name in USED_BUFFERS:
        if name in state:
            deviation = float((state[name].float() - computed[name]).abs().max())
            if not deviation <= MAX_BUFFER_DEVIATION:
                log.warning(
                    "%s: its '%s' is up to %.3g away from the configuration; the file's is used",
                    path,
                    name,
                    deviation,
                )
        else:
            log.info("%s has no '%s': computed from the configuration", path, name)


def convert(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write the tensors of a checkpoint as a safetensors file with the same names.

    Args:
        source: see `read_state`; objects beside the tensors are left behind unread.
        target: ends in .safetensors; must not be there yet.
        dtype: type of the weights; None keeps each tensor's own. Tensors that a model of this
            type keeps in float32 stay as they are, so nothing changes when the file is used.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: nothing is written.
    """
    from safetensors.torch import save_file

    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must end in .safetensors")
    if target.exists():
        raise FileExistsError(f"{target}: is there already; remove it or choose another name")
    state = read_state(source, placeholders=True)
    converted = {}
    for name, tensor in state.items():
        wanted = tensor.dtype if dtype is None else SyncDreamer.storage_dtype(name, dtype)
        converted[name] = tensor.to(wanted if tensor.is_floating_point() else tensor.dtype)
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in converted.values())
    for name, tensor in converted.items():
        alone = shared[tensor.untyped_storage().data_ptr()] == 1
        converted[name] = tensor.contiguous() if alone else tensor.contiguous().clone()
    check_free_space(target.parent, sum(tensor.nbytes for tensor in converted.values()))
    with atomic_write(target) as path:
        save_file(converted, path, metadata={"format": "pt"})


def inspect(path: Path, config: SyncDreamerConfig) -> str:
    """Say what a file is and how it compares with a model of this configuration."""
    state = read_state(path, placeholders=True)
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    lines = [
        f"{path}: {describe_names(state)}",
        f"{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values, "
        f"{sum(t.nbytes for t in state.values()) / 2**30:.2f} GiB, "
        + ", ".join(f"{count} {name}" for name, count in types.most_common()),
        f"fingerprint {fingerprint(state)}",
    ]
    found = fit({name: tuple(t.shape) for name, t in state.items()}, empty_model(config))
    lines.append(f"against the configuration: {found}")
    for label, names in (("missing", found.missing), ("unexpected", found.unexpected)):
        lines += [f"  {label}: {name}" for name in names[:20]]
        lines += [f"  {label}: ... and {len(names) - 20} more"] if len(names) > 20 else []
    return "\n".join(lines)


def manifest(config: SyncDreamerConfig) -> Iterator[str]:
    """Yield "name shape dtype" of every tensor of a checkpoint of this configuration."""
    for name, tensor in empty_model(config).state_dict().items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield f"{name}\t{'x'.join(map(str, tensor.shape)) or 'scalar'}\t{dtype}"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of `python -m ldm.checkpoint`."""
    parser = argparse.ArgumentParser(prog="python -m ldm.checkpoint", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    default_cfg = Path("configs/syncdreamer.yaml")

    listing = commands.add_parser("manifest", help="print every name, shape and type, one a line")
    listing.add_argument("--cfg", type=Path, default=default_cfg, help="sizes of the model")
    look = commands.add_parser("inspect", help="say what a file is and what it lacks")
    look.add_argument("file", type=Path)
    look.add_argument("--cfg", type=Path, default=default_cfg, help="sizes to compare with")
    change = commands.add_parser("convert", help="write a safetensors file of the same tensors")
    change.add_argument("source", type=Path)
    change.add_argument("target", type=Path)
    change.add_argument("--dtype", choices=DTYPES, help="type of the weights (default: as it is)")
    for command in (listing, look, change):
        command.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one of the commands."""
    args = build_parser().parse_args(argv)
    if args.command == "manifest":
        config = load_config(GenerateConfig, args.cfg).model
        sys.stdout.write("".join(f"{line}\n" for line in manifest(config)))
    elif args.command == "inspect":
        config = load_config(GenerateConfig, args.cfg).model
        sys.stdout.write(inspect(args.file, config) + "\n")
    else:
        convert(args.source, args.target, DTYPES.get(args.dtype))
        log.info("wrote %s", args.target)


if __name__ == "__main__":
    run_script(main)
