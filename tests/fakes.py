"""A fake view generator, and the settings of a pipeline that is finished within seconds."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from common.files import sha256
from ldm.config import SamplerConfig
from ldm.generate_views import StepCallback, StepInfo
from multiview.images import views_to_strip
from pipeline.config import PipelineConfig
from pipeline.paths import EXPORTED
from pipeline.selection.elevation import ElevationConfig
from pipeline.view_generator import ViewGenerator
from renderer.config import RendererConfig
from renderer.output_dir import CHECKPOINT
from renderer.reconstruction import ReconstructionOptions, ReconstructionResult
from tests.renderer.small_runs import SIZE, TINY, ellipsoid


class FakeGenerator(ViewGenerator):
    """Generates an ellipsoid with noise that depends on all inputs and grows with the seed.

    Args:
        seconds: duration of a step.
    """

    size = SIZE

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.generated: list[tuple[float, int]] = []
        """Elevation and seed of each call."""
        self.steps: list[float] = []
        """Time of each step, monotonic clock."""
        self.running, self.max_running = 0, 0
        """Calls at the same time: now, and at most so far."""
        self._lock = threading.Lock()

    def settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        return {"weights": "toy", **sampler.settings()}

    def generate(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seed: int,
        sampler: SamplerConfig,
        on_step: StepCallback | None = None,
    ) -> np.ndarray:
        with self._lock:
            self.running += 1
            self.max_running = max(self.running, self.max_running)
        self.generated.append((elevation_deg, seed))
        try:
            inputs = f"{pixels.sum()} {elevation_deg} {seed}".encode()
            noise = np.random.default_rng(list(inputs)).normal(size=(16, SIZE, SIZE, 1))
            clean, alpha = np.split(ellipsoid(), [3], axis=-1)

            def strip(fraction: float) -> np.ndarray:
                noisy = clean + noise * (0.6 * (1.0 - fraction) + seed / 200)
                views = np.where(alpha > 0.99, noisy.clip(0, 0.9), clean)
                return views_to_strip((views * 255).round().astype(np.uint8))

            for number in range(1, sampler.steps + 1):
                time.sleep(self.seconds)
                self.steps.append(time.monotonic())
                if on_step is not None:
                    preview = partial(strip, number / sampler.steps)
                    on_step(StepInfo(number, sampler.steps, 1000 - number, preview))
            return strip(1.0)
        finally:
            with self._lock:
                self.running -= 1


METRICS = {"psnr": 20.0, "field_psnr": 21.0, "mask_iou": None, "faces": 12, "watertight": True,
           "manifold": True, "textured_faces": 12, "steps": 6, "kind": "mlp", "preset": "fast",
           "seconds": 1.0}  # fmt: skip


def fake_reconstruct(
    image: Path, folder: Path, config: RendererConfig, options: ReconstructionOptions
) -> ReconstructionResult:
    """Write files that depend on the strip, the seed and the preset alone."""
    (folder / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    (folder / CHECKPOINT).touch()
    for fraction in (0.0, 0.5, 1.0):
        options.progress("training", fraction)
    for name in EXPORTED:
        of = f"{name} {sha256(image)} {options.seed} {options.preset}"
        if name == "mesh.glb":  # the report shows it
            trimesh.Scene(trimesh.creation.box(), metadata={"of": of}).export(folder / name)
        else:
            (folder / name).write_text(of)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return ReconstructionResult(METRICS, None)


def small_config(**changes: Any) -> PipelineConfig:
    """Three samples of three steps, a small reconstruction, on the CPU."""
    config = PipelineConfig(
        backend="white",
        crop_size="auto",
        elevation="auto",
        draft_steps=2,
        num_samples=3,
        seed=1,
        sampler=SamplerConfig(steps=3),
        renderer=replace(TINY, mlp=replace(TINY.mlp, resolution=16)),
        preset="fast",
        device=torch.device("cpu"),
        elevations=ElevationConfig(step=10.0, drafts_at=(0.0, 30.0), size=32, resolution=24),
    )
    return replace(config, **changes)
