"""COLMAP's steps by the colmap program."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.colmap.engine import (
    INSTALL_PYCOLMAP,
    NUM_THREADS,
    PEAK_THRESHOLD,
    RANDOM_SEED,
    Workspace,
)

log = logging.getLogger(__name__)

EXACT_MATCHING = "SiftMatching.cpu_brute_force_matcher"
"""Compares all features, as on a GPU; the approximate search is random whatever the seed. Older
programs, such as 3.8, have only the latter."""


class ColmapProgram:
    """The `colmap` program, 3.8 or newer; its output goes to the workspace's log.

    Raises:
        FileNotFoundError: there is no such program.
        ValueError: it cannot be executed, or it is not COLMAP.
    """

    def __init__(self, program: str) -> None:
        self._program = _find_program(program)
        output = self._query("help")
        version = re.search(r"COLMAP (\d\S*)", output)
        if not version:
            end = f"the output of `{program} help` ends with {_last_line(output)}"
            raise ValueError(f"{program} is not COLMAP: {end}")
        self.name = f"COLMAP {version[1]} ({program})"
        self.has_cuda = re.search(r"\bwith (CUDA|GPU)", output) is not None

    def extract(self, work: Workspace, camera: str) -> None:
        """See `Engine`."""
        options = {
            "database_path": work.database,
            "image_path": work.images,
            "ImageReader.camera_model": "PINHOLE",
            "ImageReader.single_camera_per_image": 1,
            "ImageReader.camera_params": camera,
        }
        known = _single_cpu_thread("FeatureExtraction", "SiftExtraction")
        known |= {"SiftExtraction.peak_threshold": PEAK_THRESHOLD}
        self._run(work, "feature_extractor", options, known)

    def match(self, work: Workspace) -> None:
        """See `Engine`."""
        if EXACT_MATCHING not in self._known_options("exhaustive_matcher"):
            log.warning(
                "%s has approximate matching only: with many features the number of points varies "
                "by 1 to 2 %% from run to run; newer programs and pycolmap match exactly",
                self.name,
            )
        known = {**_single_cpu_thread("FeatureMatching", "SiftMatching"), EXACT_MATCHING: 1}
        self._run(work, "exhaustive_matcher", {"database_path": work.database}, known)

    def triangulate(self, work: Workspace) -> None:
        """See `Engine`."""
        work.sparse.mkdir(exist_ok=True)
        fixed = ("focal_length", "principal_point", "extra_params")
        options = {"database_path": work.database, "image_path": work.images}
        options |= {"input_path": work.poses, "output_path": work.sparse}
        known = {f"Mapper.ba_refine_{name}": 0 for name in fixed} | {"refine_intrinsics": 0}
        self._run(work, "point_triangulator", options, _single_cpu_thread("Mapper") | known)

    def undistort(self, work: Workspace) -> None:
        """See `Engine`."""
        paths = {"image_path": work.images, "input_path": work.sparse, "output_path": work.dense}
        self._run(work, "image_undistorter", paths)

    def stereo(self, work: Workspace) -> None:
        """See `Engine`."""
        options = {"workspace_path": work.dense, "PatchMatchStereo.geom_consistency": 1}
        self._run(work, "patch_match_stereo", options)

    def fuse(self, work: Workspace) -> None:
        """See `Engine`."""
        options = {"workspace_path": work.dense, "input_type": "geometric"}
        options |= {"output_path": work.fused, "output_type": "PLY"}
        self._run(work, "stereo_fusion", options)

    def _query(self, *arguments: str) -> str:
        """The output of the program with these arguments."""
        try:
            command, null, pipe = [self._program, *arguments], subprocess.DEVNULL, subprocess.PIPE
            process = subprocess.run(command, stdin=null, stdout=pipe, stderr=subprocess.STDOUT)
        except OSError as error:
            reason = f"{self._program} cannot be executed ({error.strerror or error})"
            raise ValueError(reason) from error
        return process.stdout.decode(errors="replace")

    def _known_options(self, command: str) -> set[str]:
        return set(re.findall(r"--([\w.]+)", self._query(command, "--help")))

    def _run(
        self,
        work: Workspace,
        command: str,
        options: Mapping[str, object],
        if_known: Mapping[str, object] | None = None,
    ) -> None:
        """Run a command with all `options` and with those of `if_known` that its help lists."""
        known = self._known_options(command)
        optional = {"random_seed": RANDOM_SEED, **(if_known or {})}
        given = {**options, **{name: optional[name] for name in optional if name in known}}
        arguments = [self._program, command]
        for name, value in given.items():
            arguments += [f"--{name}", str(value)]
        status, output = _run_logged(arguments, work.log)
        if status:
            raise RuntimeError(
                f"{self.name}: {command} failed (exit status {status}): {_last_line(output)}"
            )


def _single_cpu_thread(*groups: str) -> dict[str, object]:
    """Options for one CPU thread under several group names, of which a version knows one."""
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
        raise ValueError(f"{program} cannot be executed (no permission); try chmod +x")
    raise FileNotFoundError(
        f"{program}: no such program; install COLMAP, or the package pycolmap ({INSTALL_PYCOLMAP})"
    )


def _run_logged(arguments: Sequence[str], log: Path) -> tuple[int, str]:
    """Run a program and append its output to a log; return its exit status and the output."""
    with log.open("a+b") as file:
        file.write(f"$ {shlex.join(arguments)}\n".encode())
        file.flush()
        start = file.seek(0, 2)
        null = subprocess.DEVNULL
        process = subprocess.run(arguments, stdin=null, stdout=file, stderr=subprocess.STDOUT)
        file.seek(start)
        return process.returncode, file.read().decode(errors="replace")


def _last_line(output: str) -> str:
    """The last line of a program's output before the stack trace that COLMAP may append."""
    lines = [line.strip() for line in output.splitlines()]
    messages = [line for line in lines if line and not line.startswith(("@ ", "***"))]
    return messages[-1] if messages else "no output"
