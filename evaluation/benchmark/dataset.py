"""Folders of true and predicted objects: finding the files of each object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
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
    meshes if they are not beside the predicted views.

    Of several folders the first that has an object's views counts; instead of a folder, `predicted`
    may have a strip `<name>.png`. True views that are their own prediction bring the true mesh, if
    there is no other. FileNotFoundError: a folder or strip does not exist.
    """

    def __init__(
        self, true: Sequence[Path], predicted: Sequence[Path], meshes: Path | None
    ) -> None:
        for path in (*true, *predicted, *([meshes] if meshes else [])):
            if not (path.is_dir() or (path in predicted and path.is_file())):
                raise FileNotFoundError(f"{path}: no such folder (of objects)")
        self.true, self.predicted, self.meshes = true, predicted, meshes

    def names(self) -> list[str]:
        """Sorted names of all objects with true or predicted views."""
        folders = [path for path in self.predicted if path.is_dir()]
        found = {name for folder in self.true for name in _names_in(folder, "-gt", "-pr")}
        found |= {name for folder in folders for name in _names_in(folder, "-pr", "-gt")}
        found |= {path.parent.name for folder in folders for path in folder.glob("*/0.png")}
        found |= {path.stem for path in self.predicted if path not in folders}
        # other images may be in the folder: strips count only for objects with true views
        flat = {path.stem for folder in folders for path in folder.glob("*.png")}
        return sorted(found | {name for name in flat - found if self.find(name).true})

    def find(self, name: str) -> ObjectFiles:
        """Find the files of one object."""
        true = _first(chain(*(_folders(root, name, "-gt") for root in self.true)), _has_views)
        predicted, root = None, self.predicted[0]
        for root in self.predicted:
            predicted = _predicted_views(root, name)
            if predicted:
                break
        root = self.meshes or (root if root.is_dir() else root.parent)
        folders = _folders(root, name, "-pr")
        meshes = [folder / "mesh.ply" for folder in folders]
        meshes += [root / f"{name}.ply", root / f"{name}-pr.ply"]
        true_meshes = [
            folder / file
            for root in self.true
            for suffix in ("-mesh", "-gt")
            for folder in _folders(root, name, suffix)
            for file in ("model.obj", "meshes/model.obj")
        ]
        videos = [folder / "rendering.mp4" for folder in folders]
        mesh, true_mesh, video = (
            _first(paths, Path.is_file) for paths in (meshes, true_meshes, videos)
        )
        if mesh is None and predicted == true:
            mesh = true_mesh
        return ObjectFiles(name, true, predicted, mesh, true_mesh, video)


def _predicted_views(root: Path, name: str) -> Path | None:
    """The predicted views of an object in a folder, or the strip itself."""
    if root.is_file():
        return root if root.stem == name else None
    strips = [root / name / "0.png", root / f"{name}.png"]
    return _first(_folders(root, name, "-pr"), _has_views) or _first(strips, Path.is_file)


def _folders(root: Path, name: str, suffix: str) -> list[Path]:
    suffixed = f"{name}{suffix}"
    return [root / suffixed, root / name / suffixed, root / name]


def _first(paths: Iterable[Path], fits: Callable[[Path], bool]) -> Path | None:
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
