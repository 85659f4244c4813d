"""Packages that are imported only when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

EVALUATION = "requirements/eval.txt"


def import_optional(
    module: str, purpose: str, requirements: str = "requirements.txt"
) -> ModuleType:
    """Import a module, or raise an error that names what to install.

    Args:
        module: e.g. "scipy.ndimage".
        purpose: begins the message, e.g. "writing videos".
        requirements: the file that lists its package.

    Raises:
        ModuleNotFoundError: the import fails.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs the package {module.split('.')[0]}, which cannot be imported "
            f"({error}); pip install -r {requirements}"
        ) from error
