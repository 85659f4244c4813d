"""Packages that are imported only when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

EVALUATION = "requirements/eval.txt"


def import_optional(
    module: str, purpose: str, requirements: str = "requirements.txt"
) -> ModuleType:
    """Import a module, or raise a ModuleNotFoundError that names what to install.

    `purpose` begins the message, e.g. "writing videos"; `requirements` lists the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs the package {module.split('.')[0]}, which cannot be imported "
            f"({error}); pip install -r {requirements}"
        ) from error
