"""Damage files of every format that the commands read, and see what becomes of it.

    python -m tests.fuzz --cases 1000

A reader may refuse a file by a ValueError or OSError that names it. Any other exception, more than
20 seconds, more than 2 GiB, anything that is run, and anything that is written outside of the
output folder is a problem: it is listed, the file is kept, and the exit status is 1. Case k of a
format and a seed is always the same file.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import sys
import time
import warnings
from pathlib import Path

from common.cli import HelpFormatter, run_script
from tests.fuzz.campaign import Watch, fuzz, peak_bytes
from tests.fuzz.formats import formats


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz", None, __doc__)
    parser.formatter_class = HelpFormatter
    add = parser.add_argument
    add("--cases", type=int, default=100, help="damaged files of each format")
    add("--first", type=int, default=0, help="number of the first")
    add("--seed", type=int, default=0, help="of the damage")
    add("--formats", nargs="+", help="only these (default: all)")
    add("--seconds", type=float, default=1e9, help="stop then; each format has an equal part")
    add("--output", type=Path, default=Path("output/fuzz"), help="folder of files with problems")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    faulthandler.enable()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True  # would be noted as files that are written
    watch, known = Watch(), formats()
    sys.addaudithook(watch)
    start, problems = peak_bytes(), 0
    chosen = args.formats or list(known)
    print(f"{'format':16} {'cases':>6} {'read':>8} {'slowest':>8} {'problems':>9}")
    for name in chosen:
        until = time.monotonic() + args.seconds / len(chosen)
        cases = range(args.first, args.first + args.cases)
        found = fuzz(name, known[name], cases, args.seed, args.output, watch, until)
        count = sum(found.problems.values())
        print(
            f"{name:16} {found.cases:6} {found.read:8} {found.slowest:6.2f} s {count:9}",
            flush=True,
        )
        for problem, times in found.problems.most_common():
            print(f"    {times} x {problem}: {found.examples[problem]}")
        problems += count
    print(f"peak memory {(peak_bytes() - start) / 2**20:.0f} MiB above that at the start")
    sys.exit(problems > 0)


if __name__ == "__main__":
    run_script(main)
