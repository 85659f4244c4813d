"""COLMAP as the package pycolmap or as a program: the same steps on the same files.

Both are in this one, longer file, so that the two forms of a step can be held against each other.

Both are made to repeat themselves: one thread, a fixed seed, exact matching where it is to be had.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

PEAK_THRESHOLD = 0.002
"""Contrast of the weakest SIFT features. COLMAP's own 0.0067 is meant for large photos; on small
renders of a plain object it leaves too few features (of a white teapot none that match)."""
RANDOM_SEED = 0
NUM_THREADS = 1
"""With more, chance deals the image pairs to threads that have random numbers of their own, and
the same views give another count each time."""
EXACT_MATCHING = "SiftMatching.cpu_brute_force_matcher"
"""Compares all features, as on a GPU; the approximate search is random beyond RANDOM_SEED.
Older programs, such as 3.8, have only the latter."""
INSTALL = "pip install 'pycolmap>=3.12,<5'"


@dataclass(frozen=True)
class Workspace:
    """Where COLMAP's files are, in one folder."""

    folder: Path

    @property
    def images(self) -> Path:
        """The views, 000.png, 001.png, ..."""
        return self.folder / "images"

    @property
    def database(self) -> Path:
        """Features and matches (SQLite)."""
        return self.folder / "database.db"

    @property
    def poses(self) -> Path:
        """Model of the known cameras without points, as text."""
        return self.folder / "poses"

    @property
    def sparse(self) -> Path:
        """Model with the triangulated points, binary."""
        return self.folder / "sparse"

    @property
    def dense(self) -> Path:
        """Depth maps and fused.ply."""
        return self.folder / "dense"

    @property
    def fused(self) -> Path:
        """The fused points."""
        return self.dense / "fused.ply"

    @property
    def log(self) -> Path:
        """What the COLMAP program said."""
        return self.folder / "colmap.log"


class Engine(Protocol):
    """COLMAP's steps; each reads and writes files of the workspace.

    Every step raises RuntimeError where COLMAP fails, with the name of the engine and what it said.
    """

    name: str
    has_cuda: bool

    def extract(self, work: Workspace, camera: str) -> None:
        """SIFT features of the images; `camera` holds a PINHOLE's "fx,fy,cx,cy" in pixels."""

    def match(self, work: Workspace) -> None:
        """Match the features of all pairs of images and verify the matches."""

    def triangulate(self, work: Workspace) -> None:
        """Triangulate the matches; poses and intrinsics stay as they are."""

    def undistort(self, work: Workspace) -> None:
        """Prepare the dense folder."""

    def stereo(self, work: Workspace) -> None:
        """Patch-match stereo with geometric consistency; needs CUDA."""

    def fuse(self, work: Workspace) -> None:
        """Fuse the depth maps that are geometrically consistent into `work.fused`."""


