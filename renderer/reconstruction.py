"""One reconstruction from beginning to end: views in, meshes and a video out."""

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
from renderer.checkpoint import ANEW, Identity, read_checkpoint, write_checkpoint
from renderer.config import Preset, RendererConfig
from renderer.export import (
    FRAMES,
    export_meshes,
    field_frames,
    measure_field,
    measure_meshes,
    render_view,
    write_picture,
)
from renderer.methods.base import Views
from renderer.methods.nerf import NeRF
from renderer.methods.neus_grid import GridNeuS
from renderer.methods.neus_mlp import MLPNeuS
from renderer.output_dir import CHECKPOINT, PICTURES, check_folder, clear, clear_temporary
from renderer.trainer import TrainableMethod, Training, train
from renderer.video import orbit_frames, write_video
from renderer.views import Input, read_input, write_input

log = logging.getLogger(__name__)

_NO_MEMORY = re.compile("out of memory|DefaultCPUAllocator: (can't allocate|not enough memory)")
"""What torch's errors say; only those of a GPU have a class of their own."""
POOR_IOU = 0.7
"""Of the mesh's silhouettes with the masks; less is worth a warning."""
VIEW_STRIDE = 5
"""Pictures while training show every view in turn, neighbours in time from far apart."""


@dataclass(frozen=True)
class Options:
    """What is not part of the configuration.

    Attributes:
        seed: of all random numbers.
        device: to compute on.
        preset: for the record only; the configuration holds what it says.
        resume: go on from the folder's checkpoint.
        overwrite: replace the reconstruction that is in the folder.
        export_when_stopped: write the results of what has been trained when a signal ends the
            training early; else only its checkpoint.
        report: told what is being done and which share of it is done, 0 to 1, at every step of the
            training and every frame of the video; what it raises ends the reconstruction.
    """

    seed: int
    device: torch.device
    preset: Preset = "default"
    resume: bool = False
    overwrite: bool = False
    export_when_stopped: bool = True
    report: Callable[[str, float], None] | None = None

    def tell(self, what: str, share: float) -> None:
        """Call `report`, if there is one."""
        if self.report is not None:
            self.report(what, share)


@dataclass(frozen=True)
class Outcome:
    """How a reconstruction ended.

    Attributes:
        metrics: what metrics.json says; empty where no results were written.
        stopped_by: number of the signal that ended the training early; None for a whole run.
    """

    metrics: dict[str, Any]
    stopped_by: int | None


