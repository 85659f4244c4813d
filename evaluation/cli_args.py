"""Shared by the evaluation commands: flags, argument types, and advice on errors."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import advise
from evaluation.results import check_log

if TYPE_CHECKING:
    import torch

    from evaluation.colmap.engine import Engine
    from evaluation.colmap.points import Mode, PointsForm
    from evaluation.lpips import Lpips


def angle(text: str) -> float:
    """Parse an angle in degrees, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is not a finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not an angle in degrees")
    return value


def row_name(text: str) -> str:
    """Check the name of a table row, for argparse.

    Raises:
        argparse.ArgumentTypeError: it is empty, not printable, or has several lines.
    """
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name in one line")
    return text


def add_log_flag(parser: argparse.ArgumentParser) -> None:
    """Add --log, the flag of all single-object commands."""
    parser.add_argument("--log", type=Path, help="append the result to this .csv or .json file too")


def check_log_flag(path: Path | None) -> None:
    """Check the file of --log before a long computation, see `check_log`."""
    with advise("; choose another file for --log", ValueError):
        check_log(path)


def load_lpips(
    weights: Path | None, device: torch.device, required: bool
) -> tuple[Lpips | None, str]:
    """Load LPIPS, or say why it is not available.

    Returns:
        the metric and "", or None and a sentence on what to install.

    Raises:
        LpipsUnavailableError: it is required and not available.
        FileNotFoundError, ValueError: see `Lpips`.
    """
    from evaluation.lpips import Lpips, LpipsUnavailableError, WeightsNotFoundError

    try:
        with advise(", or give a file by --lpips_weights", WeightsNotFoundError):
            return Lpips(weights, device), ""
    except LpipsUnavailableError as error:
        if required:
            raise
        return None, str(error)


def open_engine(program: str | None) -> Engine:
    """Open COLMAP as --colmap says, see `evaluation.colmap.engine.open_engine`."""
    from evaluation.colmap import engine

    usage = "; --colmap takes the name or path of a COLMAP program, the default is the package "
    with (
        advise(", or name a COLMAP program with --colmap", ModuleNotFoundError),
        advise(f"{usage}pycolmap", FileNotFoundError, ValueError),
    ):
        return engine.open_engine(program)


def choose_points_form(mode: Mode, engine: Engine) -> PointsForm:
    """Resolve --mode, see `evaluation.colmap.points.choose_points_form`."""
    from evaluation.colmap import points

    advice = (
        "; use --mode sparse, or a COLMAP with CUDA (the package pycolmap-cuda12 instead of "
        "pycolmap, or a program for --colmap)"
    )
    with advise(advice, ValueError):
        return points.choose_points_form(mode, engine)
