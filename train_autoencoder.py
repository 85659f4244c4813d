"""Train the autoencoder of a small model of your own, before the model itself.

    python train_autoencoder.py -b configs/demo-autoencoder.yaml -o output/demo-model/autoencoder

writes autoencoder.ckpt into the folder, which `train_syncdreamer.py --finetune_from` starts from.
The published model has Stable Diffusion's autoencoder and does not need this.

Ctrl-C (or SIGTERM) ends the training after the step and writes last.ckpt; the exit code is then
130 (143). --resume goes on with the very numbers that it would have had.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.cli import HelpFormatter, add_common_flags, run_script
from common.config import load_config
from common.devices import pick_device


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; nothing heavy is imported for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("-b", "--base", type=Path, default=Path("configs/demo-autoencoder.yaml"),
        help="configuration file")  # fmt: skip
    add("-o", "--output", type=Path, required=True, help="folder of checkpoints and reports")
    add("-s", "--seed", type=int, default=6033, help="of all random numbers")
    add("-r", "--resume", action="store_true", help="go on from last.ckpt, if it is there")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --base file")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags (exit 2 where they make no sense)."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.base == parser.get_default("base") and not args.base.exists():
        args.base = Path(__file__).parent / args.base  # found from any folder
    if not 0 <= args.seed < 2**62:
        parser.error(f"--seed must be from 0 to 2^62 - 1, got {args.seed}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Train as the command line asks for."""
    args = parse(argv)
    from demo.autoencoder_training import AutoencoderTrainConfig, train_autoencoder

    config = load_config(AutoencoderTrainConfig, args.base, args.set)
    device = pick_device(args.device)
    ended_by = train_autoencoder(config, args.output, args.seed, args.resume, device)
    if ended_by:
        sys.exit(128 + ended_by)


if __name__ == "__main__":
    run_script(main)
