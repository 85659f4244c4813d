"""The commands, for an installation without a clone: `syncdreamer image_to_3d photo.jpg -o out`."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from common.cli import run_script

COMMANDS = {
    "image_to_3d": "image_to_3d",
    "generate": "generate",
    "train_renderer": "train_renderer",
    "foreground_segment": "foreground_segment",
    "app": "app",
    "download": "ldm.download.__main__",
    "convert": "ldm.checkpoint.__main__",
    "eval_nvs": "eval_nvs",
    "eval_mesh": "eval_mesh",
    "eval_colmap": "eval_colmap",
    "render_batch": "render_batch",
    "train_syncdreamer": "train_syncdreamer",
    "train_autoencoder": "train_autoencoder",
}
"""Name of a command -> its module."""


def main() -> None:
    """Run the command that the first argument names."""
    parser = argparse.ArgumentParser("syncdreamer", "syncdreamer <command> [flags]")
    parser.add_argument("command", choices=COMMANDS, help="--help after it shows its flags")
    name = parser.parse_args(sys.argv[1:2]).command
    sys.argv = [f"syncdreamer {name}", *sys.argv[2:]]
    run_script(import_module(COMMANDS[name]).main)


if __name__ == "__main__":
    main()
