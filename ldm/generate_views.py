"""From image files to files of views: the work of `generate.py`."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from common.devices import peak_memory
from ldm.checkpoint.files import read_state
from ldm.checkpoint.load import DTYPES, fingerprint, load_model
from ldm.config import SyncDreamerConfig
from ldm.model import ImageFeatures, SyncDreamer
from ldm.sampler import SamplerConfig
from multiview.images import (
    CropSize,
    prepare_image,
    resolve_crop_size,
    to_uint8,
    views_to_strip,
)
from pipeline.sample_store import (
    Sample,
    Source,
    collect_inputs,
    plan_samples,
    prepare_output,
    refuse_conflicts,
    refuse_to_replace,
    write_extras,
    write_sample,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateOptions:
    """What `generate.py` was asked for.

    Attributes:
        checkpoint: the weights.
        output: folder of the results.
        crop_size: see `multiview.images.resolve_crop_size`.
        sample_num: samples of each input.
        seed: of sample 0; sample k has seed + k.
        sampler: settings of the reverse process.
        batch_view_num: views denoised at once.
        dtype: "fp32", "tf32" (on CUDA only), "bf16" or "fp16".
        device: where to compute.
        overwrite: make all samples anew and replace what is there.
        save_views: write each view as a file too.
        preview: write an animation too.
    """

    checkpoint: Path
    output: Path
    crop_size: CropSize
    sample_num: int
    seed: int
    sampler: SamplerConfig
    batch_view_num: int
    dtype: str
    device: torch.device
    overwrite: bool
    save_views: bool
    preview: bool


@dataclass(frozen=True)
class DrawingStep:
    """A denoising step that is done.

    Attributes:
        number: of the step, from 1.
        of: how many there are.
        look: decode what is seen so far, the prediction of the clean views: uint8 strip,
            (H, N H, 3). It takes a fraction of a second to seconds, so call it where it is needed.
    """

    number: int
    of: int
    look: Callable[[], np.ndarray]


Watch = Callable[[DrawingStep], None]
"""Told of every step, in the thread that draws; what it raises ends the drawing."""


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raise ValueError where a device does not know a precision."""
    if dtype == "tf32" and device.type != "cuda":
        raise ValueError(f"--dtype tf32 is for CUDA devices, this is {device}")


def sampling_settings(
    config: SyncDreamerConfig, checkpoint: Path, sampler: SamplerConfig, dtype: str
) -> dict[str, Any]:
    """All that pixels depend on, beside the input, its elevation and the seed.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is not there, or not to be read.
    """
    return {
        **asdict(sampler),
        "dtype": dtype,
        "weights": fingerprint(read_state(checkpoint)),
        "config": hashlib.sha256(repr(config).encode()).hexdigest()[:16],
    }


def open_model(
    config: SyncDreamerConfig, checkpoint: Path, device: torch.device, dtype: str
) -> SyncDreamer:
    """Load a model to sample from; says what it is and how long that took."""
    tf32 = dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    start = time.perf_counter()
    model = load_model(config, checkpoint, device, torch.float32 if tf32 else DTYPES[dtype])
    log.info(
        "loaded %s: %.0f M parameters, %s, on %s, %.1f s",
        checkpoint,
        sum(weight.numel() for weight in model.parameters()) / 1e6,
        dtype,
        device,
        time.perf_counter() - start,
    )
    return model


