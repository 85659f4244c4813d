"""Time sampling on a machine on which other programs run, for several settings of the threads.

    python -m benchmarks.busy_machine --ckpt ckpt/syncdreamer-demo.safetensors --busy 1

Each setting is timed alone and beside `--busy` processes that each take one core, alternating. The
commands' own setting is OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.cli import run_script

SETTINGS = {
    "torch's default (threads spin)": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}

SAMPLE = """
import sys, time
from syncdreamer import SyncDreamerPipeline
pipeline = SyncDreamerPipeline.load(sys.argv[1])
pipeline.generate(sys.argv[2], elevation=20)
start = time.perf_counter()
pipeline.generate(sys.argv[2], elevation=20)
print(time.perf_counter() - start)
"""


def _count_forever() -> None:
    while True:
        pass


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Take `count` cores within the context."""
    processes = [multiprocessing.Process(target=_count_forever, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def sample_seconds(checkpoint: str, image: str, setting: dict[str, str]) -> float:
    """Time the second sample in a process of its own, in seconds."""
    known = {"OMP_WAIT_POLICY", "OMP_NUM_THREADS"}
    environment = {k: v for k, v in os.environ.items() if k not in known} | setting
    command = [sys.executable, "-c", SAMPLE, checkpoint, image]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def main(argv: list[str] | None = None) -> None:
    """Print a table of times in seconds."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--image", default="testset/cactus.png")
    parser.add_argument("--busy", type=int, default=1, help="cores that other programs take")
    parser.add_argument("--repeat", type=int, default=3, help="runs; the median is printed")
    args = parser.parse_args(argv)

    times: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.repeat):
        for busy in (0, args.busy):
            with busy_processes(busy):
                for name, setting in SETTINGS.items():
                    seconds = sample_seconds(args.ckpt, args.image, setting)
                    times.setdefault((name, busy), []).append(seconds)
    print(f"{os.cpu_count()} cores; a sample takes")
    for name in SETTINGS:
        alone, beside = (statistics.median(times[name, busy]) for busy in (0, args.busy))
        message = f"{name:32s} {alone:7.2f} s alone, {beside:7.2f} s beside {args.busy}"
        print(f"{message}: {beside / alone:.2f} x")


if __name__ == "__main__":
    run_script(main)
