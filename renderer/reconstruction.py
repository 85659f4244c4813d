"""Reconstruct an object from its views: train a method, export meshes and a video."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.files import atomic_write, file_lock
from common.signals import stop_on_signals
from multiview.plausibility import find_misfits
from renderer.checkpoint import CheckpointError, RunFingerprint, read_checkpoint, write_checkpoint
from renderer.config import Preset, RendererConfig
from renderer.export import (
    FRAMES,
    export_meshes,
    field_frames,
    measure_field,
    measure_meshes,
    render_view,
    write_preview,
)
from renderer.methods.base import Views
from renderer.methods.nerf import NeRF
from renderer.methods.neus_grid import GridNeuS
from renderer.methods.neus_mlp import MLPNeuS
from renderer.output_dir import (
    CHECKPOINT,
    COORDINATES,
    PREVIEWS,
    check_folder,
    clear,
    clear_temporary,
)
from renderer.stage_times import StageTimes
from renderer.trainer import TrainableMethod, Training, train
from renderer.video import orbit_frames, write_video
from renderer.views import read_input, write_input

log = logging.getLogger(__name__)

ProgressCallback = Callable[[str, float], None]
"""(stage, share of it that is done from 0 to 1); an exception ends the reconstruction."""
_NO_MEMORY = re.compile("out of memory|DefaultCPUAllocator: (can't allocate|not enough memory)")
"""Messages of torch's errors; only CUDA has an exception class for it."""
POOR_IOU = 0.7
"""IoU of the mesh's silhouettes with the masks below which a warning is logged."""
VIEW_STRIDE = 5
"""Successive previews are this many views apart, so that they differ; coprime to 16."""


@dataclass(frozen=True)
class ReconstructionOptions:
    """Options of a run that are not part of its configuration.

    Attributes:
        seed: of all random numbers.
        device: to compute on.
        preset: for metrics.json only; the configuration already includes it.
        resume: continue from the folder's checkpoint.
        overwrite: replace the reconstruction in the folder.
        cameras: file of the images' cameras, see `renderer.posed_views`; None for the 16 views.
        keep_coordinates: write the meshes in the coordinates of these cameras.
        export_when_stopped: export the partial result when a signal ends the training early;
            otherwise only a checkpoint is written.
        on_progress: called after every training step and video frame; stages: training, mesh,
            video.
    """

    seed: int
    device: torch.device
    preset: Preset = "default"
    resume: bool = False
    overwrite: bool = False
    cameras: Path | None = None
    keep_coordinates: bool = False
    export_when_stopped: bool = True
    on_progress: ProgressCallback | None = None

    def progress(self, stage: str, share: float) -> None:
        """Call `on_progress` if it is set."""
        if self.on_progress is not None:
            self.on_progress(stage, share)


@dataclass(frozen=True)
class ReconstructionResult:
    """Content of metrics.json, empty if nothing was exported.

    `stopped_by` is the number of the signal that ended the training early, or None.
    """

    metrics: dict[str, Any]
    stopped_by: int | None


class NoMeshError(ValueError):
    """The trained method has no surface."""


