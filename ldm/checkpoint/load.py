"""Load checkpoints into the model, compare them with it, convert them.

Weights are assigned to a model built on the meta device, so there is never a second copy of all.
With float32 on the CPU they stay mapped from the file.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

import torch
from torch import Tensor

from common.files import atomic_write, check_free_space
from ldm.checkpoint.files import describe_state_dict, detect_format, read_state_dict
from ldm.config import SyncDreamerConfig, model_buffers
from ldm.model import SyncDreamer

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHUNK_BYTES = 256 * 2**20
"""Weights whose type changes are read in chunks of about this size, each through a fresh mapping,
so that pages of the file that were read already do not count as memory of this process."""
USED_BUFFERS = ("alphas_cumprod", "poses", "Ks", "azimuth")
MAX_BUFFER_DEVIATION = 1e-3
"""Relative; a schedule computed in float64 deviates by 1e-4 from the float32 one."""


@dataclass(frozen=True)
class StateDictDiff:
    """Differences between the tensors of a file and those of a model."""

    missing: list[str]  # names that only the model has, without buffers, which can be computed
    unexpected: list[str]  # names that only the file has
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]  # name, the file's, the model's
    not_float: list[str]  # names of tensors that are not floating-point numbers

    @property
    def exact(self) -> bool:
        """Whether all names, shapes and types agree."""
        return not (self.missing or self.unexpected or self.mismatched or self.not_float)

    def __str__(self) -> str:
        labels = ("missing", "unexpected", "not floating-point")
        lists = zip(labels, (self.missing, self.unexpected, self.not_float), strict=True)
        parts = [f"{len(n)} keys {label} (first: {', '.join(n[:3])})" for label, n in lists if n]
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
    """Hash the names, shapes and first 16 values of all tensors: the same in any file format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten()[:16].float().numpy().tobytes())
    return digest.hexdigest()[:16]


def storage_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """Type in which the tensor `name` is kept by a model of type `dtype`, see `SyncDreamer`."""
    half_precision = ("model.", "clip_image_encoder.", "spatial_volume.", "time_embed.", "cc_")
    return dtype if name.startswith(half_precision) else torch.float32


def empty_model(
    config: SyncDreamerConfig, model_class: type[SyncDreamer] = SyncDreamer
) -> SyncDreamer:
    """Build a model on the meta device; raise ValueError where its sizes are inconsistent."""
    try:
        with torch.device("meta"):
            return model_class(config)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise ValueError(f"a model of the configured sizes cannot be built: {error}") from error


def load_model(
    config: SyncDreamerConfig,
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    model_class: type[SyncDreamer] = SyncDreamer,
) -> SyncDreamer:
    """Build a model with the weights of a checkpoint, for inference.

    Peak memory is the model plus `CHUNK_BYTES`; for torch's format before 1.6, which cannot be
    mapped, it is the model plus the whole file. `dtype` is that of the weights, except those that
    `storage_dtype` keeps in float32. ValueError if the file does not fit.
    Compat: the schedule and the cameras in the checkpoint take precedence over computed ones.
    """
    state = read_state_dict(path)
    model = empty_model(config, model_class)
    found = compare_state_dict(state, model)
    if not found.exact:
        raise ValueError(
            f"{path} does not fit the model: {found}. The file looks like "
            f"{describe_state_dict(state)}; expected is a SyncDreamer checkpoint of these sizes"
        )
    buffers = model_buffers(config)
    _check_buffers(path, state, buffers)
    computed = {k: v.to(device) for k, v in buffers.items() if k not in state}
    model.load_state_dict(computed, strict=False, assign=True)

    types = {name: storage_dtype(name, dtype) for name in state}
    in_memory = detect_format(path) == "pickle"
    stay = {n for n, t in state.items() if device.type == "cpu" and t.dtype == types[n]}
    copied = {} if in_memory else {n: t for n, t in state.items() if n not in stay}
    placed = {n: t.to(device, types[n]) for n, t in state.items() if n not in copied}
    model.load_state_dict(placed, strict=False, assign=True)
    ends = accumulate(tensor.nbytes for tensor in copied.values())
    parts = groupby(zip(copied, ends, strict=True), key=lambda pair: pair[1] // CHUNK_BYTES)
    chunks = [[name for name, _ in part] for _, part in parts]
    del state, copied, placed
    for names in chunks:
        mapped = read_state_dict(path)
        placed = {name: mapped[name].to(device, types[name]) for name in names}
        model.load_state_dict(placed, strict=False, assign=True)
        del mapped, placed
    if model.is_bf16_on_cpu:
        for module in model.unet.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)


