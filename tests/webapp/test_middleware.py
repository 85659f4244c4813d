from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from webapp.middleware import LARGEST_EVENT, Guard, RefusedError, check_request, from_another_site

JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"


def asked(
    method: str, path: str, body: bytes = b"", room: bool = True, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Ask a guard whose application answers 200 with what it was sent."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    said: list[Any] = []
    parts = [{"type": "http.request", "body": body[k : k + 100], "more_body": True}
             for k in range(0, len(body), 100)]  # fmt: skip
    parts.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    named = {"content-length": str(len(body)), **headers} if method == "POST" else headers
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in named.items()],
    }
    asyncio.run(Guard(app, 10**6, lambda: room, {3})(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], said[1]["body"], answered


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index.js", "/static/img/logo.svg",
     "/gradio_api/queue/data", "/gradio_api/heartbeat/a1", "/gradio_api/file=/tmp/x/a b.png",
     "/gradio_api/file=C:/x/a.png", "/gradio_api/startup-events"],
)  # fmt: skip
def test_what_the_page_reads_is_served_with_the_headers(path):
    status, _, headers = asked("GET", path)
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
def test_what_the_page_does_not_ask_for_is_not_served(method, path):
    status, words, headers = asked(method, path, b"{}")
    assert (status, words) == (403, b"not served here")
    assert "content-security-policy" in headers


@pytest.mark.parametrize(
    ("headers", "another"),
    [({}, False),
     ({"sec-fetch-site": "same-origin", "origin": "https://page", "host": "127.0.0.1"}, False),
     ({"sec-fetch-site": "cross-site"}, True), ({"sec-fetch-site": "same-site"}, True),
     ({"origin": "http://page:7860", "host": "page:7860"}, False),
     ({"origin": "http://evil", "host": "page:7860"}, True), ({"origin": "null"}, True),
     ({"origin": "http://page:1", "host": "page:7860"}, True),
     ({"origin": "https://page", "host": "127.0.0.1", "x-forwarded-host": "page"}, False)],
)  # fmt: skip
def test_pages_of_other_sites_cannot_send_anything(headers, another):
    scope = {
        "type": "http",
        "method": "POST",
        "path": UPLOAD,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    assert from_another_site(scope) == another
    if another:
        with pytest.raises(RefusedError, match="another site"):
            check_request(scope)
    else:
        check_request(scope)


def test_an_event_reaches_the_application_whole():
    body = json.dumps({"data": [{"path": "/tmp/a.png", "words": "x" * 500}]}).encode()
    assert asked("POST", JOIN, body)[:2] == (200, body)
    assert asked("POST", "/gradio_api/reset", b"")[0] == 200


@pytest.mark.parametrize(
    ("event", "status"),
    [({"fn_index": 3, "session_hash": "a"}, 200), ({"fn_index": 4, "session_hash": "a"}, 403),
     ({"fn_index": 3}, 403), ({"fn_index": 3, "session_hash": ""}, 403),
     ({"session_hash": "a"}, 403), ({"fn_index": [3], "session_hash": "a"}, 403), ([], 403)],
)  # fmt: skip
def test_only_functions_that_need_not_wait_are_called_past_the_queue(event, status):
    assert asked("POST", "/gradio_api/run/predict", json.dumps(event).encode())[0] == status


@pytest.mark.parametrize("address", ["http://127.0.0.1/x", "HTTPS://a", " http://a", "ftp://a"])
def test_an_address_in_place_of_a_file_is_refused(address):
    for data in ([{"path": address}], [[{"a": {"path": address}}]]):
        status, words, _ = asked("POST", JOIN, json.dumps({"data": data}).encode())
        assert (status, words) == (403, b"addresses are not fetched here")
    deep = b"[" * 100_000 + b"]" * 100_000
    assert asked("POST", JOIN, deep)[0] in (200, 400)
    assert asked("POST", JOIN, b'{"data": ')[0] == 400


def test_what_is_too_large_or_of_unknown_length_is_refused():
    assert asked("POST", JOIN, b" " * (LARGEST_EVENT + 1))[:2] == (
        413, b"This is larger than the maximum allowed size of 256 KB."
    )  # fmt: skip
    assert asked("POST", UPLOAD, b" " * 10**6)[0] == 200
    status, words, _ = asked("POST", UPLOAD, b" " * (10**6 + 10**5))
    assert status == 413
    assert b"maximum allowed size of 1 MB" in words
    assert asked("POST", UPLOAD, b"x", content_length="many")[0] == 411
    assert asked("POST", UPLOAD, b"x", transfer_encoding="chunked")[0] == 411


def test_nothing_more_is_taken_when_there_is_no_room():
    status, words, _ = asked("POST", UPLOAD, b"x", room=False)
    assert status == 503
    assert b"no room" in words
    assert asked("POST", JOIN, b"{}", room=False)[0] == 200
