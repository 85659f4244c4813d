"""A web page that makes a 3D model of the object in a picture.

    python app.py

opens http://127.0.0.1:7860 to this machine only. A visitor sends a picture, adjusts the mask, and
sees the 16 views sharpen and the mesh turn. Visitors wait in a queue; nobody sees what others sent,
and their files are removed when they leave. It needs requirements/app.txt.
"""

from __future__ import annotations

import argparse
import importlib.util
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

EXAMPLES = Path(__file__).parent / "testset"


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=SparseHelpFormatter)
    add = parser.add_argument
    add("--host", default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets other machines in, put a web server with TLS "
        "before it then")  # fmt: skip
    add("--port", type=int, default=7860, help="of the address; 0 takes a free one")
    add("--max_queue", type=int, default=20, help="visitors that may wait; more are sent away")
    add("--max_upload_mb", type=int, default=20, help="largest picture file, MB")
    add("--examples", type=Path, default=EXAMPLES, help="folder of pictures to pick from")
    add("--backend", choices=["auto", "u2net", "carvekit", "white"], default="auto",
        help="what finds the object in a picture without alpha")  # fmt: skip
    add("--crop_size", type=crop_size, default="auto",
        help="scale the object's longer side to this many of 256 pixels")  # fmt: skip
    add("--elevation", type=elevation, default="auto",
        help="what the page begins with: degrees that the camera looked down, or auto")  # fmt: skip
    add("--draft_steps", type=int, default=8,
        help="denoising steps of an estimate's drafts, at most those of a sample")  # fmt: skip
    add_model_flags(parser)
    add("-b", "--base", type=Path, default=Path("configs/neus.yaml"),
        help="configuration of the reconstruction; --set is for this file too")  # fmt: skip
    add("--preset", choices=["fast", "default", "best"], default="fast",
        help="how much time a reconstruction may take")  # fmt: skip
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_limits(parser, args)
    limits = {"draft_steps": LIMITS["sample_steps"], "port": (0, 65535),
              "max_queue": (1, 10_000), "max_upload_mb": (1, 1000)}  # fmt: skip
    for name, (low, high) in limits.items():
        if not low <= getattr(args, name) <= high:
            parser.error(f"--{name} must be from {low} to {high}, got {getattr(args, name)}")
    choose_model(args)
    if args.base == parser.get_default("base") and not args.base.exists():
        args.base = Path(__file__).parent / args.base  # found from any folder
    return args


def main(argv: list[str] | None = None) -> None:
    """Open the page as the command line asks for."""
    args = parse(argv)
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the web page needs gradio: pip install -r requirements/app.txt")
    from pipeline.sample_store import collect_inputs
    from pipeline.settings import read_settings
    from webapp.server import Limits, listen, serve
    from webapp.service import ELEVATIONS

    lowest, highest = ELEVATIONS
    if args.elevation != "auto" and not lowest <= args.elevation <= highest:
        raise ValueError(
            f"--elevation must be auto or from {lowest:g} to {highest:g} for the page, got "
            f"{args.elevation:g}"
        )
    settings, drawer = read_settings(args)
    examples = [source.path for source in collect_inputs([args.examples], [0.0], Path())]
    with listen(args.host, args.port) as opened:  # before the weights, which take long
        drawer.model()
        serve(drawer, settings, examples, Limits(args.max_queue, args.max_upload_mb), opened)


if __name__ == "__main__":
    run_script(main)
