"""COLMAP's steps by the package pycolmap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.colmap.engine import (
    INSTALL_PYCOLMAP,
    NUM_THREADS,
    PEAK_THRESHOLD,
    RANDOM_SEED,
    Workspace,
)


class PyColmap:
    """COLMAP as the package `pycolmap` 3.12 to 4.x, without its console output."""

    def __init__(self) -> None:
        try:
            import pycolmap
        except ImportError as error:
            raise ModuleNotFoundError(
                f"the package pycolmap cannot be imported ({' '.join(str(error).split())}): "
                f"{INSTALL_PYCOLMAP}"
            ) from error
        self._colmap: Any = pycolmap
        self.name = f"pycolmap {pycolmap.__version__}"
        self.has_cuda = bool(pycolmap.has_cuda)

    def extract(self, work: Workspace, camera: str) -> None:
        """See `Engine`."""
        options = self._feature_options("extraction")
        _sift(options).peak_threshold = PEAK_THRESHOLD
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
        _sift(options).cpu_brute_force_matcher = True
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
        """The options argument of a feature step, under the name of this version of pycolmap."""
        if hasattr(self._colmap, f"Feature{step.title()}Options"):  # since 3.13
            return {f"{step}_options": self._options(f"Feature{step.title()}Options")}
        return {"sift_options": self._options(f"Sift{step.title()}Options")}

    def _options(self, name: str) -> Any:
        """An options object of pycolmap, set to one CPU thread and the fixed seed."""
        options = getattr(self._colmap, name)()
        wanted = {"use_gpu": False, "num_threads": NUM_THREADS, "random_seed": RANDOM_SEED}
        for key, value in wanted.items():
            if hasattr(options, key):
                setattr(options, key, value)
        return options

    def _run(self, step: str, if_known: Mapping[str, Any] | None = None, **arguments: Any) -> None:
        """Call a function with all `arguments`, and with those of `if_known` that it accepts."""
        function = getattr(self._colmap, step)
        signature = function.__doc__ or ""  # the only place where pybind11 names the arguments
        optional = {name: x for name, x in (if_known or {}).items() if f"{name}: " in signature}
        accepted = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in {**arguments, **optional}.items()
        }
        glog = self._colmap.logging
        level, glog.minloglevel = glog.minloglevel, glog.FATAL.value
        self._colmap.set_random_seed(RANDOM_SEED)
        try:
            function(**accepted)
        except Exception as error:
            raise RuntimeError(
                f"{self.name}: {step} failed: {' '.join(str(error).split())}"
            ) from error
        finally:
            glog.minloglevel = level


def _sift(options: Mapping[str, Any]) -> Any:
    """SIFT's part of the options of a feature step: `.sift` since 3.13, all of them before."""
    (step_options,) = options.values()
    return getattr(step_options, "sift", step_options)
