"""Generation of a strip of views from an input image; writes no files."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from ldm.checkpoint.files import read_state_dict
from ldm.checkpoint.load import DTYPES, fingerprint, load_model
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.model import ImageFeatures, SyncDreamer
from ldm.sampling.sampler import sample_batch
from ldm.schedule import DDIMStep
from multiview.images import to_uint8, views_to_strip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepInfo:
    """A finished denoising step."""

    number: int  # from 1
    total: int
    timestep: int  # that the networks were given, 0 to 999
    preview: Callable[[], np.ndarray]  # decode the current prediction, uint8 strip (H, N H, 3)


StepCallback = Callable[[StepInfo], None]
"""Called after every denoising step, in the sampling thread; its exceptions end the sampling."""


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raise ValueError where a device does not support a precision."""
    if dtype == "tf32" and device.type != "cuda":
        raise ValueError(f"tf32 is for CUDA devices, this is {device}")


def sampling_settings(config: SyncDreamerConfig, checkpoint: Path, dtype: str) -> dict[str, Any]:
    """Settings that the pixels depend on, besides the sampler, the input and the seed."""
    return {
        "dtype": dtype,
        "weights": fingerprint(read_state_dict(checkpoint)),
        "config": hashlib.sha256(repr(config).encode()).hexdigest()[:16],
    }


def open_model(
    config: SyncDreamerConfig,
    checkpoint: Path,
    device: torch.device,
    dtype: str,
    model_class: type[SyncDreamer] = SyncDreamer,
) -> SyncDreamer:
    """Load a model for sampling; log its size and the time it took."""
    tf32 = dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    start = time.perf_counter()
    weights_dtype = torch.float32 if tf32 else DTYPES[dtype]
    model = load_model(config, checkpoint, device, weights_dtype, model_class)
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    seconds = time.perf_counter() - start
    message = "loaded %s: %.0f M parameters, %s, on %s, %.1f s"
    log.info(message, checkpoint, size, dtype, device, seconds)
    return model


def compile_for_sampling(model: SyncDreamer) -> None:
    """Have the networks compiled when they are first run; ValueError where that is impossible."""
    device = model.azimuth.device
    try:
        torch.compile(lambda x: x.exp() + 1, dynamic=False)(torch.zeros(64, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        needed = "Triton" if device.type == "cuda" else "a C++ compiler"
        found = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ValueError(
            f"compiling needs {needed}, which PyTorch cannot use here: {found}; "
            "go on without compiling"
        ) from error
    model.compile_networks(cuda_graphs=device.type == "cuda")


def generate_strip(
    model: SyncDreamer,
    features: ImageFeatures,
    elevation_deg: float,
    seed: int,
    sampler: SamplerConfig,
    views_at_once: int,
    on_step: StepCallback | None = None,
) -> np.ndarray:
    """Generate one sample, see `generate_strips`; `on_step` does not change the result."""
    (strip,) = generate_strips(
        model, features, elevation_deg, [seed], sampler, views_at_once, on_step
    )
    return strip


@torch.inference_mode()
def generate_strips(
    model: SyncDreamer,
    features: ImageFeatures,
    elevation_deg: float,
    seeds: Sequence[int],
    sampler: SamplerConfig,
    views_at_once: int,
    on_step: StepCallback | None = None,
) -> list[np.ndarray]:
    """Generate a sample for each seed together: strips of the views, uint8, (H, N H, 3).

    The noise is sampled on the CPU, from a generator of each sample: it does not depend on the
    others, and devices and batches differ by rounding only. The features are of one image.
    Previews for `on_step` show the first sample. ValueError if the images are not finite.
    """
    device = model.azimuth.device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def sample_noise(shape: tuple[int, ...]) -> torch.Tensor:
        own = (1, *shape[1:])
        return torch.cat([torch.randn(own, generator=each) for each in generators]).to(device)

    def after_step(number: int, predicted: torch.Tensor) -> None:
        assert on_step is not None

        def preview() -> np.ndarray:
            return _strip(model.decode(predicted[0], views_at_once))

        on_step(StepInfo(number, sampler.steps, timesteps[number - 1], preview))

    timesteps: list[int] = []

    def progress_bar(steps: list[DDIMStep]) -> Iterable[DDIMStep]:
        timesteps.extend(step.timestep for step in steps)
        return tqdm(steps, "denoising", disable=None, leave=False)

    latents = sample_batch(
        model,
        features,
        math.radians(elevation_deg),
        sampler,
        len(seeds),
        sample_noise,
        views_at_once,
        progress_bar=progress_bar,
        on_step=None if on_step is None else after_step,
    )
    strips = []
    for each in latents:
        images = model.decode(each, views_at_once)
        if not images.isfinite().all():
            half = model.unet.dtype == torch.float16
            cause = "fp16 overflowed, unlike bf16 and fp32" if half else "the weights are damaged"
            raise ValueError(f"the generated images are not finite: {cause}")
        strips.append(_strip(images))
    return strips


def _strip(images: torch.Tensor) -> np.ndarray:
    """Views (N, 3, H, W) in [-1, 1] -> uint8 strip, (H, N W, 3); what is not finite is black."""
    images = torch.nan_to_num(images, nan=-1.0)
    return views_to_strip(to_uint8(rearrange(images, "n c h w -> n h w c").cpu().numpy()))
