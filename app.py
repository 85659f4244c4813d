"""A web page that turns one image of an object into a 3D model.

    python app.py

serves http://127.0.0.1:7860, reachable from this machine only. A visitor uploads an image, corrects
the mask, and sees the progress of the 16 views and the mesh. Jobs of several visitors are queued.
Sessions are isolated from each other, and their files are deleted when the page is closed. It needs
Gradio (requirements/app.txt). With --api there is an HTTP interface, too: docs/webapp.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path

from common.cli import HelpFormatter, add_common_flags, advise, run_script
from common.files import read_text
from pipeline.cli_args import add_pipeline_flags, parse_flags

EXAMPLES = Path(__file__).parent / "testset"
MIN_TOKEN = 16
"""Shorter tokens can be guessed."""


def build_parser() -> argparse.ArgumentParser:
    """The command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--host", default="127.0.0.1",
        help="address to listen at; 0.0.0.0 admits other machines: use a reverse proxy with "
        "TLS")  # fmt: skip
    add("--port", type=int, default=7860, help="port to listen at; 0 takes a free one")
    add("--max_queue", type=int, default=20, help="waiting visitors, or jobs; more are refused")
    add("--max_upload_mb", type=int, default=20, help="largest image file, MB")
    add("--examples", type=Path, default=EXAMPLES, help="folder of example images")
    add("--api", action="store_true", help="serve the HTTP interface, too; its page is at /docs")
    add("--jobs", type=Path, default="output/jobs",
        help="folder of its jobs, with which a server that is started again goes on")  # fmt: skip
    add("--token_file", type=Path,
        help="file of one line, the token that the page and the interface ask for: Authorization: "
        "Bearer <token>, or as the password in a browser")  # fmt: skip
    add("--domain", action="append", default=[],
        help="name of this server behind a reverse proxy, may be given again; without it, a server "
        "at 127.0.0.1 has only the name localhost")  # fmt: skip
    add_pipeline_flags(parser, "fast")
    add_common_flags(parser)
    return parser


def read_token(path: Path | None) -> str:
    """The token in a file, empty without one; ValueError if it is short, or has spaces."""
    if path is None:
        return ""
    token = read_text(path).strip()
    if len(token) < MIN_TOKEN or not re.fullmatch(r"[!-~]+", token):
        raise ValueError(
            f"{path}: expected one line, a token of at least {MIN_TOKEN} ASCII letters, digits or "
            f"signs without spaces; python -c 'import secrets; print(secrets.token_urlsafe())' "
            f"makes one"
        )
    return token


def main(argv: list[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    args = parse_flags(build_parser(), argv)
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the web page needs Gradio: pip install -r requirements/app.txt")
    from pipeline.config import read_config
    from pipeline.image_list import collect_images
    from webapp.server import Interface, Limits, listen, open_server, serve
    from webapp.service import ELEVATIONS

    lowest, highest = ELEVATIONS
    if args.elevation != "auto" and not lowest <= args.elevation <= highest:
        raise ValueError(
            f"--elevation must be auto or from {lowest:g} to {highest:g}, got {args.elevation:g}"
        )
    domains = tuple(name.lower() for name in args.domain)
    interface = Interface(args.jobs if args.api else None, read_token(args.token_file), domains)
    config, view_generator = read_config(args)
    examples = [path for path, _ in collect_images([args.examples], Path()) if path.exists()]
    with advise("; choose another --host or --port", OSError):
        bound = listen(args.host, args.port)  # before loading the weights, which is slow
    with bound:
        view_generator.model()
        limits = Limits(args.max_queue, args.max_upload_mb)
        given = view_generator, config, examples, limits, interface, bound
        with open_server(*given) as (server, _):
            serve(server, bound)


if __name__ == "__main__":
    run_script(main)
