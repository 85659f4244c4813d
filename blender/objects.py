"""Which models are rendered, and what their objects are called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.files import check_file_name

MODEL_TYPES = (".glb", ".gltf", ".fbx", ".obj", ".ply", ".stl")


@dataclass(frozen=True)
class Model:
    """A model to be rendered.

    Attributes:
        uid: name of the object and of its folders.
        path: of the model's file.
    """

    uid: str
    path: Path


def find_models(source: Path, uids: Path | None = None) -> list[Model]:
    """Find models and name their objects.

    Args:
        source: a folder, in which models are looked for at any depth; a model; or a list: a .txt
            with a path in every line, a .json with a list of paths or with {uid: path}. Paths in
            lists may be relative to the list's folder. Objects are called as their files, without
            the suffix.
        uids: take only the objects named in this list, a .txt or .json.

    Returns:
        the models, by uid.

    Raises:
        FileNotFoundError: there is no such folder or list, no model in it, or not one of `uids`.
        ValueError: a list cannot be read, two models have the same uid, or a uid cannot be the
            name of a folder.
    """
    if source.is_dir():
        found = [
            Model(path.stem, path)
            for path in sorted(source.rglob("*"))
            if path.suffix.lower() in MODEL_TYPES
            and not any(part.startswith(".") for part in path.relative_to(source).parts)
        ]
    elif source.suffix.lower() in MODEL_TYPES:
        found = [Model(source.stem, source)]
    else:
        found = [
            Model(uid if uid is not None else Path(path).stem, source.parent / path)
            for uid, path in _read_list(source)
        ]
    if not found:
        raise FileNotFoundError(f"{source}: there are no models in it ({' '.join(MODEL_TYPES)})")
    models = _by_uid(source, found)
    if uids is not None:
        models = _chosen(models, uids)
    return sorted(models.values(), key=lambda model: model.uid)


def _read_list(path: Path) -> list[tuple[str | None, str]]:
    """Entries of a list, each with the uid that the list gives it, if any."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a list, expected text (.txt or .json)") from error
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
        raise ValueError(f"{path}: expected a list of texts, or an object {{uid: path}}")
    return entries


def _by_uid(source: Path, models: list[Model]) -> dict[str, Model]:
    taken: dict[str, Model] = {}
    for model in models:
        try:
            check_file_name(model.uid)
        except ValueError as error:
            raise ValueError(f"{source}: the object of {model.path}: {error}") from error
        if model.uid.startswith("."):
            raise ValueError(f"{source}: {model.uid!r} is the name of a hidden folder")
        other = taken.setdefault(model.uid.casefold(), model)
        if other is not model:
            raise ValueError(
                f"{source}: two models would be the object {model.uid!r}: {other.path} and "
                f"{model.path}; rename one, or give a .json of {{uid: path}}"
            )
    return {model.uid: model for model in taken.values()}


def _chosen(models: dict[str, Model], uids: Path) -> dict[str, Model]:
    wanted = list(dict.fromkeys(entry for _, entry in _read_list(uids)))
    unknown = [uid for uid in wanted if uid not in models]
    if unknown or not wanted:
        raise FileNotFoundError(
            f"{uids}: {len(unknown)} of {len(wanted)} objects have no model"
            + (f", the first: {unknown[0]!r}" if unknown else "")
        )
    return {uid: models[uid] for uid in wanted}
