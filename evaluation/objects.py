"""One object of a benchmark: where its files are, and all its scores."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.colmap import Form, count_points, project_folder
from evaluation.colmap_engines import open_engine
from evaluation.depth import depth_names
from evaluation.gallery import write_strips
from evaluation.image_metrics import SsimForm
from evaluation.mesh_metrics import evaluate_mesh
from evaluation.meshes import gso_rotation
from evaluation.perceptual import Lpips
from evaluation.results import Result, to_json
from evaluation.view_metrics import read_pair, score_views
from evaluation.views import NUM_VIEWS, read_views, view_names
from multiview.runtime import atomic_write

log = logging.getLogger(__name__)

PROTOCOL = 1
"""Raised when scores change; records of another number are made anew."""
RECORD = "record.json"


@dataclass(frozen=True)
class ObjectFiles:
    """What there is of an object; None where there is nothing.

    Attributes:
        name: of the object.
        true: its true views (and depth maps).
        predicted: its predicted views, a folder or a strip.
        mesh: the predicted mesh.
        true_mesh: the object's own mesh.
        video: of the predicted mesh turning.
    """

    name: str
    true: Path | None
    predicted: Path | None
    mesh: Path | None
    true_mesh: Path | None
    video: Path | None


@dataclass(frozen=True)
class Settings:
    """How all objects are evaluated; found out once, so that all are evaluated alike.

    Attributes:
        ssim: form of the SSIM.
        lpips_weights: file of the LPIPS trunk; None leaves LPIPS out.
        colmap: COLMAP's program; None is pycolmap.
        engine: its name and version.
        points: which points are counted.
        device: for LPIPS and depth maps.
    """

    ssim: SsimForm
    lpips_weights: Path | None
    colmap: str | None
    engine: str
    points: Form
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
    """

    key: str
    result: Result
    errors: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write `RECORD` into the object's folder."""
        with atomic_write(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(to_json(asdict(self)), indent=1), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Record | None:
        """Read `RECORD`; None where there is none, or one that cannot be used."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            scores: dict[str, Any] = {
                key: float(value) if value in ("inf", "nan") else value
                for key, value in record.pop("result").items()
            }
            return Record(result=Result(**scores), **record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


class Finder:
    """Finds objects' files in the layouts of the published example and of our own commands.

    With `<name>` the object's, views are looked for in `<name>`, `<name>-gt` or `<name>-pr`, and
    `<name>/<name>-gt` or `-pr`; predictions also as strips `<name>/0.png` and `<name>.png`;
    predicted meshes as `mesh.ply` in any of these folders, `<name>.ply` or `<name>-pr.ply`; true
    meshes as `model.obj` or `meshes/model.obj` in them or in `<name>-mesh`.

    Args:
        true: folder of the true objects.
        predicted: folder of the predicted ones.
        meshes: folder of their meshes, if it is another.

    Raises:
        FileNotFoundError: a folder does not exist.
    """

    def __init__(self, true: Path, predicted: Path, meshes: Path | None) -> None:
        for folder in (true, predicted, *([meshes] if meshes else [])):
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder}: no such folder of objects")
        self.true, self.predicted, self.meshes = true, predicted, meshes or predicted

    def names(self) -> list[str]:
        """All objects of which there are true or predicted views, by name."""
        found = {*_names_in(self.true, "-gt", "-pr"), *_names_in(self.predicted, "-pr", "-gt")}
        strips = {path.stem for path in self.predicted.glob("*.png")}
        return sorted(found | {name for name in strips if self.find(name).true})

    def find(self, name: str) -> ObjectFiles:
        """Find the files of one object."""
        true = _first(_folders(self.true, name, "-gt"), _has_views)
        predicted = _first(_folders(self.predicted, name, "-pr"), _has_views) or _first(
            [self.predicted / name / "0.png", self.predicted / f"{name}.png"], Path.is_file
        )
        folders = _folders(self.meshes, name, "-pr")
        flat = [self.meshes / f"{name}.ply", self.meshes / f"{name}-pr.ply"]
        mesh = _first([*(folder / "mesh.ply" for folder in folders), *flat], Path.is_file)
        own = [
            folder for suffix in ("-mesh", "-gt") for folder in _folders(self.true, name, suffix)
        ]
        return ObjectFiles(
            name=name,
            true=true,
            predicted=predicted,
            mesh=mesh,
            true_mesh=_first(
                [path for f in own for path in (f / "model.obj", f / "meshes" / "model.obj")],
                Path.is_file,
            ),
            video=_first([folder / "rendering.mp4" for folder in folders], Path.is_file),
        )


def _folders(root: Path, name: str, suffix: str) -> list[Path]:
    marked = f"{name}{suffix}"
    return [root / marked, root / name / marked, root / name]


def _first(paths: list[Path], fits: Callable[[Path], bool]) -> Path | None:
    return next((path for path in paths if fits(path)), None)


def _has_views(folder: Path) -> bool:
    """Whether any view is there: incomplete sets are found, and reported when they are read."""
    return any((folder / name).is_file() for name in view_names())


def _names_in(root: Path, suffix: str, other: str) -> Iterator[str]:
    for folder in root.iterdir():
        name = folder.name
        if name.startswith(".") or name.endswith(other) or not folder.is_dir():
            continue
        bare = name.removesuffix(suffix)
        if _has_views(folder) or any(map(_has_views, _folders(root, bare, suffix))):
            yield bare


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


def evaluate_object(files: ObjectFiles, settings: Settings, folder: Path) -> Record:
    """Evaluate an object; what fails is noted and does not stop the rest.

    Args:
        files: where everything is.
        settings: how.
        folder: of this object in the report; the record and the pictures go there.
    """
    record = Record(key_of(files, settings), Result(files.name))
    notes = _Notes(record.warnings)
    logging.getLogger().addHandler(notes)
    try:
        for part, evaluate in (("views", _views), ("mesh", _mesh), ("colmap", _colmap)):
            start = time.perf_counter()
            try:
                record.result = replace(record.result, **evaluate(files, settings, folder))
            except Exception as error:  # whatever goes wrong with one part of one object
                log.debug("%s of %s", part, files.name, exc_info=True)
                record.errors[part] = " ".join(str(error).split()) or type(error).__name__
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


def _colmap(files: ObjectFiles, settings: Settings, _: Path) -> dict[str, Any]:
    if files.predicted is None:
        return {}
    views = read_views(files.predicted)
    with project_folder(None) as project:
        points = count_points(views, project, open_engine(settings.colmap), settings.points)
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
