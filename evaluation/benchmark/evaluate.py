"""One object of a benchmark: all its scores, and the record of them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.files import atomic_write
from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.error_maps import STRIPS, strips_in, write_strips
from evaluation.colmap import MANIFEST, OWN_NAMES, Form, count_points, project_folder
from evaluation.colmap_engines import open_engine
from evaluation.depth import depth_names
from evaluation.image_metrics import SsimForm
from evaluation.lpips import Lpips
from evaluation.mesh_metrics import evaluate_mesh
from evaluation.meshes import gso_rotation
from evaluation.results import Result, from_json, one_line, to_json
from evaluation.view_metrics import read_pair, score_views
from multiview.images import view_names
from multiview.views import NUM_VIEWS, read_views

log = logging.getLogger(__name__)

PROTOCOL = 1
"""Raised when scores change; records of another number are made anew."""
RECORD, COLMAP = "record.json", "colmap"


@dataclass(frozen=True)
class Settings:
    """How all objects are evaluated; found out once, so that all are evaluated alike.

    Attributes:
        ssim: form of the SSIM.
        lpips_weights: file of the LPIPS trunk; None leaves LPIPS out.
        colmap: COLMAP's program; None is pycolmap.
        engine: its name and version.
        points: which points are counted; None leaves COLMAP out.
        device: for LPIPS and depth maps.
    """

    ssim: SsimForm
    lpips_weights: Path | None
    colmap: str | None
    engine: str
    points: Form | None
    device: str


@dataclass
class Record:
    """What came of an object.

    Attributes:
        key: of all that the scores depend on.
        result: the scores.
        errors: part ("views", "mesh", "colmap") -> why it failed.
        warnings: what was said meanwhile.
        seconds: part -> how long it took.
        traces: part -> the traceback of its failure.
    """

    key: str
    result: Result
    errors: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `RECORD` into the object's folder."""
        with atomic_write(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(to_json(asdict(self)), indent=1), encoding="utf-8")

    def is_whole(self, folder: Path) -> bool:
        """Whether nothing failed and all pictures are there."""
        scored = self.result.psnr is not None
        return not self.errors and (not scored or strips_in(folder) is not None)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove `RECORD` and the pictures, if they are there."""
        for name in (RECORD, *(f"{strip}.jpg" for strip in STRIPS)):
            (folder / name).unlink(missing_ok=True)

    @staticmethod
    def load(folder: Path) -> Record | None:
        """Read `RECORD`; None where there is none, or one that cannot be used."""
        try:
            record = from_json(json.loads((folder / RECORD).read_text(encoding="utf-8")))
            result = Result(**record["result"])
            mean_result([result])  # which only numbers allow
            return Record(**{**record, "result": result})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def check_own(folder: Path) -> None:
    """Make sure that an object's folder in a report holds nothing but what a former run made.

    Raises:
        FileExistsError: it does; nothing is touched.
    """
    project = folder / COLMAP
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    foreign = found - {RECORD, COLMAP, *(f"{strip}.jpg" for strip in STRIPS)}
    if project.is_dir():
        inside = {path.name for path in project.iterdir()} - {MANIFEST, *OWN_NAMES}
        foreign |= {f"{COLMAP}/{name}" for name in inside}
    if foreign:
        raise FileExistsError(
            f"{folder}: holds files that no former run made, such as {one_line(min(foreign))}; "
            "choose another folder for --out"
        )


def key_of(files: ObjectFiles, settings: Settings) -> str:
    """Fingerprint of all that an object's record depends on: settings and contents of files."""
    digest = hashlib.sha256(repr((PROTOCOL, files.name, settings)).encode())
    for role, paths in _inputs(files).items():
        for path in paths:
            if path is not None and path.is_file():
                digest.update(f"\0{role}\0{path.name}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _inputs(files: ObjectFiles) -> dict[str, list[Path | None]]:
    inputs: dict[str, list[Path | None]] = {"mesh": [files.mesh], "true mesh": [files.true_mesh]}
    for role, views in (("true", files.true), ("predicted", files.predicted)):
        if views is not None and views.is_dir():
            inputs[role] = [views / name for name in [*view_names(), *depth_names(NUM_VIEWS)]]
        else:
            inputs[role] = [views]
    return inputs


def evaluate_object(files: ObjectFiles, settings: Settings, folder: Path, key: str) -> Record:
    """Evaluate an object; what fails is noted and does not stop the rest.

    Args:
        files: where everything is.
        settings: how.
        folder: of this object in the report; the record and the pictures go there.
        key: see `key_of`.
    """
    record = Record(key, Result(files.name))
    notes = _Notes(record.warnings)
    logging.getLogger().addHandler(notes)
    try:
        for part, evaluate in (("views", _views), ("mesh", _mesh), ("colmap", _colmap)):
            start = time.perf_counter()
            try:
                record.result = replace(record.result, **evaluate(files, settings, folder))
            except Exception as error:  # noqa: BLE001 - one part's trouble is not that of the others
                record.errors[part] = " ".join(str(error).split()) or type(error).__name__
                record.traces[part] = traceback.format_exc()
            record.seconds[part] = round(time.perf_counter() - start, 2)
    finally:
        logging.getLogger().removeHandler(notes)
    record.save(folder)
    return record


class _Notes(logging.Handler):
    """Keeps what is warned about."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record.getMessage())


def _views(files: ObjectFiles, settings: Settings, folder: Path) -> dict[str, Any]:
    if files.true is None:
        raise FileNotFoundError(f"there are no true views of {files.name} (000.png, ...)")
    if files.predicted is None:
        raise FileNotFoundError(f"there are no predicted views of {files.name} (000.png, ...)")
    if files.true == files.predicted:
        log.warning("the predicted views are the true ones: %s", files.true)
    true, predicted = read_pair(files.true, files.predicted)
    weights = settings.lpips_weights
    lpips = Lpips(weights, torch.device(settings.device)) if weights else None
    scores = score_views(true, predicted, settings.ssim, lpips)
    write_strips(folder, true, predicted)
    result = asdict(scores.result(files.name, settings.ssim))
    return {key: value for key, value in result.items() if value is not None}


def _mesh(files: ObjectFiles, settings: Settings, _: Path) -> dict[str, Any]:
    if files.mesh is None:
        return {}
    if files.true_mesh is None:
        raise FileNotFoundError(f"there is a mesh of {files.name}, but no true one (model.obj)")
    if files.true is None:
        raise FileNotFoundError(f"there is no folder of true views or depth maps of {files.name}")
    scores = evaluate_mesh(
        files.mesh,
        files.true_mesh,
        files.true,
        gso_rotation(files.name),
        torch.device(settings.device),
    )
    return {"chamfer": scores.chamfer, "iou": scores.iou}


def _colmap(files: ObjectFiles, settings: Settings, folder: Path) -> dict[str, Any]:
    if files.predicted is None or settings.points is None:
        return {}
    views = read_views(files.predicted)
    project = folder / COLMAP
    with project_folder(project):
        points = count_points(views, project, open_engine(settings.colmap), settings.points)
    shutil.rmtree(project)
    return {"points": points.count, "points_form": points.form}


def mean_result(results: list[Result]) -> Result:
    """The mean of every score over the objects that have it.

    Args:
        results: of the objects; the forms of SSIM and points are taken to be the same for all.
    """
    means: dict[str, Any] = {}
    for metric in ("psnr", "ssim", "lpips", "chamfer", "iou", "points"):
        values = [v for result in results if (v := getattr(result, metric)) is not None]
        means[metric] = float(np.mean(values)) if values else None
    for form in ("ssim_form", "points_form"):
        means[form] = next((f for result in results if (f := getattr(result, form))), None)
    return Result(name="mean", **means)