class PyColmap:
    """COLMAP embedded in Python, `pycolmap` 3.12 to 4.x; silent."""

    def __init__(self) -> None:
        try:
            import pycolmap
        except ImportError as error:
            raise ModuleNotFoundError(
                f"the package pycolmap cannot be imported ({' '.join(str(error).split())}): "
                f"{INSTALL}, or name a COLMAP program with --colmap"
            ) from error
        self._colmap: Any = pycolmap
        self.name = f"pycolmap {pycolmap.__version__}"
        self.has_cuda = bool(pycolmap.has_cuda)

    def extract(self, work: Workspace, camera: str) -> None:
        """See `Engine`."""
        options = self._feature_options("extraction")
        (chosen,) = options.values()
        getattr(chosen, "sift", chosen).peak_threshold = PEAK_THRESHOLD  # in .sift since 3.13
        reader = self._colmap.ImageReaderOptions()
        reader.camera_model, reader.camera_params = "PINHOLE", camera
        self._run(
            "extract_features",
            {"camera_model": "PINHOLE"},  # until 3.13
            database_path=work.database,
            image_path=work.images,
            camera_mode=self._colmap.CameraMode.PER_IMAGE,
            reader_options=reader,
            device=self._colmap.Device.cpu,
            **options,
        )

    def match(self, work: Workspace) -> None:
        """See `Engine`."""
        options = self._feature_options("matching")
        (chosen,) = options.values()
        getattr(chosen, "sift", chosen).cpu_brute_force_matcher = True  # in .sift since 3.13
        self._run(
            "match_exhaustive",
            database_path=work.database,
            device=self._colmap.Device.cpu,
            **options,
        )

    def triangulate(self, work: Workspace) -> None:
        """See `Engine`."""
        work.sparse.mkdir(exist_ok=True)
        self._run(
            "triangulate_points",
            reconstruction=self._colmap.Reconstruction(str(work.poses)),
            database_path=work.database,
            image_path=work.images,
            output_path=work.sparse,
            options=self._options("IncrementalPipelineOptions"),
            refine_intrinsics=False,
        )

    def undistort(self, work: Workspace) -> None:
        """See `Engine`."""
        self._run(
            "undistort_images",
            output_path=work.dense,
            input_path=work.sparse,
            image_path=work.images,
        )

    def stereo(self, work: Workspace) -> None:
        """See `Engine`."""
        options = self._colmap.PatchMatchOptions()
        options.geom_consistency = True
        self._run("patch_match_stereo", workspace_path=work.dense, options=options)

    def fuse(self, work: Workspace) -> None:
        """See `Engine`."""
        self._run(
            "stereo_fusion",
            {"output_type": "ply"},  # before 3.13 there was no other
            output_path=work.fused,
            workspace_path=work.dense,
            input_type="geometric",
        )

    def _feature_options(self, step: str) -> dict[str, Any]:
        """The argument with the options of a step on features, by this version's names."""
        if hasattr(self._colmap, f"Feature{step.title()}Options"):  # since 3.13
            return {f"{step}_options": self._options(f"Feature{step.title()}Options")}
        return {"sift_options": self._options(f"Sift{step.title()}Options")}

    def _options(self, name: str) -> Any:
        """Options of a class of pycolmap, for one thread of the CPU."""
        options = getattr(self._colmap, name)()
        wanted = {"use_gpu": False, "num_threads": NUM_THREADS, "random_seed": RANDOM_SEED}
        for key, value in wanted.items():
            if hasattr(options, key):
                setattr(options, key, value)
        return options

    def _run(self, step: str, if_known: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        """Call a function with all `arguments`, and with those of `if_known` that it names."""
        function = getattr(self._colmap, step)
        names = function.__doc__ or ""  # all that pybind11 tells of the arguments
        optional = {name: x for name, x in (if_known or {}).items() if f"{name}: " in names}
        known = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in {**arguments, **optional}.items()
        }
        chatter = self._colmap.logging
        level, chatter.minloglevel = chatter.minloglevel, chatter.FATAL.value
        self._colmap.set_random_seed(RANDOM_SEED)
        try:
            function(**known)
        except Exception as error:
            raise RuntimeError(
                f"{self.name}: {step} failed: {' '.join(str(error).split())}"
            ) from error
        finally:
            chatter.minloglevel = level


