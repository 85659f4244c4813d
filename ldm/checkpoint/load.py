"""Checkpoints: loading them into the model, comparing them with it, converting them.

    python -m ldm.checkpoint manifest --cfg configs/syncdreamer.yaml
    python -m ldm.checkpoint inspect ckpt/syncdreamer-pretrain.ckpt
    python -m ldm.checkpoint convert ckpt/syncdreamer-pretrain.ckpt ckpt/syncdreamer.safetensors

Weights are put into a model that was built on the meta device: there is no random
initialisation and never a second copy of all weights. With float32 on the CPU they are not even
copied once: they stay mapped from the file.

The command line is in this file too, beside what it calls, which makes it longer than most.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.config import load_config
from common.files import atomic_write, check_free_space
from ldm.checkpoint.files import describe_state_dict, detect_format, read_state_dict
from ldm.config import GenerateConfig, SyncDreamerConfig, model_buffers
from ldm.model import SyncDreamer

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHUNK_BYTES = 256 * 2**20
"""Weights that are converted are read in parts of this size, each through a fresh mapping, so
that the pages of the file that were already read do not count as memory of this process."""
USED_BUFFERS = ("alphas_cumprod", "poses", "Ks", "azimuth")
MAX_BUFFER_DEVIATION = 1e-3
"""Relative; a schedule computed in float64 is 1e-4 away from the float32 one."""


@dataclass(frozen=True)
class StateDictDiff:
    """How the tensors of a file compare with those of a model.

    Attributes:
        missing: names that the model has and the file lacks (buffers can be computed, and do
            not count).
        unexpected: names that only the file has.
        mismatched: (name, shape in the file, shape in the model).
        not_float: names of tensors that are not floating-point numbers.
    """

    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    not_float: list[str]

    @property
    def exact(self) -> bool:
        """Whether the file fits."""
        return not (self.missing or self.unexpected or self.mismatched or self.not_float)

    def __str__(self) -> str:
        parts = []
        for label, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("not floating-point", self.not_float),
        ):
            if names:
                parts.append(f"{len(names)} keys {label} (first: {', '.join(names[:3])})")
        if self.mismatched:
            name, found, expected = self.mismatched[0]
            parts.append(
                f"{len(self.mismatched)} shapes differ (first: {name} is {found} in the file, "
                f"{expected} in the model)"
            )
        return "; ".join(parts) or "every name and shape fits"


def compare_state_dict(state: Mapping[str, Tensor], model: SyncDreamer) -> StateDictDiff:
    """Compare the names, shapes and types of a file's tensors with those of a model."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    buffers = {name for name, _ in model.named_buffers()}
    return StateDictDiff(
        missing=[name for name in expected if name not in state and name not in buffers],
        unexpected=[name for name in state if name not in expected],
        mismatched=[
            (name, tuple(state[name].shape), shape)
            for name, shape in expected.items()
            if name in state and tuple(state[name].shape) != shape
        ],
        not_float=[name for name, tensor in state.items() if not tensor.is_floating_point()],
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
    """Build the model on the meta device: names and shapes, no memory.

    Raises:
        ValueError: the sizes do not go together.
    """
    try:
        with torch.device("meta"):
            return SyncDreamer(config)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise ValueError(f"a model of the configured sizes cannot be built: {error}") from error


def load_model(
    config: SyncDreamerConfig, path: Path, device: torch.device, dtype: torch.dtype
) -> SyncDreamer:
    """Build a model with the weights of a file, ready for inference.

    Peak memory is the weights in use and `CHUNK_BYTES` (a file of torch's old format, before
    1.6, cannot be mapped: there it is the weights in use and the whole file).

    Compat: the schedule and the cameras in the checkpoint win over computed ones, which are
    used only where the file has none.

    Args:
        config: sizes of the model.
        path: see `read_state_dict`.
        device: where the weights go.
        dtype: their type, but see `SyncDreamer.storage_dtype`.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read or does not fit.
    """
    state = read_state_dict(path)
    model = empty_model(config)
    found = compare_state_dict(state, model)
    if not found.exact:
        raise ValueError(
            f"{path} does not fit the model: {found}. The file looks like "
            f"{describe_state_dict(state)}; expected is a SyncDreamer checkpoint of the "
            f"configured sizes"
        )
    buffers = model_buffers(config)
    _check_buffers(path, state, buffers)
    computed = {k: v.to(device) for k, v in buffers.items() if k not in state}
    model.load_state_dict(computed, strict=False, assign=True)

    types = {name: SyncDreamer.storage_dtype(name, dtype) for name in state}
    cannot_be_mapped = detect_format(path) == "pickle"
    as_they_are: dict[str, Tensor] = {}
    copied: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stays = cannot_be_mapped or (device.type == "cpu" and tensor.dtype == types[name])
        (as_they_are if stays else copied)[name] = tensor
    placed = {name: tensor.to(device, types[name]) for name, tensor in as_they_are.items()}
    model.load_state_dict(placed, strict=False, assign=True)
    parts = list(_chunks(copied))
    del state, as_they_are, copied, placed
    for names in parts:
        mapped = read_state_dict(path)
        placed = {name: mapped[name].to(device, types[name]) for name in names}
        model.load_state_dict(placed, strict=False, assign=True)
        del mapped, placed
    left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    assert not left, f"not loaded: {left[:3]}"  # `compare_state_dict` has made sure of it
    return model.eval().requires_grad_(False)


def _chunks(state: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Split the names into runs of at most `CHUNK_BYTES` bytes (or one tensor)."""
    names: list[str] = []
    size = 0
    for name, tensor in state.items():
        if names and size + tensor.nbytes > CHUNK_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensor.nbytes
    if names:
        yield names


def _check_buffers(path: Path, state: Mapping[str, Tensor], computed: Mapping[str, Tensor]) -> None:
    if "Ks" in state:
        found, expected = (round(2 * float(ks["Ks"][0, 0, 2])) for ks in (state, computed))
        if found != expected:
            raise ValueError(
                f"{path}: was made for views of {found} x {found} pixels, the configuration has "
                f"{expected} x {expected} (cameras.image_size)"
            )
    for name in USED_BUFFERS:
        if name in state:
            if not state[name].isfinite().all():
                raise ValueError(f"{path}: damaged, its '{name}' holds numbers that are not finite")
            expected_values = computed[name]
            scale = expected_values.abs().clamp_min(0.01)
            deviation = float(((state[name].float() - expected_values) / scale).abs().max())
            if not deviation <= MAX_BUFFER_DEVIATION:
                log.warning(
                    "%s: its '%s' is up to %.2g %% away from the configuration; the file's is used",
                    path,
                    name,
                    100 * deviation,
                )
        else:
            log.info("%s has no '%s': computed from the configuration", path, name)


def convert(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write the tensors of a checkpoint as a safetensors file with the same names.

    Args:
        source: see `read_state_dict`; objects beside the tensors are left behind unread.
        target: ends in .safetensors; must not be there yet.
        dtype: type of the weights, only for SyncDreamer checkpoints; None keeps each tensor's
            own. Tensors that a model of this type keeps in float32 stay as they are, so the
            converted file gives what casting on loading gives.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError: nothing is written.
    """
    from safetensors.torch import save_file

    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must end in .safetensors")
    if target.exists():
        raise FileExistsError(f"{target}: is there already; remove it or choose another name")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent}")
    state = read_state_dict(source, placeholders=True)
    converted = dict(state)
    if dtype is not None:
        kind = describe_state_dict(state)
        if kind != "a SyncDreamer checkpoint":
            raise ValueError(f"{source}: --dtype is for SyncDreamer checkpoints, this is {kind}")
        for name, tensor in state.items():
            if SyncDreamer.storage_dtype(name, dtype) == dtype and tensor.is_floating_point():
                converted[name] = tensor.to(dtype)
    check_free_space(target.parent, sum(tensor.nbytes for tensor in converted.values()))
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in converted.values())
    for name, tensor in converted.items():
        alone = shared[tensor.untyped_storage().data_ptr()] == 1
        converted[name] = tensor.contiguous() if alone else tensor.contiguous().clone()
    with atomic_write(target) as path:
        save_file(converted, path, metadata={"format": "pt"})


def inspect(path: Path, config: SyncDreamerConfig) -> str:
    """Say what a file is and how it compares with a model of this configuration."""
    state = read_state_dict(path, placeholders=True)
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    lines = [
        f"{path}: {describe_state_dict(state)}",
        f"{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values, "
        f"{sum(t.nbytes for t in state.values()) / 2**30:.2f} GiB, "
        + ", ".join(f"{count} {name}" for name, count in types.most_common()),
        f"fingerprint {fingerprint(state)}",
    ]
    found = compare_state_dict(state, empty_model(config))
    lines.append(f"against the configuration: {found}")
    for label, names in (("missing", found.missing), ("unexpected", found.unexpected)):
        lines += [f"  {label}: {ascii(name)[1:-1]}" for name in names[:20]]
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
