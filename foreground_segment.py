"""Cut the object out of a photo: write it as RGBA, alpha = the object's mask.

    python foreground_segment.py --input photo.jpg --output object.png

The colours are the input's, all of them, at full resolution; what is not the object is
transparent. generate.py takes the result.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from multiview.runtime import HelpFormatter, add_common_flags, atomic_write, run_script

log = logging.getLogger(__name__)

BACKENDS = ("auto", "u2net", "carvekit", "white")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--input", type=Path, required=True, help="image of any common kind; alpha that it has "
        "is kept where it is the smaller one")  # fmt: skip
    add("--output", type=Path, required=True, help="the .png to write; replaced if it is there")
    add("--backend", choices=BACKENDS, default="auto",
        help="what finds the object: auto is carvekit where it and its weights are installed, "
        "else u2net; white needs no network and is for plain white backgrounds")  # fmt: skip
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
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
    """Cut out the object as the command line asks for."""
    args = parse(argv)
    import numpy as np
    from PIL import Image

    from multiview.images import over_white, read_image
    from multiview.segmentation import open_segmenter, tidy_alpha

    image = read_image(args.input)
    pixels = np.asarray(image)
    segment = open_segmenter(args.backend, args.device)
    alpha = (tidy_alpha(segment(over_white(image))) * 255).round().astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = np.minimum(alpha, pixels[:, :, 3])
    share = np.mean(alpha >= 128)
    if share == 0:
        raise ValueError(
            f"{args.input}: no object was found in it; try another --backend than {args.backend}, "
            f"or a photo in which the object is larger and stands out from the background"
        )
    if share > 0.995:
        log.warning("%s: the mask covers the whole picture: was the object found?", args.input)

    args.output.parent.mkdir(parents=True, exist_ok=True)
    cut_out = Image.fromarray(np.dstack([pixels[:, :, :3], alpha]))
    profile = image.info.get("icc_profile") or b""
    with atomic_write(args.output) as temporary:
        cut_out.save(temporary, icc_profile=profile if profile[16:20] == b"RGB " else None)
    log.info("%s written, the object covers %.1f %% of it", args.output, 100 * share)


if __name__ == "__main__":
    run_script(main)
