"""Compare checkpoints with a model and convert them: `python -m ldm.checkpoint --help`."""

from common.cli import run_script
from ldm.checkpoint.load import main

if __name__ == "__main__":
    run_script(main)
