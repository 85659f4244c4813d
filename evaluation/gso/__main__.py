"""The paper's scanned objects: `python -m evaluation.gso download --help`."""

from common.cli import run_script
from evaluation.gso.download import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    run_script(main)
