"""The interface to COLMAP: its steps, the files they share, and the options of reproducible runs.

`pycolmap_engine` runs the steps by the package pycolmap, `program_engine` by the colmap program.
Both use one thread, a fixed seed and, where the version has it, exact matching.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Workspace:
    """The paths of COLMAP's files in one folder."""

    folder: Path

    @property
    def images(self) -> Path:
        """Folder of the views, 000.png, 001.png, ..."""
        return self.folder / "images"

    @property
    def database(self) -> Path:
        """Database of features and matches (SQLite)."""
        return self.folder / "database.db"

    @property
    def poses(self) -> Path:
        """Text model of the known cameras, without points."""
        return self.folder / "poses"

    @property
    def sparse(self) -> Path:
        """Binary model with the triangulated points."""
        return self.folder / "sparse"

    @property
    def dense(self) -> Path:
        """Folder of the depth maps and fused.ply."""
        return self.folder / "dense"

    @property
    def fused(self) -> Path:
        """Point cloud of the fused depth maps."""
        return self.dense / "fused.ply"

    @property
    def log(self) -> Path:
        """Output of the COLMAP program."""
        return self.folder / "colmap.log"


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
    """Open COLMAP.

    Args:
        program: name on the PATH, or path, of the colmap program; None is the package pycolmap.

    Raises:
        ModuleNotFoundError: pycolmap is not installed.
        FileNotFoundError, ValueError: see `ColmapProgram`.
    """
    from evaluation.colmap.program_engine import ColmapProgram
    from evaluation.colmap.pycolmap_engine import PyColmap

    return PyColmap() if program is None else ColmapProgram(program)
