"""Objects to be rendered: 3D model files in a folder or a list, and their names."""

from __future__ import annotations

import codecs
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.files import check_file_name

LAYOUTS = (("meshes", "model"), ("models", "model_normalized"))
"""Folder and file name, without suffix, of every object of Google Scanned Objects and ShapeNet,
in a folder with the object's name."""
MODEL_SUFFIXES = (".glb", ".gltf", ".fbx", ".obj", ".ply", ".stl")


@dataclass(frozen=True)
class DatasetObject:
    """An object to be rendered: the name of its folders, and its 3D model file."""

    uid: str
    path: Path
    error: str | None = None  # why it is not rendered, found from its name


def find_objects(source: Path, uids: Path | None = None) -> list[DatasetObject]:
    """Find the objects of a folder, a list or a file, sorted by uid.

    `source` is a folder, searched recursively for 3D model files, also through links; a model
    file; or a list: a .txt file with a path in each line, or a .json file with a list of paths or
    with {uid: path}. Paths may be relative to the list's folder. The default uid is the file name
    without suffix, for <name>/meshes/model.obj the name. `uids` is a .txt or .json list of the
    objects to select. A file that is listed twice is one object. Objects that have the same uid,
    or one that is not a valid folder name, have an `error`.

    Raises:
        FileNotFoundError: the folder or list does not exist or is empty, or misses one of `uids`.
        ValueError: a list cannot be read, or all objects have an error.
    """
    if source.is_dir():
        found = [DatasetObject(_default_uid(path), path) for path in sorted(_model_files(source))]
    elif source.suffix.lower() in MODEL_SUFFIXES:
        found = [DatasetObject(_default_uid(source), source)]
    else:
        listed = [(uid, source.parent / path) for uid, path in _read_list(source)]
        found = [
            DatasetObject(uid if uid is not None else _default_uid(path), path)
            for uid, path in listed
        ]
    if not found:
        raise FileNotFoundError(f"{source}: no models found ({' '.join(MODEL_SUFFIXES)})")
    objects = _check_uids(found)
    if uids is not None:
        objects = _select(objects, uids)
    errors = [item.error for item in objects if item.error is not None]
    if len(errors) == len(objects):
        raise ValueError("; ".join(f"{source}: {error}" for error in dict.fromkeys(errors)))
    return sorted(objects, key=lambda item: item.uid)


def _model_files(folder: Path) -> Iterator[Path]:
    """Yield the 3D model files below a folder, except in hidden folders."""
    seen = set()  # links may form a loop
    for root, folders, files in os.walk(folder, followlinks=True):
        seen.add(Path(root).resolve())
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(root) / name).resolve() not in seen
        )
        for name in files:
            path = Path(root) / name
            if path.suffix.lower() in MODEL_SUFFIXES and not name.startswith("."):
                yield path


def _default_uid(path: Path) -> str:
    name = path.parent.parent.name
    return name if name and (path.parent.name, path.stem) in LAYOUTS else path.stem


def _read_list(path: Path) -> list[tuple[str | None, str]]:
    """Read the (uid, path) entries of a list; the uid is None where the list has none."""
    entries = _list_entries(path)
    for _, entry in entries:
        if "\0" in entry or any("\ud800" <= letter < "\udc80" for letter in entry):
            raise ValueError(f"{path}: {entry[:80]!a} is not the name of a file")
    return entries


def _list_entries(path: Path) -> list[tuple[str | None, str]]:
    raw = path.read_bytes()
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # by PowerShell
    try:
        text = raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file (.txt or .json) in UTF-8") from error
    if path.suffix.lower() != ".json":
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        quoted = [len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" for line in lines]
        return [(None, line[1:-1] if q else line) for line, q in zip(lines, quoted, strict=True)]
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    entries = list(content.items()) if isinstance(content, dict) else None
    if entries is None and isinstance(content, list):
        entries = [(None, entry) for entry in content]
    if entries is None or not all(isinstance(entry, str) for _, entry in entries):
        raise ValueError(f"{path}: expected a list of strings, or an object {{uid: path}}")
    return entries


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = [key for key in content if sum(key == other for other, _ in pairs) > 1]
        raise ValueError(f"the keys {', '.join(map(repr, twice[:5]))} are there twice")
    return content


def _check_uids(objects: list[DatasetObject]) -> list[DatasetObject]:
    """Drop repetitions, and add errors to invalid uids and those used twice (ignoring case)."""
    by_uid: dict[str, dict[Path, DatasetObject]] = defaultdict(dict)
    for item in objects:
        by_uid[item.uid.casefold()].setdefault(item.path.resolve(), item)
    checked = []
    for same in map(list, map(dict.values, by_uid.values())):
        for item in same:
            error = _uid_error(item)
            if error is None and len(same) > 1:
                paths = " and ".join(str(other.path) for other in same)
                advice = "rename one, or give a .json of {uid: path}"
                number = "two" if len(same) == 2 else len(same)
                error = f"{number} models have the uid {item.uid!r}: {paths}; {advice}"
            checked.append(replace(item, error=error))
    return checked


def _uid_error(item: DatasetObject) -> str | None:
    """What is wrong with the name of an object or its file; None if nothing is."""
    try:
        str(item.path).encode()
        check_file_name(item.uid)
    except UnicodeEncodeError:
        return f"the name of {str(item.path)!a} is not UTF-8; rename it"
    except ValueError as error:
        return f"the object of {item.path}: its name {error}"
    return f"{item.uid!r} is the name of a hidden folder" if item.uid.startswith(".") else None


def _select(objects: list[DatasetObject], uids: Path) -> list[DatasetObject]:
    """Select the objects of a list; FileNotFoundError if one is missing."""
    wanted = dict.fromkeys(entry for _, entry in _read_list(uids))
    known = {item.uid for item in objects}
    unknown = [uid for uid in wanted if uid not in known]
    if unknown or not wanted:
        first = f", the first: {unknown[0]!r}" if unknown else ""
        count = f"{len(unknown)} of {len(wanted)} objects have no model"
        raise FileNotFoundError(f"{uids}: {count}{first}")
    return [item for item in objects if item.uid in wanted]
