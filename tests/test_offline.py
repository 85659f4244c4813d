"""No test reaches another machine; `tests/offline` refuses it."""

from __future__ import annotations

import socket

import pytest

from tests.conftest import run

ELSEWHERE = ("192.0.2.1", 443)  # of no machine: for documentation


@pytest.mark.parametrize(
    "call",
    [
        lambda: socket.create_connection(ELSEWHERE, timeout=1),
        lambda: socket.socket().connect_ex(ELSEWHERE),
        lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ELSEWHERE),
        lambda: socket.getaddrinfo("example.org", 443),
        lambda: socket.gethostbyname(b"example.org"),
    ],
)
def test_other_machines_cannot_be_reached(call):
    with pytest.raises(PermissionError, match="the tests use no network"):
        call()


def test_processes_that_tests_start_cannot_reach_them_either():
    done = run("-c", "import urllib.request; urllib.request.urlopen('https://example.org')")
    assert done.returncode == 1
    assert "the tests use no network: socket.getaddrinfo to 'example.org'" in done.stderr


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1]), timeout=5).close()
