"""Flags of commands that divide their work among processes or machines."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import partial

from common.workers.processes import run_in_processes
from common.workers.ray_cluster import Cluster, run_on_ray
from common.workers.work import Engine, run_here


def add_engine_flags(parser: argparse.ArgumentParser, gpus: str) -> None:
    """Add --engine, --address and --gpus, whose help is given; see `check_engine_flags`."""
    add = parser.add_argument
    place = "work on this machine, or on a Ray cluster with shared files"
    add("--engine", choices=["local", "ray"], default="local", help=place)
    add("--address", help="address of the Ray cluster, auto or <host>:<port> (default: start one)")
    add("--gpus", help=gpus)


def check_engine_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with status 2 if these flags, or --workers, are invalid or do not fit together."""
    if args.workers is not None and args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    if args.gpus is not None and not re.fullmatch(r"\d+(,\d+)*,?", args.gpus):
        parser.error(f"--gpus must be comma-separated numbers, got {args.gpus!r}")
    if args.engine == "local" and args.address:
        parser.error("--address is for --engine ray")
    if args.engine == "ray" and args.gpus is not None:
        parser.error("--gpus is for --engine local; Ray knows the GPUs of its machines")


def gpu_numbers(args: argparse.Namespace) -> tuple[str, ...]:
    """The numbers of --gpus, in order."""
    return tuple(part for part in (args.gpus or "").split(",") if part)


def choose_engine(
    args: argparse.Namespace, devices: Sequence[str], workers: int | None, here: bool = False
) -> Engine:
    """The engine that --engine, --address, --gpus and --device ask for.

    On this machine it has a process for each of the GPUs, else of the devices, or as many as there
    are to be workers, in turn on these. `here`: only one is no process of its own.
    """
    if args.engine == "ray":
        gpus = None if args.device.startswith(("auto", "cuda")) else 0.0
        cluster = Cluster(args.address, workers, gpus=gpus, device=args.device)
        return partial(run_on_ray, cluster)
    devices = [f"cuda:{number}" for number in gpu_numbers(args)] or devices
    number = workers or len(devices)
    if here and number == 1:
        return partial(run_here, devices[0])
    return partial(run_in_processes, [devices[k % len(devices)] for k in range(number)])
