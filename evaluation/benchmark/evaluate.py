"""Evaluation of one object of a benchmark, and the cached record of its scores."""

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

from common.files import atomic_write, sha256
from evaluation.benchmark.dataset import ObjectFiles
from evaluation.benchmark.error_maps import STRIPS, find_strips, write_strips
from evaluation.colmap.engine import open_engine
from evaluation.colmap.points import PointsForm, count_points
from evaluation.colmap.project_folder import MANIFEST, PROJECT_FILES, project_folder
from evaluation.depth import depth_names
from evaluation.image_metrics import SsimForm
from evaluation.lpips import Lpips
from evaluation.mesh_metrics import evaluate_mesh
from evaluation.meshes import gso_rotation
from evaluation.results import Result, escape_unprintable, from_json, to_json
from evaluation.view_metrics import read_pair, score_views
from multiview.cameras import NUM_VIEWS
from multiview.images import view_names
from multiview.views import read_views

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
"""Increased when scores change; records of another version are not reused."""
RECORD, COLMAP = "record.json", "colmap"


@dataclass(frozen=True)
class Settings:
    """Settings of the evaluation, the same for all objects.

    The representation of this class is hashed into the keys of saved records.

    Attributes:
        lpips_weights: file of the LPIPS trunk; None skips LPIPS.
        colmap: COLMAP program; None is pycolmap.
        engine: name and version of COLMAP.
        points: form of the points that are counted; None skips COLMAP.
        device: for LPIPS and depth maps.
    """

    ssim: SsimForm
    lpips_weights: Path | None
    colmap: str | None
    engine: str
    points: PointsForm | None
    device: str


@dataclass
class ObjectRecord:
    """Scores and warnings of an object, saved as `RECORD` in its folder.

    `key` is its `record_key`; the dicts hold the reason of the failure, the duration and the
    traceback of each part: "views", "mesh" and "colmap".
    """

    key: str
    result: Result
    errors: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the record into the folder of the object."""
        with atomic_write(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(to_json(asdict(self)), indent=1), encoding="utf-8")

    def is_complete(self, folder: Path) -> bool:
        """Whether no part failed and all strips exist."""
        scored = self.result.psnr is not None
        return not self.errors and (not scored or find_strips(folder) is not None)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the record and the strips, if they exist."""
        for name in (RECORD, *(f"{strip}.jpg" for strip in STRIPS)):
            (folder / name).unlink(missing_ok=True)

    @staticmethod
    def load(folder: Path) -> ObjectRecord | None:
        """Read the record of a folder; None if it does not exist or is damaged."""
        try:
            record = from_json(json.loads((folder / RECORD).read_text(encoding="utf-8")))
            result = Result(**record["result"])
            mean_result([result])  # fails unless all scores are numbers
            return ObjectRecord(**{**record, "result": result})
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def check_folder(folder: Path) -> None:
    """Check that the folder of an object in a report has only files of previous runs.

    Raises:
        FileExistsError: it has other files.
    """
    project = folder / COLMAP
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    foreign = found - {RECORD, COLMAP, *(f"{strip}.jpg" for strip in STRIPS)}
    if project.is_dir():
        inside = {path.name for path in project.iterdir()} - {MANIFEST, *PROJECT_FILES}
        foreign |= {f"{COLMAP}/{name}" for name in inside}
    if foreign:
        raise FileExistsError(
            f"{folder}: has files that no previous run wrote, such as "
            f"{escape_unprintable(min(foreign))}"
        )


def record_key(files: ObjectFiles, settings: Settings) -> str:
    """Hash of what the record of an object depends on: the settings and the contents of files."""
    digest = hashlib.sha256(repr((PROTOCOL_VERSION, files.name, settings)).encode())
    for role, paths in _inputs(files).items():
        for path in paths:
            if path is not None and path.is_file():
                digest.update(f"\0{role}\0{path.name}\0".encode())
                digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()


def _inputs(files: ObjectFiles) -> dict[str, list[Path | None]]:
    inputs: dict[str, list[Path | None]] = {"mesh": [files.mesh], "true mesh": [files.true_mesh]}
    for role, views in (("true", files.true), ("predicted", files.predicted)):
        if views is not None and views.is_dir():
            inputs[role] = [views / name for name in [*view_names(), *depth_names(NUM_VIEWS)]]
        else:
            inputs[role] = [views]
    return inputs


def evaluate_object(files: ObjectFiles, settings: Settings, folder: Path, key: str) -> ObjectRecord:
    """Evaluate an object; errors of one part are recorded and do not stop the others.

    The record and the strips are written into `folder`, the object's in the report.
    """
    record = ObjectRecord(key, Result(files.name))
    collector = WarningCollector(record.warnings)
    logging.getLogger().addHandler(collector)
    try:
        for part, evaluate in (("views", _views), ("mesh", _mesh), ("colmap", _colmap)):
            start = time.perf_counter()
            try:
                record.result = replace(record.result, **evaluate(files, settings, folder))
            except Exception as error:  # noqa: BLE001 - recorded, other parts continue
                record.errors[part] = " ".join(str(error).split()) or type(error).__name__
                record.traces[part] = traceback.format_exc()
            record.seconds[part] = round(time.perf_counter() - start, 2)
    finally:
        logging.getLogger().removeHandler(collector)
    record.save(folder)
    return record


class WarningCollector(logging.Handler):
    """Log handler that appends the messages of warnings and errors to a list."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self.messages.append(record.getMessage())


def _views(files: ObjectFiles, settings: Settings, folder: Path) -> dict[str, Any]:
    if files.true is None or files.predicted is None:
        missing = "true" if files.true is None else "predicted"
        raise FileNotFoundError(f"no {missing} views of {files.name} found (000.png, ...)")
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
        raise FileNotFoundError(f"{files.name} has a predicted mesh, but no true mesh (model.obj)")
    if files.true is None:
        raise FileNotFoundError(f"no folder of true views or depth maps of {files.name} found")
    rotation, device = gso_rotation(files.name), torch.device(settings.device)
    scores = evaluate_mesh(files.mesh, files.true_mesh, files.true, rotation, device)
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
    """Average each metric over the objects that have it; all have the same forms of metrics."""
    means: dict[str, Any] = {}
    for metric in ("psnr", "ssim", "lpips", "chamfer", "iou", "points"):
        values = [v for result in results if (v := getattr(result, metric)) is not None]
        means[metric] = float(np.mean(values)) if values else None
    for form in ("ssim_form", "points_form"):
        means[form] = next((f for result in results if (f := getattr(result, form))), None)
    return Result(name="mean", **means)
