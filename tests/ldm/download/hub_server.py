"""A server on this machine that speaks what the Hub's client needs to download a file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

from ldm.download.catalogue import RemoteFile, Source

HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"

CHUNK = 10 * 2**20
"""The Hub's client writes this much at once."""
CONTENT = Random(0).randbytes(CHUNK + 2**20)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIRST, SECOND = (
    Source("one/weights", "w.ckpt", COMMIT),
    Source("two/weights", "ckpt/w.ckpt", COMMIT, "space"),
)
WEIGHTS = RemoteFile("w.ckpt", sha256(CONTENT).hexdigest(), (FIRST, SECOND), len(CONTENT))


@dataclass
class Repo:
    """How one repository answers.

    Attributes:
        content: of its file.
        etag: that it states; by default the content's SHA-256.
        size: that it states; by default the content's.
        status: an error's, in place of the file.
        lacks_headers: those of the Hub are missing, as with a proxy's page.
        ignores_range: the whole file is sent whatever range is asked for.
        cuts: connections are cut after so many bytes of a body, one for each answer, then none.
        holds: wait after so many bytes of a body until `hub.released` is set.
    """

    content: bytes = b""
    etag: str | None = None
    size: int | None = None
    status: int = 200
    lacks_headers: bool = False
    ignores_range: bool = False
    cuts: list[int] = field(default_factory=list)
    holds: int | None = None


@dataclass
class Request:
    """A request as the server got it; the storage's begin with /storage/."""

    method: str
    path: str
    range: str | None
    token: str | None


class Hub:
    """Repositories by name ("owner/name", "spaces/owner/name"), and every request so far."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.released = threading.Event()
        self.holding = threading.Event()
        self.endpoint = ""
        self.storage = ""

    def ranges(self) -> list[str | None]:
        """The ranges that the storage was asked for, in order."""
        return [r.range for r in self.requests if r.path.startswith("/storage/")]


class Handler(BaseHTTPRequestHandler):
    """The Hub redirects to a storage on another host, which has the files."""

    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        headers = self.headers
        self.hub.requests.append(
            Request(self.command, self.path, headers["Range"], headers["Authorization"])
        )
        if self.path.startswith("/storage/"):
            self.send_content(self.hub.repos[self.path.removeprefix("/storage/")])
            return
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        repo = self.hub.repos.get(name)
        if repo is None or repo.status != 200:
            self.send_response(404 if repo is None else repo.status)
            self.send_header("X-Error-Code", "EntryNotFound" if repo is None else "RepoNotFound")
            self.send_header("Content-Length", "0")
        elif repo.lacks_headers:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(HTML)))
        else:
            self.send_response(302)
            self.send_header("Location", f"{self.hub.storage}/storage/{name}")
            self.send_header("X-Repo-Commit", rest.partition("/")[0])
            self.send_header("X-Linked-Etag", f'"{repo.etag or sha256(repo.content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(repo.size or len(repo.content)))
            self.send_header("Content-Length", "0")
        self.end_headers()

    def send_content(self, repo: Repo) -> None:
        asked = None if repo.ignores_range else self.headers["Range"]
        start = int((asked or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start >= len(repo.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            end = len(repo.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        body = repo.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if repo.cuts:
            self.wfile.write(body[: repo.cuts.pop(0)])
            self.close_connection = True  # less than was announced
        elif repo.holds is not None:
            self.wfile.write(body[: repo.holds])
            self.wfile.flush()
            self.hub.holding.set()
            self.hub.released.wait(30)
            self.wfile.write(body[repo.holds :])
        else:
            self.wfile.write(body)


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub and its storage, on two ports."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.endpoint = f"http://127.0.0.1:{servers[0].server_port}"
    hub.storage = f"http://localhost:{servers[1].server_port}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()
