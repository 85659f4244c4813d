"""Refuses connections to other machines, in every Python process whose PYTHONPATH has this folder.

The tests' configuration puts it there, so that no test needs the network without its being noticed.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

HOST = {  # place of the host, or of an address that begins with it, in an event's arguments
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


def is_this_machine(host: Any) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # the name of another machine
        return False
    return address.is_loopback or address.is_unspecified


def refuse_other_machines(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook of Python: see its list of events."""
    if event not in HOST:
        return
    host = arguments[HOST[event]]
    if event in ("socket.connect", "socket.sendto"):
        if not isinstance(host, tuple):  # the path of a Unix socket
            return
        host = host[0]
    if not is_this_machine(host):
        raise PermissionError(f"the tests use no network: {event} to {host!r}")


os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "false"  # Ray is at the loopback address
sys.addaudithook(refuse_other_machines)
