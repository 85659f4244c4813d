"""The formats of exported meshes, their files and the flags that choose them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

FORMATS = {
    "glb": "mesh.glb",
    "ply": "mesh.ply",
    "obj": "mesh-obj.zip",
    "stl": "mesh.stl",
    "3mf": "mesh.3mf",
    "usdz": "mesh.usdz",
    "splat": "splat.ply",
}
"""Each format's file in a folder of results."""
ALWAYS = ("glb", "ply")
"""Every reconstruction has these."""
PRINTED = ("stl", "3mf")
"""For printers: in millimetres, closed and manifold."""
PRINT_REPORT = "mesh.print.json"
PACKAGES = "requirements/export.txt"
SIZE_MM = 80.0
SIZES_MM = (1, 10_000)


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        formats: of `FORMATS`; those in `ALWAYS` are written in any case.
        size_mm: longest edge of the bounding box in print, and in augmented reality (USDZ).
        flat_base: cut prints to a flat base.
    """

    formats: tuple[str, ...] = ALWAYS
    size_mm: float = SIZE_MM
    flat_base: bool = False

    @property
    def more(self) -> dict[str, str]:
        """Formats beyond those in `ALWAYS`, with their files."""
        wanted = set(self.formats) - set(ALWAYS)
        return {name: file for name, file in FORMATS.items() if name in wanted}

    @property
    def files(self) -> list[str]:
        """Names of the files that are written for `more`."""
        return [*self.more.values(), *([PRINT_REPORT] if set(PRINTED) & set(self.more) else [])]


def within(low: float, high: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    """A type for argparse: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            message = f"must be a number from {low:,} to {high:,}, got {text!r}"
            raise argparse.ArgumentTypeError(message)
        return number

    return parse


def add_size_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of printed meshes."""
    add = parser.add_argument
    add("--size_mm", type=within(*SIZES_MM, float), default=SIZE_MM,
        help="longest edge of stl and 3mf, and of usdz where it is placed in a room")  # fmt: skip
    add("--flat_base", action="store_true", help="cut stl and 3mf to stand on a flat base")


def add_export_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of commands that reconstruct a mesh."""
    add = parser.add_argument
    add("--export", nargs="+", choices=list(FORMATS), default=list(ALWAYS), metavar="FORMAT",
        help=f"formats of the mesh: {' '.join(FORMATS)}; {' and '.join(ALWAYS)} are always "
        "written")  # fmt: skip
    add_size_flags(parser)
    add("--faces", type=within(100, 10_000_000, int),
        help="most triangles of mesh.glb and what is made from it (default: 30,000)")  # fmt: skip


def export_options(args: argparse.Namespace) -> ExportOptions:
    """What the flags of `add_export_flags` ask for."""
    return ExportOptions(tuple(args.export), args.size_mm, args.flat_base)


def face_override(args: argparse.Namespace) -> list[str]:
    """--faces as a change of the renderer's configuration."""
    return [] if args.faces is None else [f"faces={args.faces}"]
