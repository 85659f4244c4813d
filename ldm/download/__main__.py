"""Download weights into ckpt/: the published model's, or those that training starts from.

    python -m ldm.download                                     # syncdreamer-pretrain.ckpt, 5.57 GB
    python -m ldm.download --convert bf16 --remove_original    # 2.8 GB stay
    python -m ldm.download zero123-xl                          # for training, 15 GB
    python -m ldm.download clip                                # for training, 0.9 GB

An interrupted download goes on when the command is run again; a complete one is not repeated.
HF_ENDPOINT names a mirror of the Hub, HTTPS_PROXY a proxy, HF_TOKEN a token.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from common.cli import HelpFormatter, run_script, weights_folder
from ldm.download.catalogue import FILES
from ldm.download.fetch import fetch

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Build the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m ldm.download", description=__doc__, formatter_class=HelpFormatter
    )
    add = parser.add_argument
    add("file", nargs="?", choices=FILES, default="syncdreamer", help="what to download")
    add("--out", type=Path, default=Path("ckpt"), help="folder for it")
    add("--convert", choices=["bf16", "fp16"], help="also write it in this type, half the size")
    add("--remove_original", action="store_true", help="delete the download once it is converted")
    add("--debug", action="store_true", help="show a traceback on failure")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Download a file, and convert it."""
    parser = build_parser()
    args = parser.parse_args(argv)
    remote, folder = FILES[args.file], weights_folder(args.out)
    if args.convert and args.file != "syncdreamer":
        parser.error(f"--convert is for syncdreamer only, not for {args.file}")
    if args.remove_original and not args.convert:
        parser.error("--remove_original needs --convert")
    log.info("licence of %s: %s", remote.name, remote.licence)
    if not args.convert:
        fetch(remote, folder)
        return
    converted = folder / f"{Path(remote.name).stem}-{args.convert}.safetensors"
    if converted.exists():
        log.info("%s exists already", converted)
    else:
        from ldm.checkpoint.load import DTYPES, convert

        original = fetch(remote, folder, spare=(remote.size or 0) // 2)
        convert(original, converted, DTYPES[args.convert])
        log.info("wrote %s", converted)
    if args.remove_original:
        (folder / remote.name).unlink(missing_ok=True)
        log.info("removed %s", folder / remote.name)


if __name__ == "__main__":
    run_script(main)
