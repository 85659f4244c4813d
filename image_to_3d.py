"""Make a 3D model of the object in one picture: cut it out, draw 16 views of it, reconstruct it.

    python image_to_3d.py photo.jpg -o output/photo

writes mesh.glb (textured), mesh.ply, rendering.mp4 and report.html, which shows all steps on one
page, and keeps what is between: object.png (cut out), framed.png, elevation.json, drafts/,
samples/, scores.json, best.png, best.gif (turning), reconstruction/.

A run that was stopped goes on where it was. A changed setting does its step anew, and those after
it; results of another picture are replaced only with --overwrite. A folder of pictures is worked
on with one model, each picture in a folder of its own; what fails is listed in failures.csv, and
the exit code is then 1.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import add_common_flags, run_script
from pipeline.cli_args import (
    LIMITS,
    SparseHelpFormatter,
    add_model_flags,
    check_limits,
    choose_model,
    crop_size,
    elevation,
)

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=SparseHelpFormatter)
    add = parser.add_argument
    add("input", type=Path, nargs="+",
        help="picture of an object, several, or a folder of them; alpha, where there is some, is "
        "the object's mask")  # fmt: skip
    add("-o", "--output", type=Path, required=True,
        help="folder of the results; with several pictures, of one folder each")  # fmt: skip
    add("--backend", choices=["auto", "u2net", "carvekit", "white"], default="auto",
        help="what finds the object in a picture without alpha; white is for plain white "
        "backgrounds, see foreground_segment.py")  # fmt: skip
    add("--crop_size", type=crop_size, default="auto",
        help="scale the object's longer side to this many of 256 pixels; auto chooses, as in "
        "renders to train on; -1 takes the picture as it is")  # fmt: skip
    add("--elevation", type=elevation, default="auto",
        help="degrees that the camera looked down, useful from -10 to 40; auto estimates them "
        "from drafts")  # fmt: skip
    add("--draft_steps", type=int, default=8,
        help="denoising steps of each of these drafts, at most those of a sample")  # fmt: skip
    add_model_flags(
        parser, "override the --cfg file (model.*, sampler.*) or the --base file (all else)"
    )
    add("-b", "--base", type=Path, default=Path("configs/neus.yaml"),
        help="configuration of the reconstruction")  # fmt: skip
    add("--preset", choices=["fast", "default", "best"], default="default",
        help="how much time the reconstruction may take")  # fmt: skip
    add("--overwrite", action="store_true", help="do every step anew, whatever is there")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_limits(parser, args)
    low, high = LIMITS["sample_steps"]
    if not low <= args.draft_steps <= high:
        parser.error(f"--draft_steps must be from {low} to {high}, got {args.draft_steps}")
    choose_model(args)
    if args.base == parser.get_default("base") and not args.base.exists():
        args.base = Path(__file__).parent / args.base  # found from any folder
    if not str(args.output).strip():
        parser.error("--output must not be empty")
    return args


def main(argv: list[str] | None = None) -> None:
    """Make the 3D models that the command line asks for."""
    args = parse(argv)
    from pipeline.batch import images_to_3d
    from pipeline.config import Context, read_config
    from pipeline.paths import FAILURES

    settings, view_generator = read_config(args)
    failed = images_to_3d(args.input, args.output, settings, Context(view_generator), args.debug)
    if failed:
        pictures = "1 picture" if len(failed) == 1 else f"{len(failed)} pictures"
        raise ValueError(f"{pictures} failed: see {args.output / FAILURES}")


if __name__ == "__main__":
    run_script(main)
