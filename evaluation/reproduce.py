"""Measure the paper's objects beside published numbers: `python -m evaluation.reproduce --help`."""

from common.cli import run_script
from pipeline.reproduction.run import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    run_script(main)
