"""Progress of the pipeline's steps as the progress of a job, with previews of the views."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from common.records import RunDirectory
from ldm.config import SamplerConfig
from ldm.generate_views import StepCallback, StepInfo
from pipeline.config import PipelineConfig
from pipeline.selection.elevation_drafts import draft_sampler
from pipeline.view_generator import ViewGenerator
from webapp.job import Progress, ProgressCallback

MAX_PREVIEW_FRACTION = 0.25
"""Previews are decoded as long as they take at most this fraction of the generation's time."""
VIEWS_DONE, TRAINING_DONE, TEXTURE_DONE = 0.55, 0.85, 0.92
"""Positions of the progress bar after the generation, the training and the texturing."""


class ProgressGenerator(ViewGenerator):
    """View generator that publishes the progress of every denoising step, with previews.

    `directory` names the current step of the pipeline, `config` has the numbers of steps.
    """

    def __init__(
        self,
        view_generator: ViewGenerator,
        config: PipelineConfig,
        directory: RunDirectory,
        on_progress: ProgressCallback,
    ) -> None:
        self.view_generator, self.directory = view_generator, directory
        self.on_progress = on_progress
        drafts_at = config.elevations.drafts_at if config.elevation == "auto" else ()
        self._drafts = [f"draft-{degrees:+.1f}" for degrees in drafts_at]
        self._samples = [f"sample-{k}" for k in range(config.num_samples)]
        draft_steps = draft_sampler(config.sampler, config.draft_steps).steps
        self._steps = {
            **dict.fromkeys(self._drafts, draft_steps),
            **dict.fromkeys(self._samples, config.sampler.steps),
        }
        """Denoising steps of each strip, by the names of the pipeline's steps, in order."""

    @property
    def size(self) -> int:
        """See `ViewGenerator`."""
        return self.view_generator.size

    def settings(self, sampler: SamplerConfig) -> dict[str, Any]:
        """See `ViewGenerator`."""
        return self.view_generator.settings(sampler)

    def generate(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seed: int,
        sampler: SamplerConfig,
        on_step: StepCallback | None = None,
    ) -> np.ndarray:
        """See `ViewGenerator`."""
        name = self.directory.current
        start, preview_seconds = time.monotonic(), 0.0

        def after_step(step: StepInfo) -> None:
            nonlocal preview_seconds
            if on_step is not None:
                on_step(step)
            before = time.monotonic()
            affordable = preview_seconds <= MAX_PREVIEW_FRACTION * (before - start)
            strip = step.preview() if step.number == step.total or affordable else None
            preview_seconds += time.monotonic() - before
            message, title = self._describe(name, step)
            fraction = self._fraction(name, step.number / step.total)
            self.on_progress(Progress(VIEWS_DONE * fraction, message, strip, title))

        fraction = self._fraction(name, 0.0)
        self.on_progress(Progress(VIEWS_DONE * fraction, "Encoding the image"))
        return self.view_generator.generate(pixels, elevation_deg, seed, sampler, after_step)

    def _fraction(self, name: str, completed: float) -> float:
        """Completed fraction of all strips, given that of the current strip."""
        names = list(self._steps)
        before = sum(self._steps[other] for other in names[: names.index(name)])
        return (before + completed * self._steps[name]) / sum(self._steps.values())

    def _describe(self, name: str, step: StepInfo) -> tuple[str, str]:
        """Message and title of a step's progress."""
        count = f"step {step.number} of {step.total}"
        if name in self._drafts:
            draft = f"draft {self._drafts.index(name) + 1} of {len(self._drafts)}"
            return f"Estimating the elevation: {draft}, {count}", "Draft of the views"
        number = self._samples.index(name) + 1
        title = f"Sample {number}: 16 views"
        return f"Generating sample {number} of {len(self._samples)}: {count}", title


def reconstruction_progress(on_progress: ProgressCallback) -> Callable[[str, float], None]:
    """Callback for a reconstruction, see `renderer.reconstruction.ReconstructionOptions`."""

    def callback(stage: str, completed: float) -> None:
        start, end, message = {
            "training": (
                VIEWS_DONE,
                TRAINING_DONE,
                f"Building the mesh: {round(100 * completed)} %",
            ),
            "mesh": (TRAINING_DONE, TRAINING_DONE, "Texturing the mesh"),
        }.get(stage, (TEXTURE_DONE, 1.0, "Rendering the turntable video"))
        on_progress(Progress(start + completed * (end - start), message))

    return callback
