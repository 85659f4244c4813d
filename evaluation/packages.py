"""The packages that only the evaluation needs."""

from __future__ import annotations

import importlib
from types import ModuleType


def need(module: str, purpose: str) -> ModuleType:
    """Import a module of requirements-eval.txt when it is needed.

    Args:
        module: e.g. "scipy.ndimage".
        purpose: what it is for, to begin a sentence with.

    Raises:
        ModuleNotFoundError: it cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs the package {module.split('.')[0]}, which cannot be imported "
            f"({error}); pip install -r requirements-eval.txt"
        ) from error
