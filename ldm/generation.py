"""From image files to files of views: what is written, what is kept, what is an error."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from tqdm import tqdm

from ldm.checkpoint import DTYPES, fingerprint, load_model, read_state
from ldm.model import ImageFeatures, SyncDreamer, SyncDreamerConfig
from ldm.sampler import SamplerConfig
from multiview.images import (
    prepare_image,
    save_animation,
    strip_to_views,
    to_uint8,
    views_to_strip,
)
from multiview.runtime import atomic_write, check_free_space, peak_memory

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True)
class GenerateOptions:
    """What `generate.py` was asked for.

    Attributes:
        checkpoint: the weights.
        output: folder of the results.
        crop_size: see `multiview.images.frame_object`.
        sample_num: samples of each input.
        seed: of sample 0; sample k has seed + k.
        sampler: settings of the reverse process.
        batch_view_num: views denoised at once.
        dtype: "fp32", "tf32", "bf16" or "fp16".
        device: where to compute.
        overwrite: replace results that were made with other settings.
        save_views: write each view as a file too.
        preview: write an animation too.
    """

    checkpoint: Path
    output: Path
    crop_size: int
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
class Input:
    """An input image and where its results go.

    Attributes:
        path: the file.
        elevation_deg: of its camera.
        folder: of its results.
        pixels: the prepared image, (size, size, 3) in [-1, 1].
    """

    path: Path
    elevation_deg: float
    folder: Path
    pixels: np.ndarray


@dataclass(frozen=True)
class Sample:
    """One strip of views that is to be made or kept.

    Attributes:
        source: its input.
        path: of the strip; what is written beside it has the same name.
        seed: of its noise.
        settings: all that its pixels depend on; recorded beside it.
    """

    source: Input
    path: Path
    seed: int
    settings: dict[str, Any]

    @property
    def record(self) -> Path:
        """The file with the settings."""
        return self.path.with_suffix(".json")

    def is_done(self) -> bool:
        """Whether the strip is there, made from the same input with the same settings."""
        return self.path.exists() and self._recorded() == self.settings

    def differences(self) -> str:
        """Say how the settings of the strip that is there differ from what is asked."""
        recorded = self._recorded()
        if recorded is None:
            return "nothing beside it says how it was made"
        names = sorted(set(recorded) | set(self.settings))
        changed = [name for name in names if recorded.get(name) != self.settings.get(name)]
        return ", ".join(
            f"{name} was {recorded.get(name)!r}, now {self.settings.get(name)!r}"
            for name in changed
        )

    def _recorded(self) -> dict[str, Any] | None:
        try:
            recorded = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return None
        return recorded if isinstance(recorded, dict) else None


def collect_inputs(
    paths: Sequence[Path], elevations_deg: Sequence[float], output: Path
) -> list[tuple[Path, float, Path]]:
    """Pair every image with its elevation and its folder of results.

    Args:
        paths: image files and folders of them.
        elevations_deg: one for all images, or one for each.
        output: a single image's results go here, several images' into a folder each.

    Raises:
        FileNotFoundError, ValueError: no images, or names or elevations that do not match.
    """
    images: list[Path] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise ValueError(f"{path}: there are no images in this folder")
            images += found
        else:
            images.append(path)
    if len(elevations_deg) not in (1, len(images)):
        raise ValueError(
            f"--elevation needs one value for all images or one for each: got "
            f"{len(elevations_deg)} values for {len(images)} images"
        )
    if len(elevations_deg) == 1:
        elevations_deg = list(elevations_deg) * len(images)
    if len(images) == 1 and not paths[0].is_dir():
        return [(images[0], elevations_deg[0], output)]
    folders = [output / path.stem for path in images]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise ValueError(f"two inputs are called '{twice.name}': their results would mix")
    return list(zip(images, elevations_deg, folders, strict=True))


def prepare_output(folders: Sequence[Path], needed: int) -> None:
    """Make the folders of results, and make sure that something can be written to them.

    Raises:
        OSError: naming the folder.
    """
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / "probe") as path:
                path.write_bytes(b"")
            (folder / "probe").unlink()
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{folder}: cannot be written to ({reason}); see --output") from error
        check_free_space(folder, needed)


def plan_samples(inputs: Sequence[Input], options: GenerateOptions, model: str) -> list[Sample]:
    """List all samples in order; check that nothing made otherwise would be replaced.

    Args:
        inputs: prepared images.
        options: what was asked for.
        model: identifies the weights and the configuration.

    Raises:
        FileExistsError: a result is there that was made with other settings.
    """
    samples = []
    for source in inputs:
        shared = {
            "input": hashlib.sha256(source.path.read_bytes()).hexdigest(),
            "elevation_deg": source.elevation_deg,
            "crop_size": options.crop_size,
            **asdict(options.sampler),
            "dtype": options.dtype,
            "model": model,
        }
        for k in range(options.sample_num):
            seed = options.seed + k
            path = source.folder / f"{k}.png"
            samples.append(Sample(source, path, seed, {**shared, "seed": seed}))
    for sample in samples:
        if sample.path.exists() and not sample.is_done() and not options.overwrite:
            raise FileExistsError(
                f"{sample.path}: was made with other settings ({sample.differences()}); choose "
                f"another --output, or replace it with --overwrite"
            )
    return samples


def write_sample(sample: Sample, strip: np.ndarray) -> None:
    """Write a strip (H, N H, 3) uint8 and the record of how it was made."""
    with atomic_write(sample.path) as strip_path:
        Image.fromarray(strip).save(strip_path)
        sample.path.unlink(missing_ok=True)  # the record must never describe another strip
        with atomic_write(sample.record) as record_path:
            record_path.write_text(json.dumps(sample.settings, indent=1) + "\n")


def write_extras(sample: Sample, options: GenerateOptions) -> None:
    """Write the single views and the animation of a strip that is there, if asked for."""
    if not (options.save_views or options.preview):
        return
    with Image.open(sample.path) as image:
        views = strip_to_views(np.asarray(image))
    if options.save_views:
        folder = sample.path.with_suffix("")
        folder.mkdir(exist_ok=True)
        for n, view in enumerate(views):
            with atomic_write(folder / f"{n:03d}.png") as path:
                Image.fromarray(view).save(path)
    if options.preview:
        with atomic_write(sample.path.with_suffix(".gif")) as path:
            save_animation(path, list(views))


@torch.inference_mode()
def generate_strip(
    model: SyncDreamer,
    features: ImageFeatures,
    elevation_deg: float,
    seed: int,
    sampler: SamplerConfig,
    batch_view_num: int,
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

    Returns:
        uint8 strip, (H, N H, 3).

    Raises:
        RuntimeError: out of GPU memory, or numbers that overflowed.
    """
    device = model.azimuth.device
    generator = torch.Generator().manual_seed(seed)

    def draw_noise(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    try:
        latents = model.sample(
            features,
            math.radians(elevation_deg),
            sampler,
            draw_noise,
            batch_view_num,
            progress=lambda steps: tqdm(steps, "denoising", disable=None, leave=False),
        )
        if not latents.isfinite().all():
            raise RuntimeError("the latents overflowed in this --dtype; use bf16 or fp32")
        images = model.decode(latents, batch_view_num)
    except torch.cuda.OutOfMemoryError as error:
        raise RuntimeError(
            "not enough GPU memory; use a smaller --batch_view_num, or --dtype bf16"
        ) from error
    return views_to_strip(to_uint8(rearrange(images, "n c h w -> n h w c").cpu().numpy()))


def generate(
    config: SyncDreamerConfig,
    paths: Sequence[Path],
    elevations_deg: Sequence[float],
    options: GenerateOptions,
) -> list[Path]:
    """Make the samples of all inputs with one model; keep those that are there already.

    Everything that can be wrong with the inputs, the checkpoint and the output is found before
    the weights are loaded and before anything is written.

    Returns:
        the strips, in order.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, OSError: one line that says what to do.
    """
    size = config.cameras.image_size
    inputs = [
        Input(path, elevation, folder, prepare_image(path, options.crop_size, size))
        for path, elevation, folder in collect_inputs(paths, elevations_deg, options.output)
    ]
    identity = hashlib.sha256(repr(config).encode()).hexdigest()[:16]
    weights = fingerprint(read_state(options.checkpoint))
    samples = plan_samples(inputs, options, f"{weights}-{identity}")
    todo = [sample for sample in samples if not sample.is_done()]
    strip_bytes = config.cameras.num_views * size * size * 3
    copies = 1 + options.save_views + options.preview
    prepare_output([source.folder for source in inputs], len(todo) * strip_bytes * copies)

    if todo:
        _generate(config, todo, options)
    for sample in samples:
        if sample not in todo:
            log.info("kept %s: made from the same input with the same settings", sample.path)
            write_extras(sample, options)
    return [sample.path for sample in samples]


def _generate(
    config: SyncDreamerConfig, samples: Sequence[Sample], options: GenerateOptions
) -> None:
    tf32 = options.dtype == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    dtype = torch.float32 if tf32 else DTYPES[options.dtype]
    start = time.perf_counter()
    model = load_model(config, options.checkpoint, options.device, dtype)
    count = sum(weight.numel() for weight in model.parameters())
    log.info(
        "loaded %s: %.0f M parameters, %s, on %s, %.1f s",
        options.checkpoint,
        count / 1e6,
        options.dtype,
        options.device,
        time.perf_counter() - start,
    )
    start = time.perf_counter()
    source, features = None, None
    for sample in tqdm(samples, "samples", disable=None if len(samples) > 1 else True):
        if sample.source is not source:
            source = sample.source
            image = torch.from_numpy(rearrange(source.pixels, "h w c -> 1 c h w"))
            with torch.inference_mode():
                features = model.encode_image(image.to(options.device))
        assert features is not None
        strip = generate_strip(
            model,
            features,
            sample.source.elevation_deg,
            sample.seed,
            options.sampler,
            options.batch_view_num,
        )
        write_sample(sample, strip)
        write_extras(sample, options)
        log.info("wrote %s", sample.path)
    log.info("%d samples in %.1f s, %s", len(samples), time.perf_counter() - start, peak_memory())
