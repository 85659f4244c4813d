"""Train SyncDreamer, from Zero123's weights.

    python train_syncdreamer.py -b configs/syncdreamer-train.yaml \
        --finetune_from ckpt/zero123-xl.ckpt --gpus 0,1,2,3

writes ckpt/models/<name of the configuration>/last.ckpt and step=........ckpt, which generate.py
loads, and into ckpt/logs/<name>: config.yaml, steps.jsonl, TensorBoard files and views of
the validation images, images/val/<step>.jpg.

Ctrl-C (or SIGTERM) stops after the current step and writes last.ckpt; the exit code is then 130
(143). --resume continues bit-identically.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from pathlib import Path

from common.cli import SEED, HelpFormatter, add_common_flags, advise, project_file, run_script
from common.config import load_config
from common.devices import pick_device

log = logging.getLogger(__name__)

DEFAULT_GPUS = "0,"
DAMAGED = (
    "; repair that file, or let --set data.max_damaged=<n> replace up to n such objects by others, "
    "and continue with --resume"
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    base = "configs/syncdreamer-train.yaml"
    add("-b", "--base", type=project_file, default=base, help="configuration file; names the run")
    add("-l", "--logdir", type=Path, default=Path("ckpt/logs"), help="folder for metrics")
    add("-c", "--ckptdir", type=Path, default=Path("ckpt/models"), help="folder for checkpoints")
    add("-s", "--seed", type=int, default=SEED, help="of all random numbers")
    add("--finetune_from", type=Path, help="initial checkpoint, of Zero123 or this project")
    add("--gpus", default=DEFAULT_GPUS, help="indices of the GPUs of each machine, such as 0,1")
    add("--num_nodes", type=int, default=1, help="number of machines; start the command on each")
    add("-r", "--resume", action="store_true", help="continue from last.ckpt")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override the --base file")
    add_common_flags(parser)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse and check the flags; exit 2 if they are wrong."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**62:
        parser.error(f"--seed must be from 0 to 2^62 - 1, got {args.seed}")
    if args.num_nodes < 1:
        parser.error(f"--num_nodes must be at least 1, got {args.num_nodes}")
    if not re.fullmatch(r"\d+(,\d*)*", args.gpus):
        parser.error(f"--gpus is a list of numbers such as 0, or 0,1: got {args.gpus!r}")
    return args


def choose_gpus(device: str, gpus: str) -> tuple[str, tuple[int, ...]]:
    """Return the type of device and, for "cuda", the GPUs' indices, which must exist."""
    import torch

    if device not in ("auto", "cuda"):
        chosen = pick_device(device)
        return chosen.type, (chosen.index or 0,) if chosen.type == "cuda" else ()
    indices = tuple(dict.fromkeys(int(number) for number in gpus.split(",") if number))
    if not torch.cuda.is_available() and device == "auto" and gpus == DEFAULT_GPUS:
        other = pick_device("auto").type
        log.warning("no CUDA GPU: training on %s, which is for small models only", other)
        return other, ()
    count = torch.cuda.device_count()
    missing = [index for index in indices if index >= count]
    if missing or not torch.cuda.is_available():
        found = f"has the GPUs 0 to {count - 1}" if count else "has no CUDA GPU"
        raise ValueError(f"--gpus {gpus}: this machine {found}; use --device cpu to train without")
    return "cuda", indices


def main(argv: list[str] | None = None) -> None:
    """Train."""
    args = parse(argv)
    from common.optional import import_optional
    from ldm.training.config import REQUIREMENTS, TrainConfig, TrainOptions

    config = load_config(TrainConfig, args.base, args.set)
    device, gpus = choose_gpus(args.device, args.gpus)
    import_optional("lightning.pytorch", "Training", REQUIREMENTS)
    from demo.loss import choose_loss
    from demo.model import choose_model_class
    from ldm.data.loader import DamagedDataError
    from ldm.training.trainer import ResumeError, train

    names = ("logdir", "ckptdir", "seed", "finetune_from", "resume", "num_nodes")
    options = TrainOptions(
        name=args.base.stem, gpus=gpus, device=device, **{n: getattr(args, n) for n in names}
    )
    other = "choose another --ckptdir and --logdir"
    with (
        advise(f"; continue with --resume or {other}", FileExistsError),
        advise(f"; start without --resume and {other}", ResumeError),
        advise(DAMAGED, DamagedDataError),
    ):
        model_class, loss = choose_model_class(config.model), choose_loss(config.model)
        signal = train(config, options, model_class=model_class, loss=loss)
    if signal:
        sys.exit(128 + signal)


if __name__ == "__main__":
    run_script(main)
