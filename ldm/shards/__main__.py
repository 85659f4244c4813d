"""Pack a training set into tar shards, and check shards.

    python -m ldm.shards pack training_examples shards
    python -m ldm.shards check shards

A shard is a plain tar file in WebDataset's convention, see ldm/data/pack_shards.py. Equal trees
give equal shards.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import run_script
from ldm.data.pack_shards import check, pack

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the two commands."""
    parser = argparse.ArgumentParser(
        prog="python -m ldm.shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback on failure")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="write a folder tree as shards")
    packing.add_argument("root", type=Path, help="folder with target/, input/ and uid_set.pkl")
    packing.add_argument("out", type=Path, help="new folder for the shards")
    packing.add_argument("--shard_mb", type=int, default=1024, help="size limit of a shard, MiB")
    packing.add_argument("--num_views", type=int, default=16, help="views of an object")
    checking = commands.add_parser("check", help="read all shards and list problems")
    checking.add_argument("location", help="folder or URL of the shards")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Pack or check."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command == "pack":
        if args.shard_mb < 1 or not 1 <= args.num_views <= 999:
            parser.error("--shard_mb must be at least 1, --num_views from 1 to 999")
        index = pack(args.root, args.out, args.shard_mb * 2**20, args.num_views)
        count = sum(len(shard.objects) for shard in index.shards)
        log.info("wrote %d objects in %d shards to %s", count, len(index.shards), args.out)
        return
    problems = check(args.location)
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise ValueError(f"{args.location}: {len(problems)} problems")
    log.info("%s: all shards are complete", args.location)


if __name__ == "__main__":
    run_script(main)
