"""Write toys of the generator as .glb files: `python -m demo.toys --help`."""

from common.cli import run_script
from demo.toys.make_toys import main

if __name__ == "__main__":
    run_script(main)
