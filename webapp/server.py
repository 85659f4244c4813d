"""The web server of the page: set-up, start and shutdown."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.config import PipelineConfig
from pipeline.view_generator import ViewGenerator
from webapp.service import Service
from webapp.sessions import SessionStore, cleanup_thread

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

STYLE = Path(__file__).parent / "style.css"
FOLDER_PREFIX = "syncdreamer-page-"
"""Start of the name of the server's temporary folder, which only its owner can read."""
KEEP_ALIVE_SECONDS = 60
"""Idle connections stay open so long: a step may keep the server from reading for some seconds."""
SHUTDOWN_SECONDS = 3
"""The server waits this long for open connections at shutdown: pages keep theirs open."""


class Limits(NamedTuple):
    """Limits of the server: waiting visitors (and jobs), and the size of an upload in MB."""

    max_queue: int = 20
    max_upload_mb: int = 20


def is_not_cancellation(record: logging.LogRecord) -> bool:
    """Log filter that drops uvicorn's messages about pages that are open at shutdown."""
    if record.msg.startswith("Cancel %s running task"):
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class Interface(NamedTuple):
    """What is served beside the page, and to whom.

    `jobs` is the folder of the HTTP interface's jobs, None without one. `token` is needed by all,
    if it is not empty. `domains` are this server's names, beside localhost and addresses.
    """

    jobs: Path | None = None
    token: str = ""
    domains: tuple[str, ...] = ()


@contextmanager
def open_server(
    view_generator: ViewGenerator,
    config: PipelineConfig,
    examples: list[Path],
    limits: Limits,
    interface: Interface,
    bound: socket.socket,
) -> Iterator[tuple[uvicorn.Server, SessionStore]]:
    """Set up a server, ready to run, and its sessions; their files are removed at the end.

    `config` has the settings that visitors do not choose. `bound` is where it will listen.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix=FOLDER_PREFIX)))
        cache = root / "cache"
        cache.mkdir(mode=0o700)
        # Gradio reads these variables when it is imported and when a page is built.
        os.environ["GRADIO_TEMP_DIR"] = str(cache)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        import gradio as gr
        import trimesh
        import uvicorn
        from fastapi import FastAPI
        from starlette.routing import Match

        from webapp.job_store import open_jobs
        from webapp.layout import theme
        from webapp.middleware import Access, SecurityMiddleware
        from webapp.ui import UI

        sessions = SessionStore(root / "sessions", cache)
        stack.enter_context(cleanup_thread(sessions))
        placeholder = root / "placeholder.glb"
        placeholder.write_bytes(trimesh.creation.box().export(file_type="glb"))
        service = Service(view_generator, config)
        ui = UI(service, sessions, examples, placeholder, limits.max_queue, bool(interface.jobs))
        max_upload = limits.max_upload_mb * 10**6
        outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        stores: list[Any] = [sessions]
        if interface.jobs is not None:
            from webapp.api import Api

            jobs = stack.enter_context(open_jobs(interface.jobs, service, limits.max_queue))
            outer = Api(jobs, secured=bool(interface.token)).application()
            stores.append(jobs)
        routes = [*outer.routes]  # before the page, which is behind all others

        def is_api(scope: Any) -> bool:
            return any(route.matches(scope)[0] is Match.FULL for route in routes)

        def has_room() -> bool:
            return all(store.has_room() for store in stores)

        app = gr.mount_gradio_app(
            outer, ui.blocks, path="/",
            theme=theme(), css_paths=[STYLE], allowed_paths=[], max_file_size=max_upload,
            show_error=False, ssr_mode=False, footer_links=[], run_history=False, pwa=False,
            mcp_server=False, enable_monitoring=False,
        )  # fmt: skip
        # Gradio 6.31 checks that a file in an event was uploaded only if `launch` has set these two
        # attributes, which mounting does not; without the check, events could read any file.
        ui.blocks.has_launched = ui.blocks.is_running = True
        # The set of all uploads' paths, which Gradio keeps for that check.
        sessions.uploads = ui.blocks.upload_file_set
        local = ipaddress.ip_address(bound.getsockname()[0]).is_loopback
        names = interface.domains if local or interface.domains else None
        access = Access(interface.token, names)
        protected = SecurityMiddleware(app, max_upload, has_room, access, is_api)
        uvicorn_config = uvicorn.Config(
            protected, log_level="warning", ws="none", timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )  # fmt: skip
        logging.getLogger("uvicorn.error").addFilter(is_not_cancellation)
        yield uvicorn.Server(uvicorn_config), sessions


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; OSError if the port is in use, or the address does not exist."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        if os.name != "nt":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # with SO_REUSEADDR, a port is reserved by listening only
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror or error})") from error
    return bound


def serve(server: uvicorn.Server, bound: socket.socket) -> None:
    """Run a server of `open_server` until Ctrl-C or SIGTERM."""
    host, port = bound.getsockname()[:2]
    log.info("serving at http://%s:%d (Ctrl-C to stop)", host, port)
    server.run(sockets=[bound])
