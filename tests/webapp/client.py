"""A client of the page that speaks its protocol, without a browser."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx


class PageClient:
    """One open page; a context manager that closes the page at its end."""

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=120)
        self.session = secrets.token_hex(6)
        config = self.http.get("/config").json()
        self._functions = {}
        ids = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        for function in config["dependencies"]:
            for target, event in function["targets"]:
                self._functions[ids.get(target), event] = function["id"]
        self._heartbeat: socket.socket | None = None

    def __enter__(self) -> PageClient:
        url = self.http.base_url
        self._heartbeat = socket.create_connection((url.host, url.port))
        request = f"GET /gradio_api/heartbeat/{self.session} HTTP/1.1\r\nHost: {url.host}\r\n\r\n"
        self._heartbeat.sendall(request.encode())
        assert b" 200 " in self._heartbeat.recv(64)
        return self

    def __exit__(self, *_: object) -> None:
        if self._heartbeat is not None:
            self._heartbeat.close()
        self.http.close()

    def send(self, path: Path, **headers: str) -> httpx.Response:
        """Upload a file."""
        with path.open("rb") as file:
            files = {"files": (path.name, file)}
            return self.http.post("/gradio_api/upload", files=files, headers=headers)

    def upload(self, path: Path) -> str:
        """Upload a file; returns its path on the server."""
        return self.send(path).raise_for_status().json()[0]

    def call(
        self, element: str, event: str, data: list[Any], route: str = "run/predict", **more: Any
    ) -> httpx.Response:
        """Call the function of an event."""
        called = {"data": data, "fn_index": self._functions[element, event], **more}
        called["session_hash"] = self.session
        return self.http.post(f"/gradio_api/{route}", json=called)

    def join(self, element: str, event: str, data: list[Any], **more: Any) -> httpx.Response:
        """Queue an event."""
        return self.call(element, event, data, "queue/join", **more)

    def messages(self) -> Iterator[dict[str, Any]]:
        """The server's messages until all events have ended."""
        route = "/gradio_api/queue/data"
        with self.http.stream("GET", route, params={"session_hash": self.session}) as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    message = json.loads(line[5:])
                    yield message
                    if message["msg"] == "close_stream":
                        return

    def do(self, element: str, event: str, data: list[Any], **more: Any) -> list[dict[str, Any]]:
        """Queue an event and wait for its end; returns all messages."""
        answer = self.join(element, event, data, **more)
        answer.raise_for_status()
        return list(self.messages())

    def open_image(self, path: Path) -> list[dict[str, Any]]:
        """Upload an image and open it on the page."""
        file = {"path": self.upload(path), "meta": {"_type": "gradio.FileData"}}
        file["orig_name"] = path.name
        return self.do("upload", "upload", [file])

    def start(self, samples: int = 1) -> httpx.Response:
        """Click the start button."""
        return self.join("go", "click", [False, 20, samples, 1])

    def generate(self, samples: int = 1) -> list[dict[str, Any]]:
        """Click the start button and wait for the end."""
        self.start(samples).raise_for_status()
        return list(self.messages())


def as_text(messages: list[dict[str, Any]]) -> str:
    """All messages as one text to search in."""
    return json.dumps(messages)
