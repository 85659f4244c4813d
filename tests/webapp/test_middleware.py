from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page's packages are not installed")

from webapp.middleware import (
    MAX_EVENT_BYTES,
    HTTPError,
    SecurityMiddleware,
    check_request,
    is_cross_site,
)

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"


def request(method: str, path: str, **headers: str) -> dict[str, Any]:
    encoded = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": encoded}


def respond(
    method: str, path: str, body: bytes = b"", room: bool = True, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Send a request through the middleware to an application that echoes the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    sent: list[Any] = []
    parts = [{"type": "http.request", "body": body[k : k + 100], "more_body": True}
             for k in range(0, len(body), 100)]  # fmt: skip
    parts.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"content_length": str(len(body)), **headers} if method == "POST" else headers
    scope = request(method, path, **named)
    asyncio.run(SecurityMiddleware(app, 10**6, lambda: room)(scope, receive, send))
    response_headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], sent[1]["body"], response_headers


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index.js", "/static/img/logo.svg",
     "/gradio_api/queue/data", "/gradio_api/heartbeat/a1", "/gradio_api/file=/tmp/x/a b.png",
     "/gradio_api/file=C:/x/a.png", "/gradio_api/startup-events"],
)  # fmt: skip
def test_routes_of_the_page_are_served_with_the_headers(path):
    status, _, headers = respond("GET", path)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/gradio_api/file=http://127.0.0.1/x"), ("GET", "/gradio_api/file=HTTPS://a/x"),
     ("GET", "/gradio_api/file=file:///etc/passwd"), ("GET", "/gradio_api/file=http:/a"),
     ("GET", "/gradio_api/proxy=http://a/x"), ("GET", "/gradio_api/deep_link"),
     ("GET", "/gradio_api/dev/reload"), ("GET", "/monitoring"), ("GET", JOIN), ("PUT", UPLOAD),
     ("POST", "/gradio_api/run/make"), ("POST", "/gradio_api/api/make"),
     ("POST", "/gradio_api/call/make"), ("POST", "/gradio_api/vibe-edit"),
     ("POST", "/gradio_api/process_recording"), ("POST", "/login"), ("POST", "/")],
)  # fmt: skip
def test_other_routes_are_refused(method, path):
    status, text, headers = respond(method, path, b"{}")
    assert (status, text) == (403, b"not served here")
    assert "content-security-policy" in headers


@pytest.mark.parametrize(
    ("headers", "cross_site"),
    [({}, False),
     ({"sec-fetch-site": "same-origin", "origin": "https://page", "host": "127.0.0.1"}, False),
     ({"sec-fetch-site": "cross-site"}, True), ({"sec-fetch-site": "same-site"}, True),
     ({"origin": "http://page:7860", "host": "page:7860"}, False),
     ({"origin": "http://evil", "host": "page:7860"}, True), ({"origin": "null"}, True),
     ({"origin": "http://page:1", "host": "page:7860"}, True),
     ({"origin": "https://page", "host": "127.0.0.1", "x-forwarded-host": "page"}, False)],
)  # fmt: skip
def test_cross_site_requests_are_refused(headers, cross_site):
    scope = request("POST", UPLOAD, **headers)
    assert is_cross_site(scope) == cross_site
    if cross_site:
        with pytest.raises(HTTPError, match="cross-site"):
            check_request(scope)
    else:
        check_request(scope)


def test_an_event_reaches_the_application_whole():
    body = json.dumps({"data": [{"path": "/tmp/a.png", "text": "x" * 500}]}).encode()
    assert respond("POST", JOIN, body)[:2] == (200, body)
    assert respond("POST", "/gradio_api/reset", b"")[0] == 200


@pytest.mark.parametrize("url", ["http://127.0.0.1/x", "HTTPS://a", " http://a", "ftp://a"])
def test_a_url_in_place_of_a_file_is_refused(url):
    for data in ([{"path": url}], [[{"a": {"path": url}}]]):
        status, text, _ = respond("POST", JOIN, json.dumps({"data": data}).encode())
        assert (status, text) == (403, b"URLs are not accepted in place of files")
    deep = b"[" * 100_000 + b"]" * 100_000
    assert respond("POST", JOIN, deep)[0] in (200, 400)
    assert respond("POST", JOIN, b'{"data": ')[0] == 400


def test_bodies_that_are_too_large_or_of_unknown_length_are_refused():
    assert respond("POST", JOIN, b" " * (MAX_EVENT_BYTES + 1))[:2] == (
        413, b"This is larger than the maximum allowed size of 256 KB."
    )  # fmt: skip
    assert respond("POST", UPLOAD, b" " * 10**6)[0] == 200
    status, text, _ = respond("POST", UPLOAD, b" " * (10**6 + 10**5))
    assert status == 413
    assert b"maximum allowed size of 1 MB" in text
    assert respond("POST", UPLOAD, b"x", content_length="many")[0] == 411
    assert respond("POST", UPLOAD, b"x", transfer_encoding="chunked")[0] == 411


def test_uploads_are_refused_when_the_storage_is_full():
    status, text, _ = respond("POST", UPLOAD, b"x", room=False)
    assert status == 503
    assert b"storage is full" in text
    assert respond("POST", JOIN, b"{}", room=False)[0] == 200
