"""SyncDreamer in Python, without the commands: a picture in, its views and their cameras out.

    from pipeline.api import SyncDreamerPipeline

    pipeline = SyncDreamerPipeline.load()
    views = pipeline.generate("testset/locomotive.png", elevation=20)

The same picture, seed and settings give the pixels that `generate.py` writes. It is here and not in
`ldm` because finding the elevation and the mask takes more than the model.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from common.config import load_config
from common.devices import pick_device
from common.files import atomic_write
from ldm.checkpoint.load import DTYPES
from ldm.config import GenerateConfig, SamplerConfig
from ldm.generate_views import StepCallback
from multiview.cameras import Cameras, orbit_cameras
from multiview.images import (
    CropSize,
    auto_crop_size,
    composite_white,
    crop_and_pad,
    normalise_image,
    read_image,
    strip_to_views,
    views_to_strip,
)
from multiview.matting import has_mask, remove_background
from multiview.segmentation import Backend, open_segmenter
from pipeline.cli_args import LIMITS, choose_model
from pipeline.selection.elevation import Draft
from pipeline.selection.elevation_drafts import draft_sampler, find_elevation
from pipeline.view_generator import SyncDreamerGenerator
from renderer.config import Preset, load_renderer_config
from renderer.reconstruction import ReconstructionOptions, reconstruct

log = logging.getLogger(__name__)

Picture = str | PathLike[str] | Image.Image | np.ndarray
"""A file, an image, or an array (H, W), (H, W, 3) or (H, W, 4), uint8 or float in [0, 1]."""
SEED = 6033
"""What the commands take, too."""
NO_OBJECT = (
    "nothing tells the object from the background: give an image with alpha, or mask=, or let "
    "backend='auto' find the object, or take the whole picture with crop_size=-1"
)


@dataclass(frozen=True)
class MultiviewImages:
    """What the model made of one picture.

    Attributes:
        images: the N views on white, uint8 RGB, (N, H, W, 3); the first at the picture's azimuth.
        cameras: of the views, see `multiview.cameras`: intrinsics (N, 3, 3) in pixels,
            world_to_camera (N, 3, 4) with OpenCV's axes, azimuths and elevations in radians.
        elevation_deg: of the picture's camera, as given or as estimated.
        seed: of the noise.
    """

    images: np.ndarray
    cameras: Cameras
    elevation_deg: float
    seed: int

    def pictures(self) -> list[Image.Image]:
        """The views as N images."""
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


class SyncDreamerPipeline:
    """A model that is loaded, and what brings a picture into the form that it wants.

    Args:
        view_generator: of views.
        config: sizes of the model, and how it is best sampled.
    """

    def __init__(self, view_generator: SyncDreamerGenerator, config: GenerateConfig) -> None:
        self.view_generator = view_generator
        self.config = config

    @classmethod
    def load(
        cls,
        checkpoint: str | PathLike[str] | None = None,
        config: str | PathLike[str] | None = None,
        *,
        overrides: Sequence[str] = (),
        device: str = "auto",
        dtype: str = "fp32",
        batch_view_num: int = 8,
    ) -> SyncDreamerPipeline:
        """Load a model, as the commands do.

        Args:
            checkpoint: the weights; by default the published ones, if they are in ckpt/, else the
                small model's.
            config: file of the model's sizes; by default the one that goes with the weights.
            overrides: "key=value" for this file, e.g. "sampler.steps=20".
            device: "auto", "cpu", "cuda", "cuda:1" or "mps".
            dtype: "fp32", "tf32" (on CUDA only), "bf16" or "fp16".
            batch_view_num: views denoised at once; bounds the memory.

        Raises:
            FileNotFoundError, ValueError: the weights, the configuration or the device are not
                there, or not what they should be.
            pipeline.view_generator.ModelError: the weights do not fit, or not into the memory.
        """
        _check("batch_view_num", batch_view_num)
        if dtype not in (*DTYPES, "tf32"):
            raise ValueError(f"unknown dtype {dtype!r}, expected fp32, tf32, bf16 or fp16")
        chosen = argparse.Namespace(
            ckpt=None if checkpoint is None else Path(checkpoint),
            cfg=None if config is None else Path(config),
        )
        choose_model(chosen)
        sizes = load_config(GenerateConfig, chosen.cfg, overrides)
        view_generator = SyncDreamerGenerator(
            sizes.model, chosen.ckpt, pick_device(device), dtype, batch_view_num
        )
        view_generator.model()
        return cls(view_generator, sizes)

    def generate(
        self,
        image: Picture,
        elevation: float | Literal["auto"] = "auto",
        *,
        mask: Picture | None = None,
        backend: Backend | None = None,
        crop_size: CropSize = "auto",
        seed: int = SEED,
        steps: int | None = None,
        guidance_scale: float | None = None,
        eta: float | None = None,
        on_step: StepCallback | None = None,
    ) -> MultiviewImages:
        """Draw the views of the object in a picture.

        Args:
            image: its alpha, where there is some, is the object's mask.
            elevation: degrees that the picture's camera looks down, useful from -10 to 40; "auto"
                estimates them from six drafts of the views.
            mask: of the object, as large as the image.
            backend: finds the object in a picture without alpha, see
                `multiview.segmentation.open_segmenter`.
            crop_size: see `multiview.images.crop_and_pad`; "auto" chooses by the mask, -1 takes the
                picture as it is.
            seed: of the noise; another seed gives another sample.
            steps: denoising steps; like the next two, by default what the configuration says.
            guidance_scale: 1 is none.
            eta: randomness of the sampler, 0 to 1.
            on_step: called with a `ldm.generate_views.StepInfo` after every denoising step, also
                of the drafts; its exceptions end the sampling.

        Raises:
            FileNotFoundError, ValueError: the picture, its mask or a setting is not what it
                should be, or the elevation cannot be estimated.
            multiview.segmentation.SegmentationUnavailableError: the backend is not on this machine.
            MemoryError: says how to need less.
        """
        given = {"steps": steps, "guidance_scale": guidance_scale, "eta": eta}
        given = {name: value for name, value in given.items() if value is not None}
        sampler = replace(self.config.sampler, **given)  # type: ignore[arg-type]
        for name, flag in (("steps", "sample_steps"), ("guidance_scale", "cfg_scale")):
            _check(flag, getattr(sampler, name), name)
        _check("seed", seed)
        if crop_size != "auto" and crop_size != -1:
            _check("crop_size", crop_size)
        if elevation != "auto":
            _check("elevation", elevation)

        cut = self._cut_out(image, mask, backend)
        pixels = self._framed(cut, crop_size)

        def draw(elevation_deg: float, sampler: SamplerConfig) -> np.ndarray:
            return strip_to_views(
                self.view_generator.generate(pixels, elevation_deg, seed, sampler, on_step)
            )

        degrees = (
            _estimated(cut, lambda at: draw(at, draft_sampler(sampler)))
            if elevation == "auto"
            else float(elevation)
        )
        return MultiviewImages(draw(degrees, sampler), self.cameras(), degrees, seed)

    def cameras(self) -> Cameras:
        """The cameras of the views, which are the same for all pictures."""
        ring = self.config.model.cameras
        return orbit_cameras(ring.num_views, ring.elevation_deg, ring.distance, ring.image_size)

    def _cut_out(
        self, picture: Picture, mask: Picture | None, backend: Backend | None
    ) -> Image.Image:
        image = as_image(picture)
        if mask is not None:
            image = with_mask(image, mask)
        if backend is not None and not has_mask(image):
            image = remove_background(
                image, open_segmenter(backend, str(self.view_generator.device)), backend
            )
        return image

    def _framed(self, image: Image.Image, crop_size: CropSize) -> np.ndarray:
        """What the model expects: float32 RGB in [-1, 1], (size, size, 3)."""
        opaque = image.mode == "RGB" or image.getchannel("A").getextrema()[0] == 255
        if opaque and (crop_size == "auto" or image.mode == "RGB") and crop_size != -1:
            raise ValueError(NO_OBJECT)
        chosen = auto_crop_size(image) if crop_size == "auto" else crop_size
        return composite_white(crop_and_pad(image, chosen, self.view_generator.size))


def as_image(picture: Picture) -> Image.Image:
    """Make an 8-bit RGB or RGBA image of a picture of any kind.

    Raises:
        FileNotFoundError, ValueError: what is wrong with it.
    """
    if isinstance(picture, Image.Image):
        return normalise_image(picture)
    if isinstance(picture, np.ndarray):
        return normalise_image(Image.fromarray(_levels(picture)))
    return read_image(Path(picture))


def with_mask(image: Image.Image, mask: Picture) -> Image.Image:
    """Give an image an object's mask as alpha; alpha that it has stays where it is smaller.

    Args:
        image: mode "RGB" or "RGBA".
        mask: a grey picture, or a boolean array; of one that is see-through somewhere, the alpha.

    Raises:
        FileNotFoundError, ValueError: it is no mask, has levels 0 and 1 of 255, or is not as
            large as the image.
    """
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = mask.astype(np.uint8) * 255
    picture = as_image(mask)
    if picture.size != image.size:
        raise ValueError(
            f"the mask has {picture.width} x {picture.height} pixels, the image "
            f"{image.width} x {image.height}"
        )
    pixels = np.asarray(image)
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    if alpha.min() == 255:
        alpha = np.asarray(picture.convert("L"))
    if alpha.max() == 1:
        raise ValueError("the mask has levels 0 and 1 of 255; give booleans, or 255 times it")
    if pixels.shape[2] == 4:
        alpha = np.minimum(alpha, pixels[:, :, 3])
    return Image.fromarray(np.dstack([pixels[:, :, :3], alpha]))


def reconstruct_mesh(
    views: MultiviewImages,
    folder: str | PathLike[str],
    preset: Preset = "default",
    *,
    device: str = "auto",
    seed: int = SEED,
    overwrite: bool = False,
) -> Path:
    """Reconstruct the object of the views, as `train_renderer.py` does.

    Args:
        views: 16 of them.
        folder: of the results: mesh.glb, mesh.ply, rendering.mp4, metrics.json and others.
        preset: how much time it may take: "fast", "default" or "best".
        device: see `SyncDreamerPipeline.load`.
        seed: of the reconstruction's random numbers.
        overwrite: replace the reconstruction that is in the folder.

    Returns:
        path of mesh.glb.

    Raises:
        FileExistsError: there are results in the folder already.
        ValueError, MemoryError: see `renderer.reconstruction.reconstruct`.
    """
    config = load_renderer_config(Path(__file__).parents[1] / "configs" / "neus.yaml", preset)
    options = ReconstructionOptions(seed, pick_device(device), preset, overwrite=overwrite)
    with tempfile.TemporaryDirectory() as temporary:
        strip = views.save(Path(temporary, "views.png"))
        reconstruct(strip, Path(folder), config, options)
    return Path(folder, "mesh.glb")


def _estimated(image: Image.Image, draft: Draft) -> float:
    """The elevation of an image, as `generate.py --elevation auto` finds it."""
    try:
        estimate = find_elevation(np.asarray(image), draft)
    except ValueError as error:
        raise ValueError(
            f"the elevation cannot be estimated from drafts ({error.__cause__ or error}); give it "
            f"as elevation=<degrees>"
        ) from error
    log.info("elevation %.1f +- %.1f degrees, estimated",
             estimate.elevation_deg, estimate.uncertainty_deg)  # fmt: skip
    return round(estimate.elevation_deg, 1)


def _levels(array: np.ndarray) -> np.ndarray:
    """Turn an array (H, W), (H, W, 3) or (H, W, 4) into uint8 levels."""
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise ValueError(
            f"an image is an array (H, W), (H, W, 3) or (H, W, 4), got one of shape {array.shape}"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an image's values are uint8, or float in [0, 1], got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError("an image of floats has values from 0 to 1, got others")
    levels: np.ndarray = (array * 255).round().astype(np.uint8)
    return levels


def _check(limit: str, value: float, name: str | None = None) -> None:
    low, high = LIMITS[limit]
    whole = limit in ("seed", "sample_steps", "crop_size", "batch_view_num")
    if not isinstance(value, Integral if whole else Real):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name or limit} must be {kind}, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name or limit} must be from {low} to {high}, got {value}")
