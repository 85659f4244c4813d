"""Train the autoencoder of a small model, before the model itself.

    python train_autoencoder.py -b configs/demo-autoencoder.yaml -o output/demo-model/autoencoder

writes autoencoder.ckpt into the folder, the initial checkpoint of train_syncdreamer.py. The
published model has Stable Diffusion's autoencoder and does not need this.

Ctrl-C (or SIGTERM) stops after the current step and writes last.ckpt; the exit code is then 130
(143). --resume continues bit-identically.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.cli import SEED, HelpFormatter, add_common_flags, advise, project_file, run_script
from common.config import load_config
from common.devices import pick_device


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    base = "configs/demo-autoencoder.yaml"
    add("-b", "--base", type=project_file, default=base, help="configuration file")
    add("-o", "--output", type=Path, required=True, help="folder for checkpoints and metrics")
    add("-s", "--seed", type=int, default=SEED, help="of all random numbers")
    add("-r", "--resume", action="store_true", help="continue from last.ckpt if it exists")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --base file")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; exit 2 if they are wrong."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**62:
        parser.error(f"--seed must be from 0 to 2^62 - 1, got {args.seed}")
    return args


def main(argv: list[str] | None = None) -> None:
    """Train."""
    args = parse(argv)
    from demo.autoencoder_training import AutoencoderTrainConfig, train_autoencoder

    config = load_config(AutoencoderTrainConfig, args.base, args.set)
    device = pick_device(args.device)
    with advise("; continue with --resume, or choose another --output", FileExistsError):
        signal = train_autoencoder(config, args.output, args.seed, args.resume, device)
    if signal:
        sys.exit(128 + signal)


if __name__ == "__main__":
    run_script(main)
