"""Make the samples of image files: which are kept, which are generated and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from tqdm import tqdm

from common.devices import peak_memory
from demo.model import choose_model_class
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.generate_views import check_dtype, generate_strip, open_model, sampling_settings
from ldm.model import SyncDreamer
from multiview.images import (
    CropSize,
    prepare_image,
    resolve_crop_size,
)
from pipeline.sample_store import (
    Sample,
    Source,
    check_conflicts,
    check_replaceable,
    collect_inputs,
    plan_samples,
    prepare_output,
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
    check_conflicts(samples)
    samples = [sample for sample in samples if sample.path.exists() or not skip(sample)]
    if not options.overwrite:
        for sample in samples:
            check_replaceable(sample)
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
        model = open_model(
            config, options.checkpoint, options.device, options.dtype, choose_model_class(config)
        )
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
            check_replaceable(sample)  # another process may have written there meanwhile
        write_sample(sample, strip)
        write_extras(sample, options.save_views, options.preview)
        log.info("wrote %s", sample.path)
    seconds = time.perf_counter() - start
    log.info("%d samples in %.1f s, %s", len(samples), seconds, peak_memory(options.device))
