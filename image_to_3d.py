"""Reconstruct the object in one image: segment it, generate 16 views, reconstruct a mesh.

    python image_to_3d.py photo.jpg -o output/photo

writes mesh.glb (textured), mesh.ply, rendering.mp4 and report.html, which shows all steps; --export
adds other formats. The intermediate files are kept: object.png (segmented), framed.png,
elevation.json, drafts/, samples/, scores.json, best.png, best.gif (animated), reconstruction/.

A stopped run resumes. A changed setting redoes its step and those after it; results of another
image are replaced only with --overwrite. A folder of images is processed with one model, each image
in its own folder; failures are listed in failures.csv, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import HelpFormatter, add_common_flags, run_script
from pipeline.cli_args import (
    add_compile_flag,
    add_pipeline_flags,
    add_worker_flags,
    flag_advice,
    parse_flags,
)
from renderer.formats.options import add_export_flags


def build_parser() -> argparse.ArgumentParser:
    """Build the parser without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("input", type=Path, nargs="+",
        help="image of an object, several, or a folder of them; alpha, if any, is the object's "
        "mask")  # fmt: skip
    add("-o", "--output", type=Path, required=True,
        help="folder of the results; several images get a folder each inside it")  # fmt: skip
    add_pipeline_flags(parser, "default")
    add("--overwrite", action="store_true", help="redo every step")
    add_compile_flag(parser)
    add_worker_flags(parser)
    add_export_flags(parser)
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; exit with 2 on invalid ones."""
    parser = build_parser()
    args = parse_flags(parser, argv)
    if not str(args.output).strip():
        parser.error("--output must not be empty")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse(argv)
    from pipeline.batch import make_meshes, run_batch

    with flag_advice():
        run_batch(args, make_meshes, [args.elevation])


if __name__ == "__main__":
    run_script(main)