@torch.inference_mode()
def generate_strip(
    model: SyncDreamer,
    features: ImageFeatures,
    elevation_deg: float,
    seed: int,
    sampler: SamplerConfig,
    batch_view_num: int,
    watch: Watch | None = None,
) -> np.ndarray:
    """Draw one sample of the views of an object.

    The noise is drawn on the CPU from the sample's own generator, so a sample is the same
    whatever other samples are made with it, and devices differ only by rounding.

    Args:
        model: in evaluation mode.
        features: of one input image.
        elevation_deg: of the input view, degrees.
        seed: of this sample's noise.
        sampler: settings of the reverse process.
        batch_view_num: views denoised at once.
        watch: told of every step; does not change the result.

    Returns:
        uint8 strip, (H, N H, 3).

    Raises:
        ValueError: the images are not finite.
    """
    device = model.azimuth.device
    generator = torch.Generator().manual_seed(seed)

    def draw_noise(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    def told(number: int, predicted: torch.Tensor) -> None:
        assert watch is not None
        watch(DrawingStep(number, sampler.steps, lambda: _strip(decode(predicted))))

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return model.decode(latents, batch_view_num)

    latents = model.sample(
        features,
        math.radians(elevation_deg),
        sampler,
        draw_noise,
        batch_view_num,
        progress=lambda steps: tqdm(steps, "denoising", disable=None, leave=False),
        watch=None if watch is None else told,
    )
    images = decode(latents)
    if not images.isfinite().all():
        half = model.unet.dtype == torch.float16
        cause = "fp16 overflowed; use --dtype bf16 or fp32" if half else "the weights are damaged"
        raise ValueError(f"the images came out as numbers that are not finite: {cause}")
    return _strip(images)


def _strip(images: torch.Tensor) -> np.ndarray:
    """Views (N, 3, H, W) in [-1, 1] -> uint8 strip, (H, N W, 3); what is not finite is black."""
    images = torch.nan_to_num(images, nan=-1.0)
    return views_to_strip(to_uint8(rearrange(images, "n c h w -> n h w c").cpu().numpy()))


def generate(
    config: SyncDreamerConfig,
    paths: Sequence[Path],
    elevations_deg: Sequence[float],
    options: GenerateOptions,
    model: SyncDreamer | None = None,
    skip: Callable[[Sample], bool] = lambda _: False,
) -> list[Path]:
    """Make the samples of all inputs with one model; keep those that are there already.

    What can be wrong with the inputs, the settings and the output is found before the weights
    are loaded, unless the model is given, and before any file is written.

    Args:
        config: sizes of the model.
        paths: image files and folders of them.
        elevations_deg: of their cameras, one for all images or one for each.
        options: see there.
        model: to draw with; loaded if it is needed and not given.
        skip: whether a sample is not to be made, though it is not there.

    Returns:
        the strips that there are, in order.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError, MemoryError: one line that says
            what to do.
    """
    check_dtype(options.dtype, options.device)
    size = config.cameras.image_size
    sources = collect_inputs(paths, elevations_deg, options.output)
    crops = {source: resolve_crop_size(source.path, options.crop_size) for source in sources}
    pixels = {source: prepare_image(source.path, crops[source], size) for source in sources}
    settings = sampling_settings(config, options.checkpoint, options.sampler, options.dtype)
    samples = [
        sample
        for source, crop_size in crops.items()
        for sample in plan_samples(
            [source], {"crop_size": crop_size, **settings}, options.sample_num, options.seed
        )
    ]
    refuse_conflicts(samples)
    samples = [sample for sample in samples if sample.path.exists() or not skip(sample)]
    if not options.overwrite:
        for sample in samples:
            refuse_to_replace(sample)
    kept = [] if options.overwrite else [sample for sample in samples if sample.is_done()]
    todo = [sample for sample in samples if sample not in kept]
    copies = 1 + options.save_views + options.preview
    strip_bytes = config.cameras.num_views * size * size * 3
    prepare_output(todo, strip_bytes * copies, options.save_views)

    for sample in kept:
        log.info("kept %s: made from the same input with the same settings", sample.path)
        write_extras(sample, options.save_views, options.preview)
    try:
        if todo:
            _generate(config, todo, pixels, options, model)
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            "not enough GPU memory; use a smaller --batch_view_num, or --dtype bf16"
        ) from error
    return [sample.path for sample in samples]


def _generate(
    config: SyncDreamerConfig,
    samples: Sequence[Sample],
    pixels: dict[Source, np.ndarray],
    options: GenerateOptions,
    model: SyncDreamer | None,
) -> None:
    if model is None:
        model = open_model(config, options.checkpoint, options.device, options.dtype)
    start = time.perf_counter()
    source, features = None, None
    for sample in tqdm(samples, "samples", disable=None if len(samples) > 1 else True):
        if sample.source is not source:
            source = sample.source
            image = torch.from_numpy(rearrange(pixels[source], "h w c -> 1 c h w"))
            with torch.inference_mode():
                features = model.encode_image(image.to(options.device))
        assert features is not None
        elevation, seed = sample.source.elevation_deg, sample.seed
        strip = generate_strip(
            model, features, elevation, seed, options.sampler, options.batch_view_num
        )
        if not options.overwrite:
            refuse_to_replace(sample)  # another process may have written there meanwhile
        write_sample(sample, strip)
        write_extras(sample, options.save_views, options.preview)
        log.info("wrote %s", sample.path)
    seconds = time.perf_counter() - start
    log.info("%d samples in %.1f s, %s", len(samples), seconds, peak_memory(options.device))
