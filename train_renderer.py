"""Reconstruct the object of 16 views: a mesh, a textured mesh and a video of a full turn.

    python train_renderer.py -i output/locomotive/0.png -n locomotive -b configs/neus.yaml

writes into output/renderer/locomotive: mesh.ply (colours of its vertices), mesh.glb (textured),
rendering.mp4, metrics.json; input-<k>.png and masked-<k>.png, the views as they are used;
images/<step>.jpg and ckpt/last.ckpt while training.

Ctrl-C (or SIGTERM) ends the training early: the results of what has been trained are still
written, and --resume goes on. The exit code is then 130 (143), so that a chain of commands does not
go on with a result that is not what was asked for. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from common.cli import HelpFormatter, add_common_flags, run_script
from common.devices import pick_device
from common.files import check_file_name

log = logging.getLogger(__name__)


def input_path(text: str) -> Path:
    """Path of the views; an empty text would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("-i", "--image_path", type=input_path, required=True,
        help="16 views side by side, as generate.py writes them, or a folder 000.png .. 015.png; "
        "alpha, where there is some, is the object's mask")  # fmt: skip
    add("-n", "--name", required=True, help="of the results' folder, inside --log")
    add("-b", "--base", type=Path, default=Path("configs/neus.yaml"), help="configuration file")
    add("-l", "--log", type=Path, default=Path("output/renderer"), help="folder of all results")
    add("-s", "--seed", type=int, default=6033, help="of all random numbers")
    add("-g", "--gpus", default="0,",
        help="list of which the first GPU is used; without CUDA the CPU is")  # fmt: skip
    add("-r", "--resume", action="store_true", help="go on from the folder's ckpt/last.ckpt")
    add("--fp16", action="store_true", help="half precision, where the method knows it (CUDA only)")
    add("--preset", choices=["fast", "default", "best"], default="default",
        help="how much time the result may take")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the results that are in the folder")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --base file")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.base == parser.get_default("base") and not args.base.exists():
        args.base = Path(__file__).parent / args.base  # found from any folder
    if args.resume and args.overwrite:
        parser.error("--resume goes on with what is there, --overwrite removes it: choose one")
    if not 0 <= args.seed < 2**63:
        parser.error(f"--seed must be from 0 to 2^63 - 1, got {args.seed}")
    if not re.fullmatch(r"\d+(,\d*)*", args.gpus):
        parser.error(f"--gpus is a list of numbers such as 0, or 0,1: got {args.gpus!r}")
    try:
        check_file_name(args.name)
    except ValueError as error:
        parser.error(f"--name {error}")
    return args


def choose_device(device: str, gpus: str) -> str:
    """Return --device where it is given, else the first of --gpus, or the CPU without CUDA."""
    if device != "auto":
        return device
    import torch

    first, *others = [number for number in gpus.split(",") if number]
    if not torch.cuda.is_available():
        log.warning("no CUDA here: --gpus %s has no effect, computing on the CPU", gpus)
        return "cpu"
    if others:
        log.warning("only one GPU is used, number %s", first)
    return f"cuda:{first}"


def main(argv: list[str] | None = None) -> None:
    """Reconstruct as the command line asks for."""
    args = parse(argv)
    from renderer.config import load_renderer_config
    from renderer.reconstruction import Options, reconstruct, summary

    device = pick_device(choose_device(args.device, args.gpus))
    if args.fp16 and device.type != "cuda":
        log.warning("--fp16 has no effect on %s: half precision is for CUDA", device.type)
    config = load_renderer_config(args.base, args.preset, args.set, half=args.fp16)
    options = Options(args.seed, device, args.preset, args.resume, args.overwrite)
    folder = args.log / args.name
    outcome = reconstruct(args.image_path, folder, config, options)
    log.info("%s: %s", folder, summary(outcome.metrics))
    if outcome.stopped_by is not None:
        sys.exit(128 + outcome.stopped_by)


if __name__ == "__main__":
    run_script(main)
