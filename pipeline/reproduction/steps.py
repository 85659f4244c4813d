"""What is made of each object: samples of its input view, and a mesh of one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from common.devices import pick_device
from common.files import atomic_write
from common.records import RunDirectory
from common.workers.work import Work, Worker
from evaluation.benchmark.dataset import ObjectFiles
from ldm.config import SamplerConfig, SyncDreamerConfig
from ldm.generate_views import StepCallback
from multiview.cameras import VIEWS_ELEVATION_DEG
from multiview.images import view_names
from multiview.views import read_views
from pipeline.cli_args import flag_advice
from pipeline.generate import GenerateOptions, generate
from pipeline.image_to_3d import reconstruct_step
from pipeline.selection.ranking import SCORES, read_scores
from pipeline.view_generator import SyncDreamerGenerator, ViewGenerator
from renderer.config import Preset, RendererConfig
from renderer.reconstruction import ReconstructionOptions

INPUT_VIEW, CROP_SIZE = view_names()[0], -1
"""The published input: the first of the true views, whole; its elevation is that of all views."""


@dataclass(frozen=True)
class Plan:
    """Settings of a run.

    Attributes:
        output: folder of all results.
        model: sizes of the model.
        checkpoint: its weights.
        dtype, views_at_once: see `SyncDreamerGenerator`.
        sampler: settings of the reverse process.
        num_samples: K, of each object.
        seed: of sample 0; sample k has seed + k.
        ranking: rank the samples, and take the best one for the mesh instead of sample 0.
        overwrite: make all results again.
        renderer, preset: of the reconstruction; None makes no meshes.
    """

    output: Path
    model: SyncDreamerConfig
    checkpoint: Path
    dtype: str
    views_at_once: int
    sampler: SamplerConfig
    num_samples: int
    seed: int
    ranking: bool
    overwrite: bool
    renderer: RendererConfig | None
    preset: Preset

    def views(self, name: str) -> Path:
        """Folder of an object's samples 0.png, 1.png, ..."""
        return self.output / "views" / name

    def mesh_folder(self, name: str) -> Path:
        """Folder of an object's reconstruction."""
        return self.output / "meshes" / name / "reconstruction"

    def chosen(self, name: str) -> int:
        """Number of the sample that the ranking chose; 0 without ranking."""
        scores = read_scores(self.views(name) / SCORES) if self.ranking else {}
        return int(Path(next(iter(scores), "0.png")).stem)


class _CountingGenerator(SyncDreamerGenerator):
    """Calls the worker's `tick` after every denoising step."""

    worker: Worker
    generate_batch = ViewGenerator.generate_batch  # one by one, so that the steps are counted

    def generate(
        self,
        pixels: np.ndarray,
        elevation_deg: float,
        seed: int,
        sampler: SamplerConfig,
        on_step: StepCallback | None = None,  # noqa: ARG002 - the worker's takes its place
    ) -> np.ndarray:
        """See `SyncDreamerGenerator.generate`."""
        return super().generate(pixels, elevation_deg, seed, sampler, lambda _: self.worker.tick())


def make_views(plan: Plan, worker: Worker) -> Work:
    """Generate the samples of an object; a unit of work is a denoising step."""
    on = pick_device(worker.device)
    generator = _CountingGenerator(plan.model, plan.checkpoint, on, plan.dtype, plan.views_at_once)
    generator.worker = worker

    def work(files: ObjectFiles) -> None:
        assert files.true is not None
        options = GenerateOptions(
            output=plan.views(files.name),
            crop_size=CROP_SIZE,
            num_samples=plan.num_samples,
            seed=plan.seed,
            sampler=plan.sampler,
            device=on,
            keep="all" if plan.ranking else None,
            overwrite=plan.overwrite,
        )
        with flag_advice():
            generate([files.true / INPUT_VIEW], [VIEWS_ELEVATION_DEG], options, generator)

    return work


def make_mesh(plan: Plan, worker: Worker) -> Work:
    """Reconstruct the chosen sample of an object, one unit of work."""
    device = pick_device(worker.device)

    def work(files: ObjectFiles) -> None:
        assert plan.renderer is not None
        folder = plan.mesh_folder(files.name)
        directory = RunDirectory(folder.parent, plan.overwrite)
        strip = plan.views(files.name) / f"{plan.chosen(files.name)}.png"
        options = ReconstructionOptions(plan.seed, device, plan.preset)
        with directory.open(), flag_advice():
            reconstruct_step(directory, strip, folder, plan.renderer, options)
        if directory.done:
            worker.tick()

    return work


def evaluated_files(files: ObjectFiles, plan: Plan, sample: int) -> ObjectFiles:
    """The files that the benchmark compares for a sample of an object.

    The true views are scaled to the size of the model's where they differ. The mesh counts for the
    chosen sample only.
    """
    assert files.true is not None
    mesh = plan.mesh_folder(files.name) / "mesh.ply"
    with_mesh = plan.renderer is not None and sample == plan.chosen(files.name)
    return replace(
        files,
        true=_at_size(files.true, plan.model.cameras.image_size, plan.output / "true" / files.name),
        predicted=plan.views(files.name) / f"{sample}.png",
        mesh=mesh if with_mesh and files.true_mesh is not None else None,
        video=None,
    )


def _at_size(true: Path, size: int, scaled: Path) -> Path:
    """The folder of true views if they have this size, else of scaled copies on white."""
    images = read_views(true)
    if images.shape[1] == size:
        return true
    scaled.mkdir(parents=True, exist_ok=True)
    for name, image in zip(view_names(), images, strict=True):
        pixels = Image.fromarray((image * 255).round().astype(np.uint8))
        with atomic_write(scaled / name) as temporary:
            pixels.resize((size, size), Image.Resampling.BOX).save(temporary)
    return scaled
