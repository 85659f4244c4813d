"""COLMAP's steps by the package pycolmap."""

from __future__ import annotations

from typing import Any

from common.signals import keep_sigterm
from evaluation.colmap.engine import (
    INSTALL_PYCOLMAP,
    NUM_THREADS,
    PEAK_THRESHOLD,
    RANDOM_SEED,
    Workspace,
)


class PyColmap:
    """COLMAP as the package `pycolmap` 4.x, without its console output."""

    def __init__(self) -> None:
        try:
            with keep_sigterm():  # its own prints a stack trace and leaves files behind
                import pycolmap
        except ImportError as error:
            problem = f"the package pycolmap cannot be imported ({' '.join(str(error).split())})"
            raise ModuleNotFoundError(f"{problem}: {INSTALL_PYCOLMAP}") from error
        version = pycolmap.__version__
        if int(version.split(".")[0]) < 4:
            raise ModuleNotFoundError(f"pycolmap {version} is too old: {INSTALL_PYCOLMAP}")
        self._colmap: Any = pycolmap
        self.name = f"pycolmap {version}"
        self.has_cuda = bool(pycolmap.has_cuda)

    def extract(self, work: Workspace, camera: str) -> None:
        """See `Engine`."""
        options = self._colmap.FeatureExtractionOptions()
        options.use_gpu, options.num_threads = False, NUM_THREADS
        options.sift.peak_threshold = PEAK_THRESHOLD
        reader = self._colmap.ImageReaderOptions()
        reader.camera_model, reader.camera_params = "PINHOLE", camera
        self._run(
            "extract_features",
            database_path=work.database,
            image_path=work.images,
            camera_mode=self._colmap.CameraMode.PER_IMAGE,
            reader_options=reader,
            extraction_options=options,
            device=self._colmap.Device.cpu,
        )

    def match(self, work: Workspace) -> None:
        """See `Engine`."""
        options = self._colmap.FeatureMatchingOptions()
        options.use_gpu, options.num_threads = False, NUM_THREADS
        options.sift.cpu_brute_force_matcher = True
        device = self._colmap.Device.cpu
        self._run(
            "match_exhaustive", database_path=work.database, matching_options=options, device=device
        )

    def triangulate(self, work: Workspace) -> None:
        """See `Engine`."""
        work.sparse.mkdir(exist_ok=True)
        options = self._colmap.IncrementalPipelineOptions()
        options.num_threads, options.random_seed = NUM_THREADS, RANDOM_SEED
        self._run(
            "triangulate_points",
            reconstruction=self._colmap.Reconstruction(work.poses),
            database_path=work.database,
            image_path=work.images,
            output_path=work.sparse,
            options=options,
            refine_intrinsics=False,
        )

    def undistort(self, work: Workspace) -> None:
        """See `Engine`."""
        folders = {"input_path": work.sparse, "image_path": work.images}
        self._run("undistort_images", output_path=work.dense, **folders)

    def stereo(self, work: Workspace) -> None:
        """See `Engine`."""
        options = self._colmap.PatchMatchOptions()
        options.geom_consistency = True
        self._run("patch_match_stereo", workspace_path=work.dense, options=options)

    def fuse(self, work: Workspace) -> None:
        """See `Engine`."""
        forms = {"input_type": "geometric", "output_type": "ply"}
        self._run("stereo_fusion", output_path=work.fused, workspace_path=work.dense, **forms)

    def _run(self, step: str, **arguments: Any) -> None:
        glog = self._colmap.logging
        level, glog.minloglevel = glog.minloglevel, glog.FATAL.value
        self._colmap.set_random_seed(RANDOM_SEED)
        try:
            getattr(self._colmap, step)(**arguments)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise RuntimeError(f"{self.name}: {step} failed: {reason}") from error
        finally:
            glog.minloglevel = level
