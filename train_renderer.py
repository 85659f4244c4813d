"""Reconstruct an object from its views: a mesh, a textured mesh and a video of a full turn.

    python train_renderer.py -i output/locomotive/0.png -n locomotive -b configs/neus.yaml

writes into output/renderer/locomotive: mesh.ply (vertex colours), mesh.glb (textured),
rendering.mp4, metrics.json; input-<k>.png and masked-<k>.png, the views and their masks;
images/<step>.jpg and ckpt/last.ckpt during training; coordinates.json, with --cameras. --export
adds other formats.

Ctrl-C (or SIGTERM) ends the training early: the partial result is exported, and --resume
continues. The exit code is then 130 (143), so that a chain of commands does not continue with a
partial result. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import argparse
import errno
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import SEED, HelpFormatter, add_common_flags, project_file, run_script
from common.devices import pick_device
from common.files import check_file_name
from renderer.formats.options import add_export_flags, export_options, face_override

if TYPE_CHECKING:
    from renderer.config import RendererConfig
    from renderer.reconstruction import ReconstructionResult

log = logging.getLogger(__name__)

DEFAULT_GPUS = "0,"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def input_path(text: str) -> Path:
    """Path of the views, or of their cameras; an empty text would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    views = "strip of 16 views, or a folder 000.png .. 015.png; their alpha, if any, is the mask"
    add("-i", "--image_path", type=input_path, required=True, help=views)
    cameras = "transforms.json, or folder of a COLMAP model, of 3 to 200 images in the folder -i"
    add("--cameras", type=input_path, help=cameras)
    keep = "write the meshes in the coordinates of --cameras"
    add("--keep_coordinates", action="store_true", help=keep)
    add("-n", "--name", required=True, help="of the results' folder, inside --log")
    add("-b", "--base", type=project_file, default="configs/neus.yaml", help="configuration file")
    add("-l", "--log", type=Path, default=Path("output/renderer"), help="folder of all results")
    add("-s", "--seed", type=int, default=SEED, help="of all random numbers")
    add("-g", "--gpus", default=DEFAULT_GPUS, help="list; the first GPU is used (CUDA only)")
    add("-r", "--resume", action="store_true", help="continue from the folder's ckpt/last.ckpt")
    add("--fp16", action="store_true", help="half precision, if the method has it (CUDA only)")
    presets = ["fast", "default", "best"]
    add("--preset", choices=presets, default="default", help="trade-off of time and quality")
    texture, film = "pixels a side of the texture (default: 1024)", "and of the film (default: 512)"
    add("--texture_size", type=int, choices=[512, 1024, 2048, 4096], help=texture)
    add("--film_size", type=int, choices=[512, 720], help=film)
    add("--overwrite", action="store_true", help="replace the results in the folder")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --base file")
    add_export_flags(parser)
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 if they are wrong)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.resume and args.overwrite:
        parser.error("--resume continues the run in the folder, --overwrite removes it: choose one")
    if args.keep_coordinates and args.cameras is None:
        parser.error("--keep_coordinates is for the coordinates of --cameras, which is not given")
    if not 0 <= args.seed < 2**63:
        parser.error(f"--seed must be from 0 to 2^63 - 1, got {args.seed}")
    if not re.fullmatch(r"\d+(,\d*)*", args.gpus):
        parser.error(f"--gpus is a list of numbers such as 0, or 0,1: got {args.gpus!r}")
    try:
        check_file_name(args.name)
    except ValueError as error:
        parser.error(f"--name {error}")
    return args


def choose_device(device: str, gpus: str) -> str:
    """Return --device if it is given, else the first of --gpus, or "auto" without CUDA."""
    if device != "auto":
        return device
    import torch

    if not torch.cuda.is_available():
        if gpus != DEFAULT_GPUS:
            log.warning("no CUDA device found: --gpus %s has no effect", gpus)
        return "auto"
    first, *others = [number for number in gpus.split(",") if number]
    if others:
        log.warning("only one GPU is used, number %s", first)
    return f"cuda:{first}"


