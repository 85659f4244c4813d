"""The page with a fake model, served from another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ldm.config import SamplerConfig
from pipeline.config import PipelineConfig
from tests.conftest import ROOT
from tests.fakes import FakeGenerator, small_config
from tests.webapp.client import PageClient

EXAMPLES = [ROOT / "testset" / "car.png", ROOT / "testset" / "cup.png"]


def page_config(**changes: Any) -> PipelineConfig:
    """Settings of the page: samples of four steps at a known elevation."""
    return small_config(**{"elevation": 20.0, "sampler": SamplerConfig(steps=4), **changes})


@dataclass
class ServedPage:
    """A page that is being served."""

    address: str
    view_generator: FakeGenerator
    sessions: Any
    server: Any


@contextmanager
def visit(*args: Any, **options: Any) -> Iterator[tuple[ServedPage, PageClient]]:
    """A served page, see `serve_page`, and one visitor."""
    with serve_page(*args, **options) as page, PageClient(page.address) as visitor:
        yield page, visitor


@contextmanager
def serve_page(
    seconds: float = 0.0, max_queue: int = 20, max_upload_mb: int = 20, **changes: Any
) -> Iterator[ServedPage]:
    """Serve the page from another thread."""
    from webapp.server import Limits, listen, open_server

    view_generator = FakeGenerator(seconds)
    given = view_generator, page_config(**changes), EXAMPLES, Limits(max_queue, max_upload_mb)
    with listen("127.0.0.1", 0) as bound, open_server(*given) as (server, sessions):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            address = f"http://127.0.0.1:{bound.getsockname()[1]}/"
            yield ServedPage(address, view_generator, sessions, server)
        finally:
            server.should_exit = True
            thread.join(20)
