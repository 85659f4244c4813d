"""Packages that are imported only when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

EVALUATION = "requirements/eval.txt"


def import_optional(
    module: str, purpose: str, requirements: str = "requirements.txt"
) -> ModuleType:
    """Import a module when it is needed, or say what to install.

    Args:
        module: e.g. "scipy.ndimage".
        purpose: what it is for, to begin a sentence with.
        requirements: the file that lists its package.

    Raises:
        ModuleNotFoundError: it cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs the package {module.split('.')[0]}, which cannot be imported "
            f"({error}); pip install -r {requirements}"
        ) from error
