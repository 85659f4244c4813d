"""Evaluate folders of objects: `python -m evaluation.benchmark --help`."""

from common.cli import run_script
from evaluation.benchmark.run import main

if __name__ == "__main__":
    run_script(main)
