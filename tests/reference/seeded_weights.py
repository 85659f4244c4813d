"""Write a checkpoint of the published layout with random weights, seeded by their names.

The file has every tensor of the published one, of a sane scale, and is the same on every machine.
It generates noise, but loading time, speed, memory and agreement can be tested with it.

    python -m tests.reference.seeded_weights --cfg configs/syncdreamer.yaml --out ckpt/seeded.ckpt
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cli import run_script

if TYPE_CHECKING:
    import torch


def _normal(label: str, shape: Iterable[int]) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(label.encode())))
    return rng.standard_normal(tuple(shape))


def seeded_tensor(name: str, shape: Iterable[int]) -> np.ndarray:
    """Return the weight with this name in a full checkpoint, float32.

    Matrices and kernels are normal with deviation 1/sqrt(fan-in), norms' weights are around 1,
    biases around 0 with deviation 0.05, all else 0.02.
    """
    shape = tuple(shape)
    values = _normal(name, shape)
    if name.endswith("weight") and len(shape) >= 2:
        values /= np.sqrt(np.prod(shape[1:], dtype=np.float64))
    elif name.endswith("weight") and len(shape) == 1:
        values = 1.0 + 0.1 * values
    else:
        values *= 0.05 if name.endswith("bias") else 0.02
    return np.asarray(values, dtype=np.float32)


def seeded_noise(label: str, shape: Iterable[int]) -> np.ndarray:
    """Return a standard normal float32 array, seeded by a label."""
    return _normal("noise:" + label, shape).astype(np.float32)


def seeded_image(label: str, size: int, channels: int = 3) -> np.ndarray:
    """Return an image of 8 x 8 coloured blocks with noise, (channels, size, size) in [-1, 1]."""
    coarse = _normal("image-coarse:" + label, (channels, 8, 8))
    blocks = np.kron(coarse, np.ones((size // 8, size // 8)))
    fine = _normal("image-fine:" + label, (channels, size, size))
    return np.clip(0.5 * blocks + 0.1 * fine, -1.0, 1.0).astype(np.float32)


def seeded_state(module: torch.nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """Return random weights of a module, which has this prefix in a full checkpoint."""
    import torch

    shapes = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
    with ThreadPoolExecutor() as pool:
        arrays = pool.map(lambda item: seeded_tensor(prefix + item[0], item[1]), shapes.items())
        return {name: torch.from_numpy(array) for name, array in zip(shapes, arrays, strict=True)}


def main(argv: list[str] | None = None) -> None:
    """Write the weights in the layout of a Lightning checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", type=Path, default=Path("configs/syncdreamer.yaml"))
    parser.add_argument("--out", type=Path, required=True, help="the .ckpt file to write")
    args = parser.parse_args(argv)

    import torch

    from common.config import load_config
    from common.files import atomic_write, check_free_space
    from demo.model import choose_model_class
    from ldm.checkpoint.load import empty_model
    from ldm.config import GenerateConfig, model_buffers

    if args.out.exists():
        raise FileExistsError(f"{args.out} exists; remove it or choose another name")
    config = load_config(GenerateConfig, args.cfg).model
    model = empty_model(config, choose_model_class(config))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    check_free_space(args.out.parent, sum(tensor.nbytes for tensor in model.state_dict().values()))
    state = {**seeded_state(model), **model_buffers(config)}
    with atomic_write(args.out) as path:
        torch.save({"state_dict": state}, path)


if __name__ == "__main__":
    run_script(main)
