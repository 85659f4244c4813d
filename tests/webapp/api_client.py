"""A client of the HTTP interface."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
from PIL import Image

from tests.conftest import ROOT

TOY = ROOT / "testset" / "locomotive.png"
ENDED = ("done", "failed")


def small_toy() -> bytes:
    """The toy as a small PNG."""
    image = Image.open(TOY)
    image.thumbnail((64, 64))
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def post(http: httpx.Client, image: bytes | None = None, **settings: Any) -> httpx.Response:
    """Post a job."""
    files = {"image": ("toy.png", small_toy() if image is None else image)}
    return http.post("/v1/jobs", files=files, data={"settings": json.dumps(settings)})


def submit(http: httpx.Client, **settings: Any) -> str:
    """Post a job that is accepted; returns its path."""
    answer = post(http, **settings)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return answer.headers["location"]


def wait(http: httpx.Client, job: str, seconds: float = 60) -> dict[str, Any]:
    """Wait for a job's end; returns its status."""
    deadline = time.monotonic() + seconds
    while (status := http.get(job).raise_for_status().json())["state"] not in ENDED:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def events(http: httpx.Client, job: str) -> Iterator[dict[str, Any]]:
    """The events of a job."""
    with http.stream("GET", f"{job}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])
