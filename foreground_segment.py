"""Cut the object out of a photo: write it as RGBA, alpha = the object's mask.

    python foreground_segment.py --input photo.jpg --output object.png

Colours and resolution stay; the background becomes transparent. The result is an input for
generate.py.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import HelpFormatter, add_common_flags, advise, run_script
from multiview.segmentation import BACKENDS

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the command-line parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--input", type=Path, required=True,
        help="image of any common kind; the result has the minimum of its alpha and the "
        "mask")  # fmt: skip
    add("--output", type=Path, required=True, help="PNG file to write; replaced if it exists")
    add("--backend", choices=BACKENDS, default="auto",
        help="auto is carvekit if it and its weights are installed, else u2net; white needs no "
        "network and is for plain white backgrounds")  # fmt: skip
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; exit 2 if they are invalid."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.output.suffix.lower() != ".png":
        parser.error(f"--output must be a .png file, which can hold alpha, got {args.output}")
    if args.output.is_dir():
        parser.error(f"--output {args.output} is a folder, expected the name of a .png file")
    if args.input.exists() and args.output.exists() and args.output.samefile(args.input):
        parser.error("--output is the --input, which is never overwritten")
    return args


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse(argv)
    from multiview import mask_check, matting
    from multiview.image_file import read_image
    from multiview.segmentation import open_segmenter

    image = read_image(args.input)
    segment = open_segmenter(args.backend, args.device)
    try:
        with advise("; try another --backend", matting.NoObjectError):
            found = matting.remove_background(image, segment, args.backend)
        found = mask_check.check_mask(found, args.input)
    except ValueError as error:
        raise ValueError(f"{args.input}: {error}") from error
    area = mask_check.mask_area(found)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    matting.save_rgba(args.output, found)
    log.info("%s written, the object covers %.1f %% of it", args.output, 100 * area)


if __name__ == "__main__":
    run_script(main)