class ColmapProgram:
    """The `colmap` program, 3.x or 4.x; what it says goes to the workspace's log.

    Args:
        program: name on the PATH, or path.

    Raises:
        FileNotFoundError: there is no such program.
        ValueError: it cannot be executed, or it is not COLMAP.
    """

    def __init__(self, program: str) -> None:
        self._program = _find_program(program)
        said = self._ask("help")
        version = re.search(r"COLMAP (\d\S*)", said)
        if not version:
            raise ValueError(
                f"--colmap {program}: is not COLMAP, `{program} help` says: {_last_line(said)}"
            )
        self.name = f"COLMAP {version[1]} ({program})"
        self.has_cuda = re.search(r"\bwith (CUDA|GPU)", said) is not None

    def extract(self, work: Workspace, camera: str) -> None:
        """See `Engine`."""
        self._run(
            work,
            "feature_extractor",
            {
                "database_path": work.database,
                "image_path": work.images,
                "ImageReader.camera_model": "PINHOLE",
                "ImageReader.single_camera_per_image": 1,
                "ImageReader.camera_params": camera,
            },
            {
                **on_one_cpu("FeatureExtraction", "SiftExtraction"),
                "SiftExtraction.peak_threshold": PEAK_THRESHOLD,
            },
        )

    def match(self, work: Workspace) -> None:
        """See `Engine`."""
        if EXACT_MATCHING not in self._known_options("exhaustive_matcher"):
            log.warning(
                "%s matches approximately: the number of points of views with many features "
                "varies by 1 or 2 %% from run to run; newer programs and pycolmap are exact",
                self.name,
            )
        self._run(
            work,
            "exhaustive_matcher",
            {"database_path": work.database},
            {**on_one_cpu("FeatureMatching", "SiftMatching"), EXACT_MATCHING: 1},
        )

    def triangulate(self, work: Workspace) -> None:
        """See `Engine`."""
        work.sparse.mkdir(exist_ok=True)
        fixed = ("focal_length", "principal_point", "extra_params")
        self._run(
            work,
            "point_triangulator",
            {
                "database_path": work.database,
                "image_path": work.images,
                "input_path": work.poses,
                "output_path": work.sparse,
            },
            {
                **on_one_cpu("Mapper"),
                **{f"Mapper.ba_refine_{name}": 0 for name in fixed},
                "refine_intrinsics": 0,
            },
        )

    def undistort(self, work: Workspace) -> None:
        """See `Engine`."""
        self._run(
            work,
            "image_undistorter",
            {"image_path": work.images, "input_path": work.sparse, "output_path": work.dense},
        )

    def stereo(self, work: Workspace) -> None:
        """See `Engine`."""
        self._run(
            work,
            "patch_match_stereo",
            {"workspace_path": work.dense, "PatchMatchStereo.geom_consistency": 1},
        )

    def fuse(self, work: Workspace) -> None:
        """See `Engine`."""
        self._run(
            work,
            "stereo_fusion",
            {
                "workspace_path": work.dense,
                "input_type": "geometric",
                "output_path": work.fused,
                "output_type": "PLY",
            },
        )

    def _ask(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise ValueError(
                f"--colmap {self._program}: cannot be executed ({error.strerror or error})"
            ) from error
        return done.stdout.decode(errors="replace")

    def _known_options(self, command: str) -> set[str]:
        return set(re.findall(r"--([\w.]+)", self._ask(command, "--help")))

    def _run(
        self,
        work: Workspace,
        command: str,
        options: Mapping[str, object],
        if_known: Mapping[str, object] | None = None,
    ) -> None:
        """Run a command with all `options` and with those of `if_known` that its help names."""
        known = self._known_options(command)
        more = {"random_seed": RANDOM_SEED, **(if_known or {})}
        chosen = {**options, **{name: value for name, value in more.items() if name in known}}
        arguments = [self._program, command]
        for name, value in chosen.items():
            arguments += [f"--{name}", str(value)]
        status, said = _run_logged(arguments, work.log)
        if status:
            raise RuntimeError(
                f"{self.name}: {command} failed (exit status {status}): {_last_line(said)} "
                f"(--project FOLDER keeps all that it said, in {work.log.name})"
            )


def on_one_cpu(*groups: str) -> dict[str, object]:
    """Options of the program for one thread of the CPU, whatever this version calls their group."""
    return {
        f"{group}.{name}": value
        for group in groups
        for name, value in (("use_gpu", 0), ("num_threads", NUM_THREADS))
    }


def _find_program(program: str) -> str:
    found = shutil.which(program)
    if found:
        return found
    if Path(program).is_file():
        raise ValueError(f"--colmap {program}: cannot be executed (no permission); try chmod +x")
    raise FileNotFoundError(
        f"--colmap {program}: no such program; install COLMAP, give the path of its program, or "
        f"leave --colmap out to use the package pycolmap ({INSTALL})"
    )


def _run_logged(arguments: Sequence[str], log: Path) -> tuple[int, str]:
    """Run a program, append what it says to a file; its exit status and what it said."""
    with log.open("a+b") as file:
        file.write(f"$ {shlex.join(arguments)}\n".encode())
        file.flush()
        start = file.seek(0, 2)
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
        )
        file.seek(start)
        return done.returncode, file.read().decode(errors="replace")


def _last_line(said: str) -> str:
    """The last line of a program's output before the stack trace with which COLMAP may end."""
    lines = [line.strip() for line in said.splitlines()]
    telling = [line for line in lines if line and not line.startswith(("@ ", "***"))]
    return telling[-1] if telling else "it said nothing"


def open_engine(program: str | None) -> Engine:
    """Find COLMAP: a program (name on the PATH or path), or the package pycolmap where None.

    Raises:
        ModuleNotFoundError, FileNotFoundError, ValueError: it is not there or not usable.
    """
    return PyColmap() if program is None else ColmapProgram(program)