def build_method(
    config: RendererConfig, views: Views, device: torch.device, seed: int
) -> TrainableMethod:
    """Build the untrained method that is configured; the global random generator stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config.kind:
            case "mlp":
                return MLPNeuS(config.mlp, views.trusted(), device)
            case "nerf":
                return NeRF(config.nerf, views.trusted(), device)
            case "grid":
                return GridNeuS(config.grid, views, device)


def reconstruct(
    image: Path, folder: Path, config: RendererConfig, options: ReconstructionOptions
) -> ReconstructionResult:
    """Reconstruct an object from a strip, or a folder, of views into `folder`.

    All files are written atomically, metrics.json last. Ctrl-C and SIGTERM end the training early:
    a checkpoint is written, and, depending on the options, the partial result is exported.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: the input, the folder or the checkpoint is
            unsuitable; see `check_folder`, `read_input` and `read_checkpoint` for subclasses.
        NoMeshError: the trained method has no surface.
        FloatingPointError: the training diverged.
        MemoryError: there is not enough memory.
    """
    began, times = time.monotonic(), StageTimes()
    check_folder(folder, options.resume, options.overwrite)
    with times.measure("masks"):
        views, digest = read_input(image, config, str(options.device), options.cameras)
    fingerprint = RunFingerprint(config.training_settings(), options.seed, digest)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / CHECKPOINT.parent, wait=False), _memory_errors(config):
        check_folder(folder, options.resume, options.overwrite)  # again, now that it is locked
        clear_temporary(folder)
        checkpoint = read_checkpoint(folder / CHECKPOINT, fingerprint) if options.resume else None
        options.progress("training", 0.0)
        with times.measure("initial shape"):
            method = build_method(config, views, options.device, options.seed)
        training = Training(method, options.seed)
        run = _Run(folder, config, options, views, fingerprint, training, began, times)
        if checkpoint is not None:
            run.restore(*checkpoint)
        elif options.overwrite:
            clear(folder)
        write_input(folder, views)
        with stop_on_signals() as stop:
            callbacks = (run.save, config.save_every, run.preview, config.log_every)
            step_done = lambda done, total: options.progress("training", done / total)  # noqa: E731
            with times.measure("training"):
                train(training, stop, *callbacks, step_done)
        if stop.signal is not None:
            done = f"stopped after {training.step} of {method.num_steps} steps"
            if not options.export_when_stopped:
                log.warning("%s", done)
                return ReconstructionResult({}, stop.signal)
            log.warning("%s; exporting the partial result", done)
        return ReconstructionResult(run.export(), stop.signal)


@dataclass
class _Run:
    """State of a reconstruction."""

    folder: Path
    config: RendererConfig
    options: ReconstructionOptions
    views: Views
    fingerprint: RunFingerprint
    training: Training
    began: float
    times: StageTimes

    def restore(self, state: dict[str, Any], seconds: float) -> None:
        path = self.folder / CHECKPOINT
        try:
            self.training.load_state(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: the checkpoint is damaged ({reason})") from error
        self.began -= seconds
        log.info("%s: resuming after step %d", path, self.training.step)

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def save(self) -> None:
        state = self.training.state()
        write_checkpoint(self.folder / CHECKPOINT, self.fingerprint, state, self.seconds())

    def preview(self, step: int) -> None:
        views, method = self.views, self.training.method
        index = math.ceil(step / self.config.log_every) * VIEW_STRIDE % len(views.images)
        rendered = render_view(method, views.cameras, index, views.size, self.options.device)
        write_preview(self.folder / PREVIEWS / f"{step}.jpg", rendered, views.size)

    def misfits(self) -> list[int]:
        """Warn about the views of the ring that do not fit view 0, and return their numbers."""
        views = self.views
        if views.masks is None or views.to_given is not None:
            return []
        found = list(find_misfits(views.images, views.masks))
        if found:
            log.warning(
                "views %s do not fit view 0: the object is off their middle, or has colours that "
                "view 0 lacks. The mesh shows what the outlines of all views share",
                ", ".join(map(str, found)),
            )
        return found

    def with_progress(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the frames of the video, and call `on_progress` after each."""
        for number, frame in enumerate(frames, start=1):
            yield frame
            self.options.progress("video", min(number / FRAMES, 1.0))

    def export(self) -> dict[str, Any]:
        """Write all results, and return the metrics."""
        views, method = self.views, self.training.method
        video, device = self.folder / "rendering.mp4", self.options.device
        record = self.folder / "metrics.json"
        record.unlink(missing_ok=True)  # only exists if all files are of one export
        if self.config.kind == "nerf":  # the field is the result; its mesh is a by-product
            log.info("writing %s", video)
            frames = field_frames(method, views.size, device)
            with self.times.measure("film"):
                write_video(video, self.with_progress(frames))
        self.options.progress("mesh", 0.0)
        log.info("extracting and texturing the mesh")
        try:
            matrix = views.to_given if self.options.keep_coordinates else None
            meshes = export_meshes(method, views, self.folder, self.config, self.times, matrix)
        except ValueError as error:
            raise NoMeshError(
                f"no mesh after {self.training.step} of {method.num_steps} steps ({error}): see "
                f"the previews in {self.folder / PREVIEWS}, and the masks in {self.folder}"
            ) from error
        if self.config.kind != "nerf":
            log.info("writing %s", video)
            frames = orbit_frames(meshes.textured, FRAMES, size=self.config.film_size)
            with self.times.measure("film"):
                write_video(video, self.with_progress(frames))
        metrics = {
            **measure_meshes(meshes, views),
            "field_psnr": measure_field(method, views, device),
            "seconds": round(self.seconds(), 1),
            "stage_seconds": {name: round(value, 1) for name, value in self.times.seconds.items()},
            "kind": self.config.kind,
            "preset": self.options.preset,
            "steps": self.training.step,
            "all_steps": method.num_steps,
            "seed": self.options.seed,
            "device": device_name(device),
            "replaced_masks": list(views.replaced),
            "misfits": self.misfits(),
        }
        log.info("seconds of this run: %s", self.times)
        if metrics["mask_iou"] is not None and metrics["mask_iou"] < POOR_IOU:
            log.warning(
                "the mesh fits the masks badly (IoU %.2f): parts of the object are thinner than a "
                "cell, or the views are not of one object from these cameras in order",
                metrics["mask_iou"],
            )
        if views.to_given is not None:
            kept = "given" if self.options.keep_coordinates else "own"
            coordinates = {"meshes": kept, "own_to_given": views.to_given.tolist()}
            _write_json(self.folder / COORDINATES, coordinates)
        _write_json(record, metrics)
        return metrics


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def summary(metrics: dict[str, Any]) -> str:
    """One line with the quality, the size and the run time of a reconstruction."""
    iou = "no masks" if metrics["mask_iou"] is None else f"mask IoU {metrics['mask_iou']:.3f}"
    closed = "closed" if metrics["watertight"] else "not closed"
    manifold = "manifold" if metrics["manifold"] else "not manifold"
    return (
        f"{metrics['seconds']:.0f} s, PSNR {metrics['psnr']:.2f} dB (field "
        f"{metrics['field_psnr']:.2f}), {iou}, {closed}, {manifold}, "
        f"{metrics['textured_faces']:,} faces"
    )


def device_name(device: torch.device) -> str:
    """Name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@contextmanager
def _memory_errors(config: RendererConfig) -> Iterator[None]:
    """Turn all errors about too little memory into MemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise MemoryError(
            f"not enough memory for kind {config.kind} with {config.section.rays} rays a step"
        ) from error
