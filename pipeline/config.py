"""Settings of `image_to_3d.py` and `app.py`, and the resources that all images share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch

from common.config import load_config
from common.devices import pick_device
from ldm.config import GenerateConfig, SamplerConfig
from ldm.sampling.config import change_sampler
from multiview.images import CropSize
from multiview.segmentation import Backend, Segmenter
from pipeline.cli_args import given_sampler
from pipeline.selection.elevation import ElevationConfig
from pipeline.selection.elevation_drafts import draft_sampler
from pipeline.view_generator import SyncDreamerGenerator, ViewGenerator
from renderer.config import Preset, RendererConfig, load_renderer_config
from renderer.formats.options import ExportOptions, export_options, face_override


@dataclass(frozen=True)
class PipelineConfig:
    """Settings of the steps from an image to a mesh, as the flags of `image_to_3d.py` set them.

    `seed` is that of sample 0, the drafts and the reconstruction; sample k has seed + k. `device`
    is for the segmentation and the reconstruction; `preset` names the settings in `renderer`.
    """

    backend: Backend
    crop_size: CropSize
    elevation: float | Literal["auto"]
    draft_steps: int
    num_samples: int
    seed: int
    sampler: SamplerConfig
    renderer: RendererConfig
    preset: Preset
    device: torch.device
    overwrite: bool = False
    elevations: ElevationConfig = field(default_factory=ElevationConfig)
    export: ExportOptions = field(default_factory=ExportOptions)


@dataclass
class Context:
    """Resources shared by all images.

    `segmenter` is opened for the first image without a mask; `on_progress` of the reconstruction is
    described in `renderer.reconstruction.ReconstructionOptions`.
    """

    view_generator: ViewGenerator
    segmenter: Segmenter | None = None
    on_progress: Callable[[str, float], None] | None = None


def split_overrides(
    overrides: Sequence[str], of_model: Collection[str], of_renderer: Collection[str]
) -> tuple[list[str], list[str]]:
    """Assign each key=value to the model's file or the renderer's by the first word of its key.

    Raises:
        ValueError: neither file has such a key, or there is no value.
    """
    chosen: tuple[list[str], list[str]] = ([], [])
    for text in overrides:
        key, given, _ = text.partition("=")
        first = key.partition(".")[0]
        if not given or first not in {*of_model, *of_renderer}:
            raise ValueError(
                f"--set {text}: expected <key>=<value>, the key beginning with "
                f"{', '.join(of_model)} (of --cfg), or {', '.join(of_renderer)} (of --base)"
            )
        chosen[first not in of_model].append(text)
    return chosen


def read_config(args: argparse.Namespace) -> tuple[PipelineConfig, SyncDreamerGenerator]:
    """Settings and view generator that checked flags ask for; the weights are not read yet.

    Raises:
        FileNotFoundError, ValueError: see `load_config`, `split_overrides` and `pick_device`.
    """
    keys = ([item.name for item in fields(kind)] for kind in (GenerateConfig, RendererConfig))
    of_model, of_base = split_overrides(args.set, *keys)
    device = pick_device(args.device)
    config = load_config(GenerateConfig, args.cfg, of_model)
    sampler = change_sampler(config.sampler, given_sampler(args))
    draft_sampler(sampler, args.draft_steps)  # raises what is wrong with it
    exports = hasattr(args, "export")  # the page has no such flags
    of_base += face_override(args) if exports else []
    pipeline = PipelineConfig(
        backend=args.backend,
        crop_size=args.crop_size,
        elevation=args.elevation,
        draft_steps=args.draft_steps,
        num_samples=args.sample_num,
        seed=args.seed,
        sampler=sampler,
        renderer=load_renderer_config(args.base, args.preset, of_base),
        preset=args.preset,
        device=device,
        overwrite=getattr(args, "overwrite", False),
        export=export_options(args) if exports else ExportOptions(),
    )
    compile_networks = getattr(args, "compile", False)
    return pipeline, SyncDreamerGenerator(
        config.model, args.ckpt, device, args.dtype, args.batch_view_num, compile_networks
    )