@contextmanager
def flag_advice(folder: Path, config: RendererConfig) -> Iterator[None]:
    """Add to the errors of a reconstruction into `folder` which flag helps."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if (advice := _advice(error, folder, config)) is None:
            raise
        raise type(error)(f"{error}; {advice}") from error


def _advice(error: Exception, folder: Path, config: RendererConfig) -> str | None:
    from renderer.checkpoint import CheckpointError, CheckpointMismatchError, NoCheckpointError
    from renderer.output_dir import CHECKPOINT, own_files
    from renderer.reconstruction import NoMeshError
    from renderer.views import MaskError

    resumable = (folder / CHECKPOINT).is_file()
    resume = "continue it with --resume, " if resumable else ""
    restart = "start over with --overwrite"
    if resumable or not any(own_files(folder)):
        restart = "continue with --resume" if resumable else "run the same command again"
    fewer_rays = f"--set {config.kind}.rays={max(1, config.section.rays // 2)}"
    if isinstance(error, OSError) and getattr(error.__cause__, "errno", None) in _DISK_FULL:
        return f"free some space, then {restart}"
    advice = {
        NoCheckpointError: "start without --resume, or with --overwrite if there are results",
        CheckpointError: "start over with --overwrite",
        CheckpointMismatchError: "resume with the same flags and views, start over with "
        "--overwrite, or choose another --name",
        FileExistsError: f"{resume}replace it with --overwrite, or choose another --name",
        MaskError: _mask_advice(getattr(error, "segmenter", None)),
        NoMeshError: "a run that was stopped too early continues with --resume",
        FloatingPointError: "try another --seed, or smaller learning rates",
        MemoryError: f"use fewer rays, for example {fewer_rays}, or --preset fast",
    }
    return next((text for kind, text in advice.items() if isinstance(error, kind)), None)


def _mask_advice(segmenter: str | None) -> str:
    """Advice where the given segmenter, or the views' own alpha, found no object."""
    from multiview.segmentation import BACKENDS

    no_masks = "use no masks (--set use_mask=false)"
    if segmenter is None:
        return f"give views with a better alpha, or {no_masks}"
    *most, last = [name for name in BACKENDS if name not in ("auto", segmenter)]
    others = f"--set segmenter={', '.join(most)} or {last}"
    return f"give RGBA views (alpha = object), choose another segmenter ({others}), or {no_masks}"


def log_hints(result: ReconstructionResult, preset: str) -> None:
    """Log which flags could improve a result."""
    from renderer.reconstruction import POOR_IOU

    if result.metrics["replaced_masks"]:
        log.info("some masks were replaced: --set repair_masks=false keeps them")
    iou = result.metrics["mask_iou"]
    if iou is not None and iou < POOR_IOU and preset != "best":
        log.info("--preset best has smaller cells, for thinner parts")
    if result.stopped_by is not None:
        log.info("--resume continues the training")


def main(argv: list[str] | None = None) -> None:
    """Run the reconstruction that the command line describes."""
    args = parse(argv)
    from renderer.config import load_renderer_config
    from renderer.formats.convert import export_formats
    from renderer.reconstruction import ReconstructionOptions, reconstruct, summary

    device = pick_device(choose_device(args.device, args.gpus))
    if args.fp16 and device.type != "cuda":
        log.warning("--fp16 has no effect on %s: half precision is for CUDA", device.type)
    names = ("texture_size", "film_size")
    sizes = [f"{name}={getattr(args, name)}" for name in names if getattr(args, name)]
    changes = [*args.set, *sizes, *face_override(args)]
    config = load_renderer_config(args.base, args.preset, changes, half=args.fp16)
    given = (args.resume, args.overwrite, args.cameras, args.keep_coordinates)
    options = ReconstructionOptions(args.seed, device, args.preset, *given)
    folder = args.log / args.name
    with flag_advice(folder, config):
        result = reconstruct(args.image_path, folder, config, options)
    log.info("%s: %s", folder, summary(result.metrics))
    log_hints(result, args.preset)
    export_formats(folder / "mesh.glb", folder, export_options(args))
    if result.stopped_by is not None:
        sys.exit(128 + result.stopped_by)


if __name__ == "__main__":
    run_script(main)