def build_method(
    config: RendererConfig, views: Views, device: torch.device, seed: int
) -> TrainableMethod:
    """Make the untrained method that the configuration chooses.

    Args:
        config: of all kinds.
        views: to be explained.
        device: to compute on.
        seed: of the numbers that it starts from; the global random numbers are left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config.kind:
            case "mlp":
                return MLPNeuS(config.mlp, views.trusted(), device)
            case "nerf":
                return NeRF(config.nerf, views.trusted(), device)
            case "grid":
                return GridNeuS(config.grid, views, device)


def reconstruct(image: Path, folder: Path, config: RendererConfig, options: Options) -> Outcome:
    """Reconstruct the object of 16 views.

    All files appear whole; metrics.json is the last one. A run that is stopped early, by Ctrl-C or
    SIGTERM, writes its checkpoint and then all results of what has been trained so far, if the
    options do not leave them out.

    Args:
        image: a strip of 16 views, or a folder of them.
        folder: of the results; made if it is not there.
        config: what to do.
        options: how to do it.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: the input, the folder or the checkpoint do
            not fit; says what to do.
        FloatingPointError: the training broke down.
        MemoryError: says how to need less.
    """
    began = time.monotonic()
    check_folder(folder, options.resume, options.overwrite)
    given = read_input(image, config, str(options.device))
    identity = Identity(config.settings(), options.seed, given.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / CHECKPOINT.parent, wait=False), _advice_on_memory(config):
        check_folder(folder, options.resume, options.overwrite)  # again, now that it is ours
        clear_temporary(folder)
        former = read_checkpoint(folder / CHECKPOINT, identity) if options.resume else None
        options.tell("training", 0.0)
        method = build_method(config, given.views, options.device, options.seed)
        run = _Run(folder, config, options, given, identity, Training(method, options.seed), began)
        if former is not None:
            run.go_on_from(*former)
        elif options.overwrite:
            clear(folder)
        write_input(folder, given.views)
        with stop_on_signals() as stop:
            train(
                run.training, stop, run.save, config.save_every, run.draw, config.log_every,
                lambda done, total: options.tell("training", done / total),
            )  # fmt: skip
        if stop.signal is not None:
            done = f"stopped after {run.training.step} of {method.num_steps} steps"
            if not options.export_when_stopped:
                log.warning("%s", done)
                return Outcome({}, stop.signal)
            log.warning("%s; writing the results as they are (--resume goes on)", done)
        return Outcome(run.export(), stop.signal)


@dataclass
class _Run:
    """A reconstruction under way."""

    folder: Path
    config: RendererConfig
    options: Options
    given: Input
    identity: Identity
    training: Training
    began: float

    def go_on_from(self, state: dict[str, Any], seconds: float) -> None:
        path = self.folder / CHECKPOINT
        try:
            self.training.load_state(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{path}: the checkpoint is damaged ({reason}); {ANEW}") from error
        self.began -= seconds
        log.info("%s: going on after step %d", path, self.training.step)

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def save(self) -> None:
        state = self.training.state()
        write_checkpoint(self.folder / CHECKPOINT, self.identity, state, self.seconds())

    def draw(self, step: int) -> None:
        views, method = self.given.views, self.training.method
        index = math.ceil(step / self.config.log_every) * VIEW_STRIDE % len(views.images)
        picture = render_view(
            method,
            views.cameras,
            index,
            views.size,
            self.config.section.pixel_offset,
            self.options.device,
        )
        write_picture(self.folder / PICTURES / f"{step}.jpg", picture, views.size)

    def told(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Tell of every frame of the video."""
        for number, frame in enumerate(frames, start=1):
            yield frame
            self.options.tell("video", min(number / FRAMES, 1.0))

    def export(self) -> dict[str, Any]:
        """Write all results and return the metrics."""
        views, method, offset = (
            self.given.views,
            self.training.method,
            self.config.section.pixel_offset,
        )
        video, device = self.folder / "rendering.mp4", self.options.device
        record = self.folder / "metrics.json"
        record.unlink(missing_ok=True)  # of a former export: as long as it is not there, files mix
        if self.config.kind == "nerf":  # the field is the result; its mesh is a by-product
            log.info("writing %s", video)
            write_video(video, self.told(field_frames(method, views.size, offset, device)))
        self.options.tell("mesh", 0.0)
        log.info("making the mesh and its texture")
        try:
            meshes = export_meshes(method, views, self.folder)
        except ValueError as error:
            raise ValueError(
                f"no mesh can be made of what was found in {self.training.step} steps ({error}): "
                f"see {self.folder / PICTURES}, and the masks beside it. A run that was stopped "
                f"too early goes on with --resume"
            ) from error
        if self.config.kind != "nerf":
            log.info("writing %s", video)
            write_video(video, self.told(orbit_frames(meshes.textured, FRAMES, size=views.size)))
        metrics = {
            **measure_meshes(meshes, views),
            "field_psnr": measure_field(method, views, offset, device),
            "seconds": round(self.seconds(), 1),
            "kind": self.config.kind,
            "preset": self.options.preset,
            "steps": self.training.step,
            "all_steps": method.num_steps,
            "seed": self.options.seed,
            "device": device_name(device),
            "replaced_masks": list(views.replaced),
        }
        if metrics["mask_iou"] is not None and metrics["mask_iou"] < POOR_IOU:
            log.warning(
                "the mesh covers the masks badly (IoU %.2f): parts thinner than a cell are lost "
                "(--preset best has smaller ones), or the views are not of one object seen by the "
                "16 cameras in their order",
                metrics["mask_iou"],
            )
        with atomic_write(record) as temporary:
            temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        return metrics


def summary(metrics: dict[str, Any]) -> str:
    """One line on how good a reconstruction is, and what it took."""
    iou = "no masks" if metrics["mask_iou"] is None else f"mask IoU {metrics['mask_iou']:.3f}"
    closed = "closed" if metrics["watertight"] else "not closed"
    return (
        f"{metrics['seconds']:.0f} s, PSNR {metrics['psnr']:.2f} dB (field "
        f"{metrics['field_psnr']:.2f}), {iou}, {metrics['faces']} faces, {closed}"
    )


def device_name(device: torch.device) -> str:
    """What computed: "cpu", or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@contextmanager
def _advice_on_memory(config: RendererConfig) -> Iterator[None]:
    """Say what to do when the memory does not suffice.

    Raises:
        MemoryError: instead of all the errors that say so.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise MemoryError(
            f"not enough memory: take fewer rays a step, for example --set "
            f"{config.kind}.rays={max(1, config.section.rays // 2)}, or --preset fast"
        ) from error
