"""List, inspect and convert checkpoints.

    python -m ldm.checkpoint manifest --cfg configs/syncdreamer.yaml
    python -m ldm.checkpoint inspect ckpt/syncdreamer-pretrain.ckpt
    python -m ldm.checkpoint convert ckpt/syncdreamer-pretrain.ckpt ckpt/syncdreamer.safetensors

No code in a checkpoint is run, and its tensors are read from the file only as they are needed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from common.cli import project_file, run_script
from common.config import load_config
from demo.model import choose_model_class
from ldm.checkpoint.load import DTYPES, convert, inspect, manifest
from ldm.config import GenerateConfig

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the three commands."""
    parser = argparse.ArgumentParser(
        prog="python -m ldm.checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    default_cfg = Path("configs/syncdreamer.yaml")

    listing = commands.add_parser("manifest", help="print the name, shape and type of every tensor")
    listing.add_argument("--cfg", type=Path, default=default_cfg, help="sizes of the model")
    inspection = commands.add_parser("inspect", help="describe a file and compare it with a model")
    inspection.add_argument("file", type=Path)
    inspection.add_argument("--cfg", type=Path, default=default_cfg, help="sizes to compare with")
    conversion = commands.add_parser("convert", help="write the tensors as a safetensors file")
    conversion.add_argument("source", type=Path)
    conversion.add_argument("target", type=Path)
    conversion.add_argument(
        "--dtype", choices=DTYPES, help="type of the weights (default: unchanged)"
    )
    for command in (listing, inspection, conversion):
        command.add_argument("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one of the commands."""
    args = build_parser().parse_args(argv)
    if args.command == "convert":
        convert(args.source, args.target, DTYPES.get(args.dtype))
        log.info("wrote %s", args.target)
        return
    config = load_config(GenerateConfig, project_file(args.cfg)).model
    model_class = choose_model_class(config)
    if args.command == "manifest":
        sys.stdout.write("".join(f"{line}\n" for line in manifest(config, model_class)))
    else:
        sys.stdout.write(inspect(args.file, config, model_class) + "\n")


if __name__ == "__main__":
    run_script(main)