def _check_buffers(path: Path, state: Mapping[str, Tensor], computed: Mapping[str, Tensor]) -> None:
    """Refuse another image size and non-finite buffers; warn of those that deviate."""
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
            difference = state[name].float() - computed[name]
            deviation = float((difference / computed[name].abs().clamp_min(0.01)).abs().max())
            if not deviation <= MAX_BUFFER_DEVIATION:
                message = "%s: its '%s' deviates by %.2g %% from the configuration, used as it is"
                log.warning(message, path, name, 100 * deviation)
        else:
            log.info("%s has no '%s': computed from the configuration", path, name)


def convert(source: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write the tensors of a checkpoint as a new safetensors file with the same names.

    `dtype` is for the weights of SyncDreamer checkpoints only. Tensors that a model of this type
    keeps in float32 are not cast, so the result equals casting on loading. It replaces no file.
    """
    from safetensors.torch import save_file

    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must end in .safetensors")
    if target.exists():
        raise FileExistsError(f"{target}: exists already; remove it or choose another name")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: the folder {target.parent} does not exist")
    state = read_state_dict(source)
    converted = dict(state)
    if dtype is not None:
        kind = describe_state_dict(state)
        if kind != "a SyncDreamer checkpoint":
            raise ValueError(f"{source}: cannot change the type of tensors, this is {kind}")
        for name, tensor in state.items():
            if storage_dtype(name, dtype) == dtype and tensor.is_floating_point():
                converted[name] = tensor.to(dtype)
    check_free_space(target.parent, sum(tensor.nbytes for tensor in converted.values()))
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in converted.values())
    for name, tensor in converted.items():
        alone = shared[tensor.untyped_storage().data_ptr()] == 1
        converted[name] = tensor.contiguous() if alone else tensor.contiguous().clone()
    with atomic_write(target) as path:
        save_file(converted, path, metadata={"format": "pt"})


def inspect(
    path: Path, config: SyncDreamerConfig, model_class: type[SyncDreamer] = SyncDreamer
) -> str:
    """Describe a checkpoint and its differences from a model of this configuration."""
    state = read_state_dict(path)
    types = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    lines = [
        f"{path}: {describe_state_dict(state)}",
        f"{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values, "
        f"{sum(t.nbytes for t in state.values()) / 2**30:.2f} GiB, "
        + ", ".join(f"{count} {name}" for name, count in types.most_common()),
        f"fingerprint {fingerprint(state)}",
    ]
    found = compare_state_dict(state, empty_model(config, model_class))
    lines.append(f"against the configuration: {found}")
    for label, names in (("missing", found.missing), ("unexpected", found.unexpected)):
        lines += [f"  {label}: {ascii(name)[1:-1]}" for name in names[:20]]
        lines += [f"  {label}: ... and {len(names) - 20} more"] if len(names) > 20 else []
    return "\n".join(lines)


def manifest(
    config: SyncDreamerConfig, model_class: type[SyncDreamer] = SyncDreamer
) -> Iterator[str]:
    """Yield "name shape dtype" of every tensor of a checkpoint of this configuration."""
    for name, tensor in empty_model(config, model_class).state_dict().items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield f"{name}\t{'x'.join(map(str, tensor.shape)) or 'scalar'}\t{dtype}"
