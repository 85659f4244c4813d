"""Folders of true and predicted objects: finding the files of each object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from multiview.views import view_files


@dataclass(frozen=True)
class ObjectFiles:
    """The files of one object; None for those that do not exist."""

    name: str
    true: Path | None  # folder of views and depth maps
    predicted: Path | None  # folder or strip of views
    mesh: Path | None  # predicted
    true_mesh: Path | None
    video: Path | None  # turntable of the predicted mesh


class BenchmarkDataset:
    """Objects in folders with the layout of the published example or of this project's commands.

    Views are in `<name>`, `<name>-gt` or `<name>-pr`, or `<name>/<name>-gt` or `-pr`; predictions
    may also be strips `<name>/0.png` or `<name>.png`. Predicted meshes are `mesh.ply` in any of
    these folders, `<name>.ply` or `<name>-pr.ply`; true meshes are `model.obj` or
    `meshes/model.obj` in any of them or in `<name>-mesh`. `meshes` is the folder of the predicted
    meshes if they are not in `predicted`. FileNotFoundError: a folder does not exist.
    """

    def __init__(self, true: Path, predicted: Path, meshes: Path | None) -> None:
        for folder in (true, predicted, *([meshes] if meshes else [])):
            if not folder.is_dir():
                raise FileNotFoundError(f"{folder}: no such folder (of objects)")
        self.true, self.predicted, self.meshes = true, predicted, meshes or predicted

    def names(self) -> list[str]:
        """Sorted names of all objects with true or predicted views."""
        found = {*_names_in(self.true, "-gt", "-pr"), *_names_in(self.predicted, "-pr", "-gt")}
        found |= {path.parent.name for path in self.predicted.glob("*/0.png")}
        # other images may be in the folder: strips count only for objects with true views
        flat = {path.stem for path in self.predicted.glob("*.png")}
        return sorted(found | {name for name in flat if self.find(name).true})

    def find(self, name: str) -> ObjectFiles:
        """Find the files of one object."""
        true = _first(_folders(self.true, name, "-gt"), _has_views)
        predicted = _first(_folders(self.predicted, name, "-pr"), _has_views) or _first(
            [self.predicted / name / "0.png", self.predicted / f"{name}.png"], Path.is_file
        )
        folders = _folders(self.meshes, name, "-pr")
        meshes = [folder / "mesh.ply" for folder in folders]
        meshes += [self.meshes / f"{name}.ply", self.meshes / f"{name}-pr.ply"]
        true_meshes = [
            folder / file
            for suffix in ("-mesh", "-gt")
            for folder in _folders(self.true, name, suffix)
            for file in ("model.obj", "meshes/model.obj")
        ]
        videos = [folder / "rendering.mp4" for folder in folders]
        found = [_first(paths, Path.is_file) for paths in (meshes, true_meshes, videos)]
        return ObjectFiles(name, true, predicted, *found)


def _folders(root: Path, name: str, suffix: str) -> list[Path]:
    suffixed = f"{name}{suffix}"
    return [root / suffixed, root / name / suffixed, root / name]


def _first(paths: list[Path], fits: Callable[[Path], bool]) -> Path | None:
    return next((path for path in paths if fits(path)), None)


def _has_views(folder: Path) -> bool:
    """Whether a folder has any view; incomplete sets are reported when they are read.

    0.png may be a strip.
    """
    return any(len(file.stem) == 3 for of in view_files(folder).values() for file in of)


def _names_in(root: Path, suffix: str, other: str) -> Iterator[str]:
    for folder in root.iterdir():
        name = folder.name
        if name.startswith(".") or name.endswith(other) or not folder.is_dir():
            continue
        bare = name.removesuffix(suffix)
        if bare and any(map(_has_views, [folder, *_folders(root, bare, suffix)])):
            yield bare
