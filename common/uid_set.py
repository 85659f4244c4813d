"""The list of a training set's objects, `uid_set.pkl`, as any tool may have written it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.files import check_file_name
from common.safe_pickle import read_pickle

ADVICE = "; expected a pickled list of the names of the folders in target/"


def read_uid_set(path: Path) -> list[str]:
    """Read the names of objects, which are unique and file names.

    They may be in a list, tuple, set (sorted then) or array, and be texts or UTF-8 bytes.
    ValueError says what else the file holds. Nothing in it is run.
    """
    try:
        content = read_pickle(path)
    except ValueError as error:
        raise ValueError(f"{error}{ADVICE}") from error
    if isinstance(content, np.ndarray) and content.ndim == 1:
        content = content.tolist()
    if not isinstance(content, list | tuple | set | frozenset):
        raise ValueError(f"{path}: holds {_kind(content)}{ADVICE}")
    names = []
    for name in content:
        try:
            names.append(name.decode() if isinstance(name, bytes) else name)
        except UnicodeDecodeError:
            raise ValueError(f"{path}: the name {name!r} is not UTF-8") from None
        if not isinstance(names[-1], str):
            raise ValueError(f"{path}: holds {_kind(name)} among the names of objects{ADVICE}")
        try:
            check_file_name(names[-1])
        except ValueError as error:
            raise ValueError(f"{path}: object {names[-1]!r}: {error}") from error
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: object {name} is listed twice")
        seen.add(name)
    return (
        sorted(map(str, names)) if isinstance(content, set | frozenset) else list(map(str, names))
    )


def _kind(content: object) -> str:
    return f"{type(content).__name__} {str(content)[:40]!r}"
