"""Pack a training set into tar shards and check them: `python -m ldm.shards --help`."""

from common.cli import run_script
from ldm.data.pack_shards import main

if __name__ == "__main__":
    run_script(main)
