"""Objects to be rendered: 3D model files in a folder or a list, and their names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.files import check_file_name

MODEL_SUFFIXES = (".glb", ".gltf", ".fbx", ".obj", ".ply", ".stl")


@dataclass(frozen=True)
class DatasetObject:
    """An object to be rendered: the name of its folders, and its 3D model file."""

    uid: str
    path: Path


def find_objects(source: Path, uids: Path | None = None) -> list[DatasetObject]:
    """Find the objects of a folder, a list or a file, sorted by uid.

    `source` is a folder, searched recursively for 3D model files; a model file; or a list: a .txt
    file with a path in each line, or a .json file with a list of paths or with {uid: path}. Paths
    may be relative to the list's folder. The default uid is the file name without suffix. `uids` is
    a .txt or .json list of the objects to select.

    Raises:
        FileNotFoundError: the folder or list does not exist or is empty, or misses one of `uids`.
        ValueError: a list cannot be read, two files have the same uid, or a uid is not a valid
            folder name.
    """
    if source.is_dir():
        found = [
            DatasetObject(path.stem, path)
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in MODEL_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(source).parts)
        ]
    elif source.suffix.lower() in MODEL_SUFFIXES:
        found = [DatasetObject(source.stem, source)]
    else:
        found = [
            DatasetObject(uid if uid is not None else Path(path).stem, source.parent / path)
            for uid, path in _read_list(source)
        ]
    if not found:
        raise FileNotFoundError(f"{source}: no models found ({' '.join(MODEL_SUFFIXES)})")
    objects = _by_uid(source, found)
    if uids is not None:
        objects = _select(objects, uids)
    return sorted(objects.values(), key=lambda item: item.uid)


def _read_list(path: Path) -> list[tuple[str | None, str]]:
    """Read the (uid, path) entries of a list; the uid is None where the list has none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file (.txt or .json)") from error
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in text.splitlines()]
        return [(None, line) for line in lines if line and not line.startswith("#")]
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    entries = list(content.items()) if isinstance(content, dict) else None
    if entries is None and isinstance(content, list):
        entries = [(None, entry) for entry in content]
    if entries is None or not all(isinstance(entry, str) for _, entry in entries):
        raise ValueError(f"{path}: expected a list of strings, or an object {{uid: path}}")
    return entries


def _by_uid(source: Path, objects: list[DatasetObject]) -> dict[str, DatasetObject]:
    """Index objects by uid; ValueError if a uid is invalid or used twice (ignoring case)."""
    taken: dict[str, DatasetObject] = {}
    for item in objects:
        try:
            check_file_name(item.uid)
        except ValueError as error:
            raise ValueError(f"{source}: the object of {item.path}: {error}") from error
        if item.uid.startswith("."):
            raise ValueError(f"{source}: {item.uid!r} is the name of a hidden folder")
        other = taken.setdefault(item.uid.casefold(), item)
        if other is not item:
            raise ValueError(
                f"{source}: two models have the uid {item.uid!r}: {other.path} and {item.path}; "
                f"rename one, or give a .json of {{uid: path}}"
            )
    return {item.uid: item for item in taken.values()}


def _select(objects: dict[str, DatasetObject], uids: Path) -> dict[str, DatasetObject]:
    """Select the objects of a list; FileNotFoundError if one is missing."""
    wanted = list(dict.fromkeys(entry for _, entry in _read_list(uids)))
    unknown = [uid for uid in wanted if uid not in objects]
    if unknown or not wanted:
        first = f", the first: {unknown[0]!r}" if unknown else ""
        count = f"{len(unknown)} of {len(wanted)} objects have no model"
        raise FileNotFoundError(f"{uids}: {count}{first}")
    return {uid: objects[uid] for uid in wanted}
