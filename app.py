"""A web page that turns one image of an object into a 3D model.

    python app.py

serves http://127.0.0.1:7860, reachable from this machine only. A visitor uploads an image, corrects
the mask, and sees the progress of the 16 views and the mesh. Jobs of several visitors are queued.
Sessions are isolated from each other, and their files are deleted when the page is closed. It needs
Gradio (requirements/app.txt).
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
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
)

EXAMPLES = Path(__file__).parent / "testset"


def build_parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=SparseHelpFormatter)
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen at; 0.0.0.0 admits other machines: use a reverse proxy with TLS",
    )
    add("--port", type=int, default=7860, help="port to listen at; 0 takes a free one")
    add("--max_queue", type=int, default=20, help="waiting visitors; more are refused")
    add("--max_upload_mb", type=int, default=20, help="largest image file, MB")
    add("--examples", type=Path, default=EXAMPLES, help="folder of example images")
    backend = "segmentation of images without alpha"
    add("--backend", choices=BACKENDS, default="auto", help=backend)
    add(
        "--crop_size",
        type=crop_size,
        default="auto",
        help="length of the object's longer side, pixels of the 256-pixel input",
    )
    add(
        "--elevation",
        type=elevation,
        default="auto",
        help="initial setting of the page: elevation of the camera, degrees, or auto",
    )
    add(
        "--draft_steps",
        type=int,
        default=8,
        help="denoising steps of the drafts that estimate the elevation; at most those of a sample",
    )
    add_model_flags(parser)
    add(
        "-b",
        "--base",
        type=project_file,
        default="configs/neus.yaml",
        help="configuration of the reconstruction; --set applies to this file too",
    )
    add(
        "--preset",
        choices=["fast", "default", "best"],
        default="fast",
        help="speed and quality of the reconstruction",
    )
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; invalid values exit with status 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    check_limits(parser, args)
    limits = {
        "draft_steps": LIMITS["sample_steps"],
        "port": (0, 65535),
        "max_queue": (1, 10_000),
        "max_upload_mb": (1, 1000),
    }
    for name, (low, high) in limits.items():
        if not low <= getattr(args, name) <= high:
            parser.error(f"--{name} must be from {low} to {high}, got {getattr(args, name)}")
    choose_model(args)
    return args


def open_socket(host: str, port: int) -> socket.socket:
    """Call `webapp.server.listen`; its errors name the flags."""
    from webapp.server import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {error}") from error


def main(argv: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    args = parse(argv)
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the web page needs Gradio: pip install -r requirements/app.txt")
    from pipeline.config import read_config
    from pipeline.inputs import collect_images
    from webapp.server import Limits, serve
    from webapp.service import ELEVATIONS

    lowest, highest = ELEVATIONS
    if args.elevation != "auto" and not lowest <= args.elevation <= highest:
        raise ValueError(
            f"--elevation must be auto or from {lowest:g} to {highest:g}, got {args.elevation:g}"
        )
    config, view_generator = read_config(args)
    examples = [path for path, _ in collect_images([args.examples], Path())]
    with open_socket(args.host, args.port) as bound:  # before loading the weights, which is slow
        view_generator.model()
        serve(view_generator, config, examples, Limits(args.max_queue, args.max_upload_mb), bound)


if __name__ == "__main__":
    run_script(main)
