"""The interface to COLMAP: its steps, the files they share, and the options of reproducible runs.

`pycolmap_engine` runs the steps by the package pycolmap, `program_engine` by the colmap program.
Both use one thread, a fixed seed and, where the version has it, exact matching.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

PEAK_THRESHOLD = 0.002
"""Minimum contrast of SIFT features. COLMAP's default 0.0067 is meant for large photos; on small
renders of a plain object it leaves too few features (none that match on a white teapot)."""
RANDOM_SEED = 0
NUM_THREADS = 1
"""With more threads, image pairs are assigned to per-thread random generators by chance, and the
number of points differs from run to run."""
INSTALL_PYCOLMAP = "pip install 'pycolmap>=4,<5'"


class Workspace:
    """The paths of COLMAP's files in one folder."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"  # the views, 000.png, 001.png, ...
        self.database = folder / "database.db"  # features and matches (SQLite)
        self.poses = folder / "poses"  # text model of the known cameras, without points
        self.sparse = folder / "sparse"  # binary model with the triangulated points
        self.dense = folder / "dense"  # depth maps
        self.fused = self.dense / "fused.ply"  # points of the fused depth maps
        self.log = folder / "colmap.log"  # output of the COLMAP program


class Engine(Protocol):
    """COLMAP's steps; each reads and writes files of the workspace.

    Every step raises RuntimeError where COLMAP fails, with the engine's name and COLMAP's message.
    """

    name: str
    has_cuda: bool

    def extract(self, work: Workspace, camera: str) -> None:
        """Extract SIFT features; `camera` holds a PINHOLE camera's "fx,fy,cx,cy" in pixels."""

    def match(self, work: Workspace) -> None:
        """Match the features of all pairs of images and verify the matches geometrically."""

    def triangulate(self, work: Workspace) -> None:
        """Triangulate the matches with fixed poses and intrinsics."""

    def undistort(self, work: Workspace) -> None:
        """Undistort the images into the workspace of dense stereo."""

    def stereo(self, work: Workspace) -> None:
        """Run patch-match stereo with geometric consistency; needs CUDA."""

    def fuse(self, work: Workspace) -> None:
        """Fuse the geometrically consistent depths into `work.fused`."""


def open_engine(program: str | None) -> Engine:
    """Open COLMAP: a program, by its name on the PATH or its path; None is the package pycolmap.

    Raises:
        ModuleNotFoundError: pycolmap is not installed.
        FileNotFoundError, ValueError: see `ColmapProgram`.
    """
    from evaluation.colmap.program_engine import ColmapProgram
    from evaluation.colmap.pycolmap_engine import PyColmap

    return PyColmap() if program is None else ColmapProgram(program)
