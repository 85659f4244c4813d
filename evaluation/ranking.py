"""Order samples by how well their views fit together: `python -m evaluation.ranking --help`."""

from common.cli import run_script
from pipeline.selection.ranking import main

if __name__ == "__main__":
    run_script(main)
