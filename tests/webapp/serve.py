"""The page with a fake model, served from another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldm.config import SamplerConfig
from ldm.generate_views import StepCallback, StepInfo
from multiview.images import views_to_strip
from pipeline.config import PipelineConfig
from pipeline.selection.elevation import ElevationConfig
from tests.conftest import ROOT
from tests.renderer.small_runs import SIZE, TINY, ellipsoid

EXAMPLES = [ROOT / "testset" / "car.png", ROOT / "testset" / "cup.png"]


class SlowGenerator:
    """Generates an ellipsoid with noise that depends on the seed; slow steps on request."""

    size = SIZE

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.steps: list[float] = []
        """Time of each step, monotonic clock."""
        self.running, self.max_running = 0, 0
        self._lock = threading.Lock()

    def settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        return {"weights": "toy", **vars(sampler)}

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
        try:
            views = ellipsoid()
            clean, alpha = views[..., :3], views[..., 3:]
            noise = np.random.default_rng(seed).normal(size=clean.shape)

            def strip(share: float) -> np.ndarray:
                spoilt = clean + (alpha > 0.99) * noise * (0.6 * (1 - share) + 0.02 * (seed % 7))
                return views_to_strip((spoilt.clip(0, 1) * 255).round().astype(np.uint8))

            for number in range(1, sampler.steps + 1):
                time.sleep(self.seconds)
                self.steps.append(time.monotonic())
                if on_step is not None:
                    share = number / sampler.steps
                    on_step(StepInfo(number, sampler.steps, lambda share=share: strip(share)))
            return strip(1.0)
        finally:
            with self._lock:
                self.running -= 1


def small_settings(**changes: Any) -> PipelineConfig:
    settings = PipelineConfig(
        backend="white",
        crop_size="auto",
        elevation=20.0,
        draft_steps=2,
        sample_num=3,
        seed=1,
        sampler=SamplerConfig(steps=4),
        renderer=replace(TINY, mlp=replace(TINY.mlp, resolution=16)),
        preset="fast",
        device=torch.device("cpu"),
        elevations=ElevationConfig(step=10.0, drafts_at=(0.0, 30.0), size=32, resolution=24),
    )
    return replace(settings, **changes)


@dataclass
class ServedPage:
    """A page that is being served."""

    address: str
    view_generator: SlowGenerator
    sessions: Any
    server: Any


@contextmanager
def serve_page(
    seconds: float = 0.0, max_queue: int = 20, max_upload_mb: int = 20, **changes: Any
) -> Iterator[ServedPage]:
    """Serve the page from another thread."""
    from webapp.server import Limits, listen, open_server

    view_generator = SlowGenerator(seconds)
    limits = Limits(max_queue, max_upload_mb)
    with (
        listen("127.0.0.1", 0) as opened,
        open_server(view_generator, small_settings(**changes), EXAMPLES, limits) as (
            server,
            sessions,
        ),
    ):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            yield ServedPage(
                f"http://127.0.0.1:{opened.getsockname()[1]}/", view_generator, sessions, server
            )
        finally:
            server.should_exit = True
            thread.join(20)


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
