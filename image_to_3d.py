"""Reconstruct the object in one image: segment it, generate 16 views, reconstruct a mesh.

    python image_to_3d.py photo.jpg -o output/photo

writes mesh.glb (textured), mesh.ply, rendering.mp4 and report.html, which shows all steps. The
intermediate files are kept: object.png (segmented), framed.png, elevation.json, drafts/, samples/,
scores.json, best.png, best.gif (animated), reconstruction/.

A stopped run resumes. A changed setting redoes its step and those after it; results of another
image are replaced only with --overwrite. A folder of images is processed with one model, each image
in its own folder; failures are listed in failures.csv, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import add_common_flags, project_file, run_script
from multiview.segmentation import BACKENDS
from pipeline.cli_args import (
    LIMITS,
    SparseHelpFormatter,
    add_model_flags,
    check_limits,
    choose_model,
    crop_size,
    elevation,
    flag_advice,
    with_advice,
)

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=SparseHelpFormatter)
    add = parser.add_argument
    add("input", type=Path, nargs="+",
        help="image of an object, several, or a folder of them; alpha, if any, is the object's "
        "mask")  # fmt: skip
    add("-o", "--output", type=Path, required=True,
        help="folder of the results; several images get a folder each inside it")  # fmt: skip
    add("--backend", choices=BACKENDS, default="auto",
        help="segmentation of images without alpha; white is for plain white backgrounds, see "
        "foreground_segment.py")  # fmt: skip
    add("--crop_size", type=crop_size, default="auto",
        help="scale the object's longer side to this many of 256 pixels; auto chooses, as in "
        "renders to train on; -1 keeps the whole image")  # fmt: skip
    add("--elevation", type=elevation, default="auto",
        help="degrees that the camera looks down, useful from -10 to 40; auto estimates it from "
        "drafts")  # fmt: skip
    add("--draft_steps", type=int, default=8,
        help="denoising steps of these drafts, at most those of a sample")  # fmt: skip
    add_model_flags(
        parser, "override the --cfg file (model.*, sampler.*) or the --base file (all else)"
    )
    add("-b", "--base", type=project_file, default="configs/neus.yaml",
        help="configuration of the reconstruction")  # fmt: skip
    add("--preset", choices=["fast", "default", "best"], default="default",
        help="time and quality of the reconstruction")  # fmt: skip
    add("--overwrite", action="store_true", help="redo every step")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; exit with 2 on invalid ones."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_limits(parser, args)
    low, high = LIMITS["sample_steps"]
    if not low <= args.draft_steps <= high:
        parser.error(f"--draft_steps must be from {low} to {high}, got {args.draft_steps}")
    choose_model(args)
    if not str(args.output).strip():
        parser.error("--output must not be empty")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse(argv)
    from pipeline.batch import images_to_3d
    from pipeline.config import Context, read_config
    from pipeline.paths import FAILURES

    config, view_generator = read_config(args)
    with flag_advice():
        failed = images_to_3d(
            args.input, args.output, config, Context(view_generator), args.debug, with_advice
        )
    if failed:
        images = "1 image" if len(failed) == 1 else f"{len(failed)} images"
        raise ValueError(f"{images} failed: see {args.output / FAILURES}")


if __name__ == "__main__":
    run_script(main)
