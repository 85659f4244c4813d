"""Evaluation of one object of a benchmark, the cached record of its scores, and its strips."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common.cli import project_file
from common.files import atomic_write, sha256
from evaluation.benchmark.dataset import ObjectFiles
from evaluation.colmap.engine import open_engine
from evaluation.colmap.points import PointsForm, count_points
from evaluation.colmap.project_folder import MANIFEST, PROJECT_FILES, project_folder
from evaluation.depth import depth_names
from evaluation.image_metrics import SsimForm
from evaluation.lpips import Lpips
from evaluation.mesh_hygiene import measure_hygiene
from evaluation.mesh_metrics import evaluate_mesh
from evaluation.meshes import gso_rotation
from evaluation.results import BENCHMARK_ONLY, Result, escape_unprintable, from_json, to_json
from evaluation.view_metrics import read_pair, score_views
from multiview.cameras import NUM_VIEWS
from multiview.images import views_to_strip
from multiview.views import read_views, view_files

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 2
"""Increased when scores change; records of another version are not reused."""
RECORD, COLMAP = "record.json", "colmap"
STRIPS = {"true": "ground truth", "predicted": "prediction", "error": "error map"}
"""Name of each strip (file `<name>.jpg`) and its caption."""
MAX_VIEW_SIZE = 256
"""Pixels a side of the strips' views; larger ones are downscaled."""
FULL_SCALE = 0.5
"""Mean absolute difference of the channels at the end of the colour map."""
COLOUR_MAP = np.array(
    [[255, 255, 255], [255, 226, 120], [244, 132, 50], [178, 34, 60], [58, 8, 60]], dtype=np.float64
)
"""RGB colours, evenly spaced from no difference to `FULL_SCALE`."""


@dataclass(frozen=True)
class Settings:
    """Settings of all objects' evaluation; the representation is hashed into records' keys."""

    ssim: SsimForm
    lpips_weights: Path | None  # file of the LPIPS trunk; None skips LPIPS
    colmap: str | None  # program; None is pycolmap
    engine: str  # name and version of COLMAP
    points: PointsForm | None  # None skips COLMAP
    device: str  # for LPIPS, depth maps and the self-consistency
    self_consistency: bool = False


@dataclass
class ObjectRecord:
    """Scores and warnings of an object, saved as `RECORD` in its folder.

    `key` is its `record_key`; the dicts hold the reason of the failure, the duration and the
    traceback of each part, see `PARTS`.
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
    """Raise FileExistsError if an object's folder has other files than those of previous runs."""
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
            depths = [views / name for name in depth_names(NUM_VIEWS)]
            inputs[role] = [*chain(*view_files(views).values()), *depths]
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
        for part, evaluate in PARTS.items():
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
    result = asdict(score_views(files.name, true, predicted, settings.ssim, lpips))
    write_strips(folder, true, predicted)
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
    return {"chamfer": scores.chamfer, "iou": scores.iou, "normals": scores.normals}


def _colmap(files: ObjectFiles, settings: Settings, folder: Path) -> dict[str, Any]:
    if files.predicted is None or settings.points is None:
        return {}
    views = read_views(files.predicted)
    project = folder / COLMAP
    with project_folder(project):
        points = count_points(views, project, open_engine(settings.colmap), settings.points)
    shutil.rmtree(project)
    return {"points": points.count, "points_form": points.form}


def _hygiene(files: ObjectFiles, *_: Any) -> dict[str, Any]:
    return {} if files.mesh is None else {"hygiene": measure_hygiene(files.mesh)}


def _self_consistency(files: ObjectFiles, settings: Settings, _: Path) -> dict[str, Any]:
    if files.predicted is None or not settings.self_consistency:
        return {}
    from evaluation.benchmark.self_consistency import self_consistency
    from renderer.config import load_renderer_config

    config = load_renderer_config(project_file("configs/neus.yaml"), "fast")
    distance, ratio = self_consistency(files.predicted, config, torch.device(settings.device))
    return {"self_chamfer": distance, "self_psnr": ratio}


PARTS = {
    "views": _views,
    "mesh": _mesh,
    "colmap": _colmap,
    "hygiene": _hygiene,
    "self-consistency": _self_consistency,
}
"""What is measured of an object, by the name of the part in its record."""


def mean_result(results: list[Result]) -> Result:
    """Average each metric over the objects that have it; all have the same forms of metrics."""
    means: dict[str, Any] = {}
    metrics = ("psnr", "ssim", "lpips", "chamfer", "iou", "normals", "points", *BENCHMARK_ONLY)
    for metric in metrics:
        values = [v for result in results if (v := getattr(result, metric)) is not None]
        means[metric] = float(np.mean(values)) if values else None
    for form in ("ssim_form", "points_form"):
        means[form] = next((f for result in results if (f := getattr(result, form))), None)
    return Result(name="mean", **means)


def error_map(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Colour-code the difference of views: white for equal, dark for `FULL_SCALE` or more.

    Views and error maps are RGB in [0, 1], (N, S, S, 3).
    """
    error = np.abs(true - predicted).mean(axis=-1) / FULL_SCALE
    stops = np.linspace(0, 1, len(COLOUR_MAP))
    channels = [np.interp(error, stops, channel) for channel in COLOUR_MAP.T]
    return np.stack(channels, axis=-1) / 255


def write_strips(folder: Path, true: np.ndarray, predicted: np.ndarray) -> None:
    """Write true.jpg, predicted.jpg and error.jpg of views in [0, 1], (N, S, S, 3)."""
    for name, views in zip(STRIPS, (true, predicted, error_map(true, predicted)), strict=True):
        strip = Image.fromarray((views_to_strip(views) * 255).round().astype(np.uint8))
        if strip.height > MAX_VIEW_SIZE:
            strip = strip.resize((len(true) * MAX_VIEW_SIZE, MAX_VIEW_SIZE))
        with atomic_write(folder / f"{name}.jpg") as temporary:
            strip.save(temporary, quality=85)


def find_strips(folder: Path) -> dict[str, Path] | None:
    """The strips that `write_strips` wrote into a folder; None if any is missing."""
    paths = {name: folder / f"{name}.jpg" for name in STRIPS}
    complete = all(path.is_file() and path.stat().st_size for path in paths.values())
    return paths if complete else None
