"""The page with a fake model, served from another thread, or as a program of its own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.config import SamplerConfig
from pipeline.config import PipelineConfig
from tests.conftest import ROOT
from tests.fakes import FakeGenerator, fake_reconstruct, small_config
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
    seconds: float = 0.0,
    max_queue: int = 20,
    max_upload_mb: int = 20,
    interface: dict[str, Any] | None = None,
    given: tuple[Any, PipelineConfig] | None = None,
    **changes: Any,
) -> Iterator[ServedPage]:
    """Serve the page from another thread.

    `interface` as in `webapp.server.Interface`; `given`: another view generator, and its settings.
    """
    from webapp.server import Interface, Limits, listen, open_server

    view_generator, config = given or (FakeGenerator(seconds), page_config(**changes))
    limits, beside = Limits(max_queue, max_upload_mb), Interface(**(interface or {}))
    parts = view_generator, config, EXAMPLES, limits, beside
    with listen("127.0.0.1", 0) as bound, open_server(*parts, bound) as (server, sessions):
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


class LoggedGenerator(FakeGenerator):
    """Adds a line to a file at the start and at the end of every strip."""

    def __init__(self, seconds: float, log: Path) -> None:
        super().__init__(seconds)
        self.log = log

    def model(self) -> None:
        """Nothing is loaded."""

    def generate(self, pixels: Any, elevation_deg: float, seed: int, *given: Any) -> Any:
        with self.log.open("a") as log:
            print("begin", elevation_deg, seed, file=log, flush=True)
            strip = super().generate(pixels, elevation_deg, seed, *given)
            print("end", elevation_deg, seed, file=log, flush=True)
        return strip


def main(log: str, *flags: str) -> None:
    """Run app.py with the fake model, which writes to a log."""
    import app
    import pipeline.config
    import pipeline.image_to_3d
    import pipeline.selection.ranking as ranking

    ranking.score_sample = lambda *_: ranking.SampleScore(score=0.5)
    pipeline.image_to_3d.reconstruct = fake_reconstruct
    pipeline.config.read_config = lambda _: (page_config(), LoggedGenerator(0.1, Path(log)))
    app.main([*flags])


if __name__ == "__main__":
    main(*sys.argv[1:])
