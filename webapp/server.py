"""The web server: what it answers, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.image_to_3d import Settings
from pipeline.view_generator import Drawer
from webapp.middleware import Guard
from webapp.service import Maker
from webapp.sessions import Visits, server_folder, swept

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

STYLE = Path(__file__).parent / "style.css"
GOODBYE_SECONDS = 3
"""How long the end waits for open connections: pages keep theirs open."""


@dataclass(frozen=True)
class Limits:
    """What is let in.

    Attributes:
        max_queue: visitors that wait at most.
        max_upload_mb: size of a file, MB.
    """

    max_queue: int = 20
    max_upload_mb: int = 20


def not_cancelled(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's log is not about a page that was open when the server ended."""
    if record.msg.startswith("Cancel %s running task"):
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


@contextmanager
def open_server(
    drawer: Drawer, settings: Settings, examples: list[Path], limits: Limits
) -> Iterator[tuple[uvicorn.Server, Visits]]:
    """Make a server that only has to be run; what visitors left is removed at the end.

    Args:
        drawer: of views.
        settings: whatever visitors do not choose.
        examples: pictures to pick from.
        limits: what is let in.
    """
    with ExitStack() as stack:
        root = stack.enter_context(server_folder())
        cache = root / "cache"
        cache.mkdir(mode=0o700)
        # Read by gradio when it is imported, and when pages are built.
        os.environ["GRADIO_TEMP_DIR"] = str(cache)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        import gradio as gr
        import trimesh
        import uvicorn
        from fastapi import FastAPI

        from webapp.ui import Page, theme

        visits = stack.enter_context(swept_visits(root, cache))
        placeholder = root / "placeholder.glb"
        placeholder.write_bytes(trimesh.creation.box().export(file_type="glb"))
        maker = Maker(drawer, settings)
        page = Page(maker, visits, examples, placeholder, limits.max_queue)
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app = gr.mount_gradio_app(
            app, page.blocks, path="/", theme=theme(), css_paths=[STYLE], allowed_paths=[],
            max_file_size=limits.max_upload_mb * 10**6, show_error=False, ssr_mode=False,
            footer_links=[], run_history=False, pwa=False, mcp_server=False,
            enable_monitoring=False,
        )  # fmt: skip
        # What launch() says and mounting (in 6.31) does not: without it, gradio does not check
        # whether a file that a page names was sent by a visitor, and any file could be had.
        page.blocks.has_launched = page.blocks.is_running = True
        visits.uploads = page.blocks.upload_file_set
        quick = {number for number, function in page.blocks.fns.items() if not function.queue}
        guard = Guard(app, limits.max_upload_mb * 10**6, visits.has_room, quick)
        config = uvicorn.Config(
            guard, log_level="warning", ws="none", timeout_graceful_shutdown=GOODBYE_SECONDS
        )
        logging.getLogger("uvicorn.error").addFilter(not_cancelled)
        yield uvicorn.Server(config), visits


@contextmanager
def swept_visits(root: Path, cache: Path) -> Iterator[Visits]:
    """Visitors of a server, see `Visits` and `swept`."""
    visits = Visits(root / "visits", cache)
    with swept(visits):
        yield visits


def listen(host: str, port: int) -> socket.socket:
    """Open a port; 0 takes one that is free.

    Raises:
        OSError: it is taken, or there is no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        if os.name != "nt":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen()  # another server is told now, not when this one has read its weights
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"--host {host} --port {port}: cannot be opened ({reason})") from error
    return opened


def serve(
    drawer: Drawer,
    settings: Settings,
    examples: list[Path],
    limits: Limits,
    opened: socket.socket,
) -> None:
    """Answer visitors until Ctrl-C or SIGTERM, see `open_server`."""
    with open_server(drawer, settings, examples, limits) as (server, _):
        host, port = opened.getsockname()[:2]
        log.info("the page is at http://%s:%d (Ctrl-C ends it)", host, port)
        server.run(sockets=[opened])
