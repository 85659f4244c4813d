"""View generators: the interface, and SyncDreamer with weights that are loaded on first use."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange

from common.devices import fastest_dtype
from common.workers.work import SetUpError
from demo.model import choose_model_class
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.generate_views import (
    StepCallback,
    check_dtype,
    compile_for_sampling,
    generate_strips,
    open_model,
    sampling_settings,
)
from ldm.model import ImageFeatures, SyncDreamer

log = logging.getLogger(__name__)

MAX_SAMPLES_AT_ONCE = 4
"""Of one input, that a GPU generates together; the default of --sample_num."""


class ModelError(SetUpError):
    """The model cannot be loaded, so no image can be processed."""


class ViewGenerator(Protocol):
    """Generates strips of views from framed input images."""

    @property
    def size(self) -> int:
        """Pixels a side of a view."""

    def settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        """Everything a strip depends on, except the input, its elevation and the seed."""

    def generate(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seed: int,
        sampler: SamplerConfig,
        on_step: StepCallback | None = None,
    ) -> np.ndarray:
        """Generate the views of an input framed by `frame_image`, uint8 (size, 16 size, 3).

        Exceptions of `on_step` end it.
        """

    def generate_batch(
        self, pixels: np.ndarray, elevation_deg: float, seeds: Sequence[int], sampler: SamplerConfig
    ) -> Iterator[np.ndarray]:
        """Generate samples of an input, in the order of their seeds; one by one, if not said."""
        for seed in seeds:
            yield self.generate(pixels, elevation_deg, seed, sampler)


@dataclass
class SyncDreamerGenerator(ViewGenerator):
    """Generates views with SyncDreamer; in "fp32", "tf32" (CUDA only), "bf16", "fp16" or "auto"."""

    config: SyncDreamerConfig
    checkpoint: Path
    device: torch.device
    dtype: str
    views_at_once: int
    compile_networks: bool = False
    _model: SyncDreamer | None = field(default=None, init=False, repr=False)
    _pixels: np.ndarray | None = field(default=None, init=False, repr=False)
    _features: ImageFeatures | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.dtype == "auto":
            self.dtype = fastest_dtype(self.device)
        check_dtype(self.dtype, self.device)
        self._model_settings = sampling_settings(self.config, self.checkpoint, self.dtype)

    @property
    def size(self) -> int:
        """Pixels a side of a view."""
        return self.config.cameras.image_size

    def settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        """See `ViewGenerator`."""
        return {**sampler.settings(), **self._model_settings}

    def generate(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seed: int,
        sampler: SamplerConfig,
        on_step: StepCallback | None = None,
    ) -> np.ndarray:
        """See `ViewGenerator`; raises ModelError, or MemoryError if the GPU's is not enough."""
        (strip,) = self._together(pixels, elevation_deg, [seed], sampler, on_step)
        return strip

    def generate_batch(
        self, pixels: np.ndarray, elevation_deg: float, seeds: Sequence[int], sampler: SamplerConfig
    ) -> Iterator[np.ndarray]:
        """See `ViewGenerator`; as many together as the memory of a GPU allows, on a CPU one."""
        if self.device.type != "cuda":
            yield from super().generate_batch(pixels, elevation_deg, seeds, sampler)
            return
        at_once = MAX_SAMPLES_AT_ONCE
        remaining = list(seeds)
        while remaining:
            now = remaining[:at_once]
            try:
                strips = self._together(pixels, elevation_deg, now, sampler)
            except MemoryError:
                if len(now) == 1:
                    raise
                at_once = len(now) // 2
                log.info("not enough GPU memory for %d samples at once: %d", len(now), at_once)
                continue
            yield from strips
            del remaining[: len(now)]

    def _together(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seeds: Sequence[int],
        sampler: SamplerConfig,
        on_step: StepCallback | None = None,
    ) -> list[np.ndarray]:
        model = self.model()
        try:
            features = self._encoded(model, pixels)
            return generate_strips(
                model, features, elevation_deg, seeds, sampler, self.views_at_once, on_step
            )
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"not enough GPU memory for {self.views_at_once} views at once in {self.dtype}"
            ) from error

    def model(self) -> SyncDreamer:
        """Load the model on the first call; ModelError if it cannot be loaded."""
        if self._model is None:
            try:
                kind = choose_model_class(self.config)
                model = open_model(self.config, self.checkpoint, self.device, self.dtype, kind)
                if self.compile_networks:
                    compile_for_sampling(model)
                self._model = model
            except (OSError, ValueError, MemoryError, RuntimeError) as error:
                raise ModelError(str(error)) from error
        return self._model

    def release(self) -> None:
        """Free the memory of the model; the next call loads it again."""
        self._model = self._features = None

    def _encoded(self, model: SyncDreamer, pixels: np.ndarray) -> ImageFeatures:
        """Features of an input; those of the last input are cached."""
        last = self._pixels
        if self._features is None or last is None or not np.array_equal(last, pixels):
            image = torch.from_numpy(rearrange(pixels, "h w c -> 1 c h w"))
            with torch.inference_mode():
                self._features = model.encode_image(image.to(self.device))
            self._pixels = pixels
        return self._features
