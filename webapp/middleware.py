"""ASGI middleware of the page: route allow-list, same-origin check, size limits, headers."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi.datastructures import Headers
from fastapi.responses import PlainTextResponse

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Content security policy: own origin only. Gradio's scripts need inline code, eval and blobs."""
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
GET_ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(static|assets|svelte)/.+"
    r"|/gradio_api/(startup-events|app_id|info|theme\.css|upload_progress|queue/data)"
    r"|/gradio_api/(heartbeat/[^/]+|file=(?!\w{2,}:/).+)"
)
"""Allowed GET routes. Gradio has others that the page does not need, such as a proxy."""
UPLOAD_ROUTE = "/gradio_api/upload"
POST_ROUTES = (
    UPLOAD_ROUTE,
    *(f"/gradio_api/{route}" for route in ("queue/join", "run/predict", "cancel", "reset")),
)
"""Allowed POST routes."""
MAX_EVENT_BYTES = 256 * 1024
"""Largest request body other than an upload."""
FORM_OVERHEAD_BYTES = 64 * 1024
"""Largest size of the multipart form around an uploaded file."""
MAX_DRAINED_BYTES = 100 * 10**6
"""The body of a refused request is read up to this size: browsers read no response before."""
NOT_SERVED = "not served here"
STORAGE_FULL = "The server's storage is full. Try again in a few minutes."

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HTTPError(Exception):
    """A request that is refused, with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class SecurityMiddleware:
    """Passes only the requests of the page to the ASGI application; adds `HEADERS` to responses.

    `max_upload` is the size limit of an upload, bytes; `has_room` tells whether another one fits.
    """

    def __init__(self, app: Any, max_upload: int, has_room: Callable[[], bool]) -> None:
        self.app, self.max_upload, self.has_room = app, max_upload, has_room

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
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
            if scope["path"] == UPLOAD_ROUTE:
                if not self.has_room():
                    raise HTTPError(503, STORAGE_FULL)
                check_length(scope, self.max_upload + FORM_OVERHEAD_BYTES)
            elif scope["method"] == "POST":
                check_length(scope, MAX_EVENT_BYTES)
                body = await read_body(receive, MAX_EVENT_BYTES)
                receive = replay(body, receive)
                check_event(body)
        except HTTPError as error:
            await read_body(receive, MAX_DRAINED_BYTES)
            refusal = PlainTextResponse(error.message, error.status, {"connection": "close"})
            await refusal(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """Read a body, at most about so many bytes of it."""
    parts: list[bytes] = []
    while sum(map(len, parts)) <= max_bytes:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """ASGI callable that receives a body once more."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def check_request(scope: Message) -> None:
    """Raise HTTPError if the route is not allowed (no websocket is), or for a cross-site POST."""
    method, path = scope.get("method"), scope["path"]
    if method in ("GET", "HEAD"):
        allowed = GET_ROUTES.fullmatch(path) is not None
    else:
        allowed = method == "POST" and path in POST_ROUTES
    if not allowed:
        raise HTTPError(403, NOT_SERVED)
    if method == "POST" and is_cross_site(scope):
        raise HTTPError(403, "cross-site requests are refused")


def is_cross_site(scope: Message) -> bool:
    """Whether a page of another origin sent the request, by the browser's headers.

    Uses Sec-Fetch-Site where the browser sends it (over HTTPS, or to this machine). Otherwise
    compares Origin with Host, or with X-Forwarded-Host behind a reverse proxy.
    """
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    own = {headers.get("host"), headers.get("x-forwarded-host")}
    return origin is not None and urlsplit(origin).netloc not in own


def check_length(scope: Message, max_bytes: int) -> None:
    """Raise HTTPError unless the body's announced length is at most `max_bytes`."""
    headers = Headers(scope=scope)
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or "transfer-encoding" in headers:
        raise HTTPError(411, "a Content-Length header is required")
    if int(length) > max_bytes:
        size = f"{max_bytes // 10**6} MB" if max_bytes >= 10**6 else f"{max_bytes // 1024} KB"
        raise HTTPError(413, f"This is larger than the maximum allowed size of {size}.")


def check_event(body: bytes) -> None:
    """Raise HTTPError if an event is no JSON, or a `path` in it is a URL: Gradio would load it."""
    try:
        pending = [json.loads(body)] if body else []
    except (ValueError, RecursionError) as error:
        raise HTTPError(400, "invalid JSON") from error
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if re.match(r"\s*\w{2,}:/", str(value.get("path"))):
                raise HTTPError(403, "URLs are not accepted in place of files")
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
