"""Python API: an image in, its views and their cameras out, and a mesh from those.

    from syncdreamer import SyncDreamerPipeline

    pipeline = SyncDreamerPipeline.load()
    views = pipeline.generate("testset/locomotive.png", elevation=20)

The same image, seed and settings give the pixels that `generate.py` writes.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from common.cli import SEED, project_file, weights_folder
from common.config import load_config
from common.devices import pick_device
from common.files import atomic_write
from ldm.checkpoint.load import DTYPES
from ldm.config import GenerateConfig, SamplerConfig
from ldm.download.catalogue import SYNCDREAMER
from ldm.download.fetch import fetch
from ldm.generate_views import StepCallback, StepInfo
from ldm.sampling.config import GuidanceKind, Solver, change_sampler
from multiview.cameras import Cameras, orbit_cameras
from multiview.images import CropSize, strip_to_views, views_to_strip
from multiview.mask_check import check_mask
from multiview.matting import has_mask, remove_background
from multiview.segmentation import Backend, Segmenter, open_segmenter
from multiview.transforms_json import TRANSFORMS
from multiview.views import write_views
from pipeline.cli_args import LIMITS, PUBLISHED_CKPTS, choose_model
from pipeline.inputs import (
    ImageLike,
    InputImage,
    PreparedInput,
    as_image,
    prepare_input,
    with_mask,
)
from pipeline.selection.elevation_drafts import draft_sampler, find_elevation
from pipeline.view_generator import SyncDreamerGenerator
from renderer.config import Preset, load_renderer_config
from renderer.reconstruction import ProgressCallback, ReconstructionOptions, reconstruct

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MultiviewImages:
    """Generated views of one image, with their cameras.

    `images` are the N views on white, uint8 RGB, (N, H, W, 3), the first at the image's azimuth;
    `cameras` have intrinsics (N, 3, 3) in pixels, world_to_camera (N, 3, 4) with OpenCV's axes,
    azimuths and elevations in radians. `elevation_deg` of the image's camera is given or estimated.
    """

    images: np.ndarray
    cameras: Cameras
    elevation_deg: float
    seed: int

    def pil_images(self) -> list[Image.Image]:
        """The views as N Pillow images."""
        return [Image.fromarray(view) for view in self.images]

    def strip(self) -> Image.Image:
        """The views side by side, as `generate.py` writes them."""
        return Image.fromarray(views_to_strip(self.images))

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the strip as a PNG, which `train_renderer.py` and the evaluation read."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            self.strip().save(temporary, "PNG")
        return target

    def save_views(self, folder: str | PathLike[str], colmap: bool = False) -> Path:
        """Write 000.png .. 015.png and their cameras, see `write_views`; return the folder."""
        write_views(Path(folder), self.images, self.cameras, colmap)
        return Path(folder)


class SyncDreamerPipeline:
    """A loaded model with the preprocessing of its input images."""

    def __init__(self, view_generator: SyncDreamerGenerator, config: GenerateConfig) -> None:
        self.view_generator = view_generator
        self.config = config
        self._segmenters: dict[Backend, Segmenter] = {}

    @classmethod
    def load(
        cls,
        checkpoint: str | PathLike[str] | None = None,
        config: str | PathLike[str] | None = None,
        *,
        overrides: Sequence[str] = (),
        device: str = "auto",
        dtype: str = "fp32",
        views_at_once: int = 8,
        compile_networks: bool = False,
    ) -> SyncDreamerPipeline:
        """Load a model, as the commands do.

        Args:
            checkpoint: the weights; by default the published ones, if they are in ckpt/, else the
                small model's.
            config: file of the model's sizes; by default the one that goes with the weights.
            overrides: "key=value" for this file, e.g. "sampler.steps=20".
            device: "auto", "cpu", "cuda", "cuda:1" or "mps".
            dtype: "fp32", "tf32" (on CUDA only), "bf16", "fp16", or "auto", the fastest here.
            views_at_once: views denoised at once; bounds the memory.
            compile_networks: compile them in the first sample, which then takes minutes more, for
                faster steps; on CUDA with CUDA graphs: sample in one thread only.

        Raises:
            FileNotFoundError, ValueError: missing or invalid weights, configuration or device.
            pipeline.view_generator.ModelError: weights unfit for the configuration or the memory.
        """
        _check("batch_view_num", views_at_once, "views_at_once")
        _dtype_name(dtype)
        ckpt, cfg = (None if path is None else Path(path) for path in (checkpoint, config))
        chosen = argparse.Namespace(ckpt=ckpt, cfg=cfg)
        choose_model(chosen)
        sizes = load_config(GenerateConfig, chosen.cfg, overrides)
        view_generator = SyncDreamerGenerator(
            sizes.model, chosen.ckpt, pick_device(device), dtype, views_at_once, compile_networks
        )
        view_generator.model()
        return cls(view_generator, sizes)

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike[str] | None = None, **options: Any
    ) -> SyncDreamerPipeline:
        """Load weights from a file, or download the published ones (5.57 GB) if they are not here.

        Args:
            source: the file, or a repository of the Hub that has the published weights (one of
                `ldm.download.catalogue.SYNCDREAMER`); by default these are tried in turn.
            **options: of `load`, except `checkpoint`.

        Raises:
            FileNotFoundError: neither such a file nor such a repository.
            OSError: the download failed, see `ldm.download.fetch`; and as `load` raises.
        """
        if source is not None and Path(source).exists():
            return cls.load(source, **options)
        found = [s for s in SYNCDREAMER.sources if source in (None, s.repo)]
        if not found:
            known = ", ".join(s.repo for s in SYNCDREAMER.sources)
            raise FileNotFoundError(f"{source}: neither a file nor one of the repositories {known}")
        published = next((p for p in map(project_file, PUBLISHED_CKPTS) if p.exists()), None)
        remote = replace(SYNCDREAMER, sources=tuple(found))
        return cls.load(published or fetch(remote, weights_folder()), **options)

    def to(self, device: Any = None, dtype: Any = None) -> SyncDreamerPipeline:
        """Load the weights again for another device or precision; returns the pipeline itself.

        Args:
            device: as of `load`, or a `torch.device`; None keeps it.
            dtype: as of `load`, or a `torch.dtype`; None keeps it.

        Raises:
            ValueError: an unknown or unavailable device or precision.
        """
        if isinstance(device, torch.dtype):  # pipeline.to(torch.bfloat16), as modules take it
            device, dtype = None, device
        names = {kind: name for name, kind in DTYPES.items()}
        before = self.view_generator
        after = replace(
            before,
            device=before.device if device is None else pick_device(str(device)),
            dtype=before.dtype if dtype is None else _dtype_name(names.get(dtype, dtype)),
        )
        if (after.device, after.dtype) != (before.device, before.dtype):
            before.release()
            after.model()
            self.view_generator = after
        return self

    def __call__(
        self,
        image: ImageLike,
        elevation: float | Literal["auto"] = "auto",
        *,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], Any] | None = None,
        **options: Any,
    ) -> MultiviewImages:
        """Generate the views of the object in an image, as `generate` does.

        Args:
            image: see `generate`.
            elevation: see `generate`.
            callback_on_step_end: called after every denoising step with the pipeline, the step
                from 0, its timestep, and {"preview": function that decodes the views so far}; what
                it returns is ignored, its exceptions end the sampling.
            **options: the others of `generate`.
        """
        if callback_on_step_end is None:
            return self.generate(image, elevation, **options)

        def on_step(info: StepInfo) -> None:
            callback_on_step_end(self, info.number - 1, info.timestep, {"preview": info.preview})

        return self.generate(image, elevation, on_step=on_step, **options)

    def generate(
        self,
        image: ImageLike,
        elevation: float | Literal["auto"] = "auto",
        *,
        mask: ImageLike | None = None,
        backend: Backend | None = None,
        crop_size: CropSize = "auto",
        seed: int = SEED,
        steps: int | None = None,
        guidance_scale: float | None = None,
        eta: float | None = None,
        solver: Solver | None = None,
        guidance: GuidanceKind | None = None,
        input_scale: float | None = None,
        volume_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        on_step: StepCallback | None = None,
    ) -> MultiviewImages:
        """Generate the views of the object in an image.

        Args:
            image: its alpha, if any, is the object's mask.
            elevation: degrees that the image's camera looks down, useful from -10 to 40, or "auto".
            mask: of the object, of the image's size.
            backend: segments an image without alpha, see `multiview.segmentation.open_segmenter`.
            crop_size: see `multiview.images.crop_and_pad`; -1 keeps the whole image.
            seed: of the noise; another seed gives another sample.
            steps: denoising steps; this and the others of the sampler default to the configuration.
            guidance_scale: of "classifier_free"; 1 is none.
            eta: randomness of "ddim", 0 to 1.
            solver: "ddim", "dpm++", "dpm++sde" or "unipc".
            guidance: "classifier_free", "harmony" or "none".
            input_scale: of "harmony", for likeness to the image.
            volume_scale: of "harmony", for agreement of the views.
            guidance_interval: noise levels, low and high, see `ldm.sampling.config.GuidanceConfig`.
            on_step: called with a `ldm.generate_views.StepInfo` after every denoising step, drafts'
                too; its exceptions end the sampling.

        Raises:
            FileNotFoundError, ValueError: an invalid image, mask or setting, or no estimate.
            multiview.segmentation.SegmentationUnavailableError: the backend is not on this machine.
            MemoryError: not enough GPU memory.
        """
        given = {
            "steps": steps, "guidance_scale": guidance_scale, "eta": eta, "solver": solver,
            "guidance": guidance, "input_scale": input_scale, "volume_scale": volume_scale,
            "guidance_interval": guidance_interval,
        }  # fmt: skip
        sampler = change_sampler(self.config.sampler, given)
        _check("sample_steps", sampler.steps, "steps")
        _check("cfg_scale", sampler.guidance_scale, "guidance_scale")
        _check("input_scale", sampler.guidance.input_scale)
        _check("volume_scale", sampler.guidance.volume_scale)
        _check("seed", seed)
        if crop_size not in ("auto", -1):
            _check("crop_size", crop_size)  # type: ignore[arg-type]
        if elevation != "auto":
            _check("elevation", elevation)
        source = self._prepare(image, elevation, mask, backend, crop_size)
        degrees = source.elevation_deg
        if degrees is None:
            try:
                degrees = self._estimate(source, sampler, seed, on_step)
            except ValueError as error:
                raise type(error)(f"{error}; give it as elevation=<degrees>") from error
        strip = self.view_generator.generate(source.framed, degrees, seed, sampler, on_step)
        return MultiviewImages(strip_to_views(strip), self.cameras(), degrees, seed)

    def estimate_elevation(
        self,
        image: ImageLike,
        *,
        mask: ImageLike | None = None,
        backend: Backend | None = None,
        seed: int = SEED,
        on_step: StepCallback | None = None,
    ) -> float:
        """Estimate the elevation of an image's camera from six drafts of the views, in degrees.

        The arguments are those of `generate`, which does the same by default.
        """
        source = self._prepare(image, "auto", mask, backend, "auto")
        return self._estimate(source, self.config.sampler, seed, on_step)

    def cameras(self) -> Cameras:
        """The cameras of the views, the same for all images."""
        ring = self.config.model.cameras
        return orbit_cameras(ring.num_views, ring.elevation_deg, ring.distance, ring.image_size)

    def _prepare(
        self,
        image: ImageLike,
        elevation: float | Literal["auto"],
        mask: ImageLike | None,
        backend: Backend | None,
        crop_size: CropSize,
    ) -> PreparedInput:
        cut = self._cut_out(image, mask, backend)
        opaque = cut.mode == "RGB" or cut.getchannel("A").getextrema()[0] == 255
        if opaque and crop_size != -1 and (cut.mode == "RGB" or crop_size == "auto"):
            raise ValueError(
                "the object cannot be separated from the background: give an image with alpha, or "
                "mask=, or backend='auto' to segment it, or crop_size=-1 to use the whole image"
            )
        size, named = self.view_generator.size, InputImage(Path("the image"), "", cut)
        return prepare_input(named, Path(), elevation, crop_size, size, compare=False)

    def _estimate(
        self, source: PreparedInput, sampler: SamplerConfig, seed: int, on_step: StepCallback | None
    ) -> float:
        def draft(elevation_deg: float) -> np.ndarray:
            generate = self.view_generator.generate
            of_drafts = draft_sampler(sampler)
            return strip_to_views(generate(source.framed, elevation_deg, seed, of_drafts, on_step))

        assert source.crop is not None
        found = find_elevation(source.crop, draft)
        degrees, uncertainty = float(found["elevation_deg"]), found["uncertainty_deg"]
        log.info("elevation %.1f +- %.1f degrees, estimated", degrees, uncertainty)
        return degrees

    def _cut_out(
        self, given: ImageLike, mask: ImageLike | None, backend: Backend | None
    ) -> Image.Image:
        image = as_image(given) if mask is None else with_mask(as_image(given), mask)
        if backend is not None and not has_mask(image):
            if backend not in self._segmenters:
                device = str(self.view_generator.device)
                self._segmenters[backend] = open_segmenter(backend, device)
            image = remove_background(image, self._segmenters[backend], backend)
        return check_mask(image, "the image")


def reconstruct_mesh(
    views: MultiviewImages,
    folder: str | PathLike[str],
    preset: Preset = "default",
    *,
    device: str = "auto",
    seed: int = SEED,
    overwrite: bool = False,
    on_progress: ProgressCallback | None = None,
) -> Path:
    """Reconstruct the object in views by any cameras, as `train_renderer.py` does.

    Args:
        views: of one object, in the cube |x|, |y|, |z| <= 0.6.
        folder: of the results: mesh.glb, whose path is returned, mesh.ply, rendering.mp4 ...
        preset: how much time it may take: "fast", "default" or "best".
        device: see `SyncDreamerPipeline.load`.
        seed: of the reconstruction's random numbers.
        overwrite: replace an existing reconstruction in the folder.
        on_progress: called with the stage and the share of it that is done; its exceptions end the
            reconstruction.

    Raises:
        FileExistsError: the folder holds results, and not `overwrite`.
        KeyboardInterrupt: the training was stopped; the files show what it had reached.
        ValueError, MemoryError: see `renderer.reconstruction.reconstruct`.
    """
    config = load_renderer_config(project_file("configs/neus.yaml"), preset)
    with tempfile.TemporaryDirectory() as temporary:
        cameras = views.save_views(temporary) / TRANSFORMS
        options = ReconstructionOptions(
            seed, pick_device(device), preset, overwrite=overwrite, cameras=cameras,
            on_progress=on_progress,
        )  # fmt: skip
        result = reconstruct(cameras.parent, Path(folder), config, options)
    if result.stopped_by is not None:
        raise KeyboardInterrupt(f"stopped in training; files of the unfinished result: {folder}")
    return Path(folder, "mesh.glb")


def _dtype_name(dtype: str) -> str:
    if dtype not in (*DTYPES, "tf32", "auto"):
        raise ValueError(f"unknown dtype {dtype!r}, expected fp32, tf32, bf16, fp16 or auto")
    return dtype


def _check(limit: str, value: float, name: str | None = None) -> None:
    """Raise ValueError where a number is outside its limits of `LIMITS`."""
    low, high = LIMITS[limit]
    whole = limit in ("seed", "sample_steps", "crop_size", "batch_view_num")
    if not isinstance(value, Integral if whole else Real):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name or limit} must be {kind}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name or limit} must be from {low} to {high}, got {value}")
