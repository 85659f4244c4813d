"""Where the files of the objects of a benchmark are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from multiview.images import view_names


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
        found |= {path.parent.name for path in self.predicted.glob("*/0.png")}
        # any other picture may lie there too, so that a strip counts only where there is an object
        flat = {path.stem for path in self.predicted.glob("*.png")}
        return sorted(found | {name for name in flat if self.find(name).true})

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
        if not bare:
            continue
        if _has_views(folder) or any(map(_has_views, _folders(root, bare, suffix))):
            yield bare
