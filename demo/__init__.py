"""How the bundled small model is made: data, training of its parts, evaluation (README.md)."""

REQUIREMENTS = "requirements/demo.txt"
"""Lists the packages that this folder needs beyond the core ones."""
