"""Generate 16 multiview-consistent images of the object in one image.

    python generate.py --ckpt ckpt/syncdreamer-pretrain.ckpt --input testset/locomotive.png \
        --output output/locomotive --elevation 20 --crop_size 200

writes output/locomotive/0.png .. 3.png, four samples of 16 views side by side: azimuth 0 (the
input's) to 337.5 degrees in steps of 22.5, all at elevation 30.

Without --ckpt the published checkpoint is used if it is in ckpt/ (python -m ldm.download fetches
it), else the bundled small model.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import HelpFormatter, add_common_flags, run_script
from pipeline import cli_args

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser without importing torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    cli_args.add_model_flags(parser)
    add("--input", type=Path, nargs="+", required=True,
        help="RGBA image (alpha = object), several, or a folder of them")  # fmt: skip
    add("--output", type=Path, required=True,
        help="folder of the results; with several inputs, of one folder an input")  # fmt: skip
    add("--elevation", type=cli_args.elevation, nargs="+", required=True,
        help="degrees that the input's camera looks down, useful from -10 to 40, or auto to "
        "estimate it from six drafts of the views; one for all inputs or one for each (a folder's "
        "by name)")  # fmt: skip
    add("--keep", choices=["all", "best"],
        help="rank the samples of each input by the consistency of their views, write "
        "scores.json, and keep all samples or only the best (the others are removed; their "
        "records stay, so that a second run does not repeat them)")  # fmt: skip
    add("--crop_size", type=cli_args.crop_size, default=-1,
        help="scale the object's longer side to this many of 256 pixels (try 200, else 180 or "
        "150); auto chooses, as in renders to train on; -1 keeps the whole image")  # fmt: skip
    add("--preset", choices=["fast", "default", "published"], default="published",
        help="sampler that the configuration has for fewer steps, or the published one; flags of "
        "the sampler go before it")  # fmt: skip
    saved = "write <k>/000.png .. 015.png and their cameras, <k>/transforms.json, too"
    add("--save_views", action="store_true", help=saved)
    formats, colmap = ["transforms", "colmap"], "colmap: --save_views writes <k>/sparse/0 too"
    add("--cameras", choices=formats, default="transforms", help=colmap)
    add("--preview", action="store_true", help="write the animation <k>.gif too")
    add("--overwrite", action="store_true",
        help="generate all samples again, replacing existing ones")  # fmt: skip
    cli_args.add_compile_flag(parser)
    cli_args.add_worker_flags(parser)
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags, exit with 2 on invalid ones; warn of unusual values."""
    parser = build_parser()
    args = cli_args.parse_flags(parser, argv)
    if args.cameras == "colmap" and not args.save_views:
        parser.error("--cameras is for --save_views, which is not given")
    for degrees in args.elevation:
        if degrees != "auto" and not -10 <= degrees <= 40:
            log.warning("elevation %g is outside [-10, 40], the range of the training", degrees)
    if args.cfg_scale is not None and args.cfg_scale < 1:
        effect = "weakened" if args.cfg_scale > 0 else "inverted" if args.cfg_scale else "ignored"
        log.warning("guidance %g is below 1: the input is %s", args.cfg_scale, effect)
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse(argv)
    if args.engine == "ray" or args.gpus or args.workers:
        from pipeline.batch import make_strips, run_batch

        with cli_args.flag_advice():
            run_batch(args, make_strips, args.elevation)
        return
    from pipeline.generate import generate, read_options

    options, view_generator = read_options(args)
    with cli_args.flag_advice():
        generate(args.input, args.elevation, options, view_generator)


if __name__ == "__main__":
    run_script(main)
