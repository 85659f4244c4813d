"""The server's door: what may be asked for, from where, and how much of it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import urlsplit

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
"""Nothing is loaded from any other server; Gradio's own scripts need the exceptions."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(static|assets|svelte)/.+"
    r"|/gradio_api/(startup-events|app_id|info|theme\.css|upload_progress|queue/data)"
    r"|/gradio_api/(heartbeat/[^/]+|file=(?!\w{2,}:/).+)"
)
"""What the page reads. Gradio has more, such as a proxy and a route that fetches other servers'
files for anyone who asks."""
UPLOAD = "/gradio_api/upload"
SEND = (UPLOAD, "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")
"""What the page sends to."""
RUN = "/gradio_api/run/"
"""Beginning of the routes that call functions past the queue: for those only that need not wait."""
LARGEST_EVENT = 256 * 1024
"""Bytes of what the page sends, other than pictures."""
ENVELOPE = 64 * 1024
"""Bytes that the form around a picture takes at most."""
MOST_THROWN_AWAY = 100 * 10**6
FULL = "The server has no room for more pictures at the moment. Try again in some minutes."

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class RefusedError(Exception):
    """A request is not answered.

    Args:
        status: of HTTP.
        words: for who asked.
        unread: what was sent has not been read yet.
    """

    def __init__(self, status: int, words: str, unread: bool = True) -> None:
        super().__init__(words)
        self.status, self.words, self.unread = status, words, unread


class Guard:
    """Answers what the page asks for and nothing else, and adds `HEADERS` to all answers.

    Args:
        app: the application behind it, by the ASGI protocol.
        max_upload: bytes of a picture.
        has_room: whether more may be sent.
        quick: Gradio's numbers of the functions that do not wait in the queue.
    """

    def __init__(
        self,
        app: Any,
        max_upload: int,
        has_room: Callable[[], bool],
        quick: AbstractSet[int] = frozenset(),
    ) -> None:
        self.app, self.max_upload, self.has_room, self.quick = app, max_upload, has_room, quick

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            check_request(scope)
            if scope["path"] == UPLOAD:
                if not self.has_room():
                    raise RefusedError(503, FULL)
                check_length(scope, self.max_upload + ENVELOPE)
            elif scope["method"] == "POST":
                check_length(scope, LARGEST_EVENT)
                queued = not scope["path"].startswith(RUN)
                receive = await checked_event(receive, None if queued else self.quick)
        except RefusedError as refused:
            if refused.unread:
                await throw_away(receive)
            await refuse(refused, with_headers)
            return
        await self.app(scope, receive, with_headers)


async def throw_away(receive: Receive) -> None:
    """Read what is being sent, but not without end: browsers read no answer before."""
    read = 0
    while read < MOST_THROWN_AWAY:
        message = await receive()
        read += len(message.get("body", b""))
        if not message.get("more_body"):
            break


async def refuse(refused: RefusedError, send: Send) -> None:
    """Send a refusal."""
    body = refused.words.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def check_request(scope: Message) -> None:
    """Refuse what the page does not ask for, and what another site's page sends.

    Raises:
        RefusedError: always for websockets, which the page does not use.
    """
    method, path = scope.get("method"), scope["path"]
    if method in ("GET", "HEAD"):
        known = READ.fullmatch(path) is not None
    else:
        known = method == "POST" and (path in SEND or path.startswith(RUN))
    if not known:
        raise RefusedError(403, "not served here")
    if method == "POST" and from_another_site(scope):
        raise RefusedError(403, "this comes from another site's page")


def from_another_site(scope: Message) -> bool:
    """Whether a browser says that a page of another origin sends this.

    Browsers that do not say so themselves (over HTTP, to other machines) name the origin. A web
    server in between tells which name it was asked for, where it changes it.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    own = {headers.get("host"), headers.get("x-forwarded-host")}
    return origin is not None and urlsplit(origin).netloc not in own


def check_length(scope: Message, most: int) -> None:
    """Refuse what is longer, and what does not tell its length; browsers tell it.

    Raises:
        RefusedError: it is such a one.
    """
    headers = dict(scope["headers"])
    announced = headers.get(b"content-length", b"")
    if not announced.isdigit() or b"transfer-encoding" in headers:
        raise RefusedError(411, "the length must be told")
    if int(announced) > most:
        size = f"{most // 10**6} MB" if most >= 10**6 else f"{most // 1024} KB"
        raise RefusedError(413, f"This is larger than the maximum allowed size of {size}.")


async def checked_event(receive: Receive, functions: AbstractSet[int] | None = None) -> Receive:
    """Read an event whole, and refuse one that names an address in place of a file.

    Gradio would fetch it from there, whatever its size, and from whatever server.

    Args:
        receive: by the ASGI protocol.
        functions: those that it may call, in the name of a session; any, if None.

    Raises:
        RefusedError: it is such a one, calls another function, or is no JSON.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":  # gone
            raise RefusedError(400, "cut off", unread=False)
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    try:
        event = json.loads(body) if body else None
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "no JSON", unread=False) from error
    if names_address(event):
        raise RefusedError(403, "addresses are not fetched here", unread=False)
    if functions is not None:
        called = event if isinstance(event, dict) else {}
        session, number = called.get("session_hash"), called.get("fn_index")
        if not (isinstance(session, str) and session and type(number) is int):
            raise RefusedError(403, "not served here", unread=False)
        if number not in functions:
            raise RefusedError(403, "not served here", unread=False)
    whole: list[Message] = [{"type": "http.request", "body": body}]

    async def again() -> Message:
        return whole.pop() if whole else await receive()

    return again


def names_address(event: Any) -> bool:
    """Whether a file's path somewhere in it is an address of the web."""
    pending = [event]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            path = one.get("path")
            if isinstance(path, str) and re.match(r"\s*\w{2,}:/", path):
                return True
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
    return False
