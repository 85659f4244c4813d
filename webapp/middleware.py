"""ASGI middleware: token, host names, routes, same-origin check, size limits, headers."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fastapi.datastructures import Headers
from fastapi.responses import JSONResponse, PlainTextResponse

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
JOBS_ROUTE = "/v1/jobs"
"""Of the HTTP interface: takes uploads, too."""
OPEN_ROUTES = ("/healthz", "/readyz")
"""Need no token: a container's manager asks them."""
CHALLENGES = ('Basic realm="SyncDreamer"', "Bearer")
"""A header each: Chromium does not find Basic among others in one."""
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


class Access(NamedTuple):
    """Who is served.

    `token` is needed for every route but `OPEN_ROUTES`, if there is one. `names` are the host names
    of this server, None for any: a page of another site can give its own name this machine's
    address (DNS rebinding), but it cannot hide the name.
    """

    token: str = ""
    names: Collection[str] | None = None


class HTTPError(Exception):
    """A request that is refused, with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class SecurityMiddleware:
    """Passes only the requests of the page to the ASGI application; adds `HEADERS` to responses.

    `max_upload` is the size limit of an upload, bytes; `has_room` tells whether another one fits;
    `is_api` whether a request is one of the HTTP interface.
    """

    def __init__(
        self,
        app: Any,
        max_upload: int,
        has_room: Callable[[], bool],
        access: Access = Access(),  # noqa: B008 - immutable
        is_api: Callable[[Message], bool] = lambda _: False,
    ) -> None:
        self.app, self.max_upload, self.has_room = app, max_upload, has_room
        self.access, self.is_api = access, is_api

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

        of_api = self.is_api(scope)
        try:
            check_access(scope, self.access)
            check_request(scope, of_api)
            if scope["path"] in (UPLOAD_ROUTE, JOBS_ROUTE):
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
            content = {"detail": error.message} if of_api else error.message
            kind = JSONResponse if of_api else PlainTextResponse
            refusal = kind(content, error.status, {"connection": "close"})
            for challenge in CHALLENGES if error.status == 401 else ():
                refusal.headers.append("www-authenticate", challenge)
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


def check_access(scope: Message, access: Access) -> None:
    """Raise HTTPError unless the request names this server and has its token, if there are any."""
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if access.names is not None and not is_own_name(host_name(host), access.names):
        raise HTTPError(403, f"{host} is no name of this server; --domain adds one")
    if not access.token or scope["path"] in OPEN_ROUTES:
        return
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":  # as browsers send it; any user has this password
        try:
            given = base64.b64decode(given).decode("latin-1").partition(":")[2]
        except ValueError:
            given = ""
    if not hmac.compare_digest(given.strip().encode(), access.token.encode()):
        raise HTTPError(401, "a token is needed: Authorization: Bearer <token>")


def host_name(host: str) -> str:
    """The name or address in a Host header, without the port; empty if it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_own_name(name: str, names: Collection[str]) -> bool:
    """Whether a name is one of these, localhost, or an address, which no other site can claim."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in ("localhost", *names)
    return True


def check_request(scope: Message, of_api: bool = False) -> None:
    """Raise HTTPError if the route is not allowed (no websocket is), or for a cross-site POST.

    `of_api`: the HTTP interface has this route, which no other site may use by any method.
    """
    method, path = scope.get("method"), scope["path"]
    if method in ("GET", "HEAD"):
        allowed = GET_ROUTES.fullmatch(path) is not None
    else:
        allowed = method == "POST" and path in POST_ROUTES
    if not (allowed or of_api):
        raise HTTPError(403, NOT_SERVED)
    if (method == "POST" or of_api) and is_cross_site(scope):
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
    return origin is not None and origin.partition("://")[2] not in own


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
