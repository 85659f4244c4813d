"""Command that downloads the small U2-Net: `python -m multiview.segmentation`."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import run_script
from multiview.segmentation.u2net import WEIGHTS_FOLDER, fetch_u2netp


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m multiview.segmentation",
        description="Download U2-Net's weights for foreground_segment.py.",
    )
    parser.add_argument("--out", type=Path, default=WEIGHTS_FOLDER / "u2netp.onnx")
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Download the small network."""
    fetch_u2netp(build_parser().parse_args(argv).out)


if __name__ == "__main__":
    run_script(main)
