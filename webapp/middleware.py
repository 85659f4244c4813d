"""ASGI middleware of the page: route allow-list, same-origin check, size limits, headers."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import urlsplit

CONTENT_SECURITY_POLICY = "; ".join(
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
POST_ROUTES = (UPLOAD_ROUTE, "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")
"""Allowed POST routes, besides those below `RUN_ROUTE`."""
RUN_ROUTE = "/gradio_api/run/"
"""Prefix of Gradio's routes that call functions without the queue; allowed for `unqueued` only."""
MAX_EVENT_BYTES = 256 * 1024
"""Largest request body other than an upload."""
FORM_OVERHEAD_BYTES = 64 * 1024
"""Largest size of the multipart form around an uploaded file."""
MAX_DRAINED_BYTES = 100 * 10**6
"""The body of a refused request is read up to this size."""
NOT_SERVED = "not served here"
STORAGE_FULL = "The server's storage is full. Try again in a few minutes."

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HTTPError(Exception):
    """A request that is refused.

    Args:
        status: HTTP status code.
        message: body of the response.
        body_read: whether the request's body was read already.
    """

    def __init__(self, status: int, message: str, body_read: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.body_read = status, message, body_read


class SecurityMiddleware:
    """Passes only the requests of the page to the application; adds `HEADERS` to all responses.

    Args:
        app: ASGI application.
        max_upload: size limit of an upload, bytes.
        has_room: whether the storage has room for another upload.
        unqueued: Gradio's ids of the functions that run without the queue.
    """

    def __init__(
        self,
        app: Any,
        max_upload: int,
        has_room: Callable[[], bool],
        unqueued: AbstractSet[int] = frozenset(),
    ) -> None:
        self.app, self.max_upload = app, max_upload
        self.has_room, self.unqueued = has_room, unqueued

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
                queued = not scope["path"].startswith(RUN_ROUTE)
                receive = await read_event(receive, None if queued else self.unqueued)
        except HTTPError as error:
            if not error.body_read:
                await drain_body(receive)
            await send_error(error, with_headers)
            return
        await self.app(scope, receive, with_headers)


async def drain_body(receive: Receive) -> None:
    """Read and discard the body, since browsers read no response before they have sent it."""
    read = 0
    while read < MAX_DRAINED_BYTES:
        message = await receive()
        read += len(message.get("body", b""))
        if not message.get("more_body"):
            break


async def send_error(error: HTTPError, send: Send) -> None:
    """Send an error response as plain text."""
    body = error.message.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def check_request(scope: Message) -> None:
    """Check route and origin.

    Raises:
        HTTPError: the route is not allowed (websockets never are), or it is a cross-site POST.
    """
    method, path = scope.get("method"), scope["path"]
    if method in ("GET", "HEAD"):
        allowed = GET_ROUTES.fullmatch(path) is not None
    else:
        allowed = method == "POST" and (path in POST_ROUTES or path.startswith(RUN_ROUTE))
    if not allowed:
        raise HTTPError(403, NOT_SERVED)
    if method == "POST" and is_cross_site(scope):
        raise HTTPError(403, "cross-site requests are refused")


def is_cross_site(scope: Message) -> bool:
    """Whether a page of another origin sent the request, by the browser's headers.

    Uses Sec-Fetch-Site where the browser sends it (over HTTPS, or to this machine). Otherwise
    compares Origin with Host, or with X-Forwarded-Host behind a reverse proxy.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    own = {headers.get("host"), headers.get("x-forwarded-host")}
    return origin is not None and urlsplit(origin).netloc not in own


def check_length(scope: Message, max_bytes: int) -> None:
    """Check the announced length of the body; browsers always announce it.

    Raises:
        HTTPError: the length is missing or exceeds `max_bytes`.
    """
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or b"transfer-encoding" in headers:
        raise HTTPError(411, "a Content-Length header is required")
    if int(length) > max_bytes:
        size = f"{max_bytes // 10**6} MB" if max_bytes >= 10**6 else f"{max_bytes // 1024} KB"
        raise HTTPError(413, f"This is larger than the maximum allowed size of {size}.")


async def read_event(receive: Receive, allowed: AbstractSet[int] | None = None) -> Receive:
    """Read the whole body of a Gradio event and check it.

    A URL in place of a file path is refused: Gradio would download it, whatever server and size.

    Args:
        receive: ASGI callable for the body.
        allowed: function ids that the event may call, with a session id; None allows all.

    Returns:
        ASGI callable that receives the same body once more.

    Raises:
        HTTPError: the body is no JSON or contains a URL, or the function is not allowed.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":  # disconnected
            raise HTTPError(400, "incomplete request", body_read=True)
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    try:
        event = json.loads(body) if body else None
    except (ValueError, RecursionError) as error:
        raise HTTPError(400, "invalid JSON", body_read=True) from error
    if contains_url(event):
        raise HTTPError(403, "URLs are not accepted in place of files", body_read=True)
    if allowed is not None:
        fields = event if isinstance(event, dict) else {}
        session_id, function = fields.get("session_hash"), fields.get("fn_index")
        has_session = isinstance(session_id, str) and session_id
        if not has_session or type(function) is not int or function not in allowed:
            raise HTTPError(403, NOT_SERVED, body_read=True)
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def contains_url(event: Any) -> bool:
    """Whether a `path` anywhere in an event is a URL."""
    pending = [event]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and re.match(r"\s*\w{2,}:/", path):
                return True
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return False
