"""What is known of the event loops' transports beyond asyncio's interface: what is below them."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import cache
from typing import Any, Final

if sys.platform == "linux":  # pragma: no branch - the tests run on Linux
    import fcntl
    import termios

__all__ = ["in_kernel", "is_plain", "plain_socket"]

_PLAIN: Final = frozenset(
    {
        ("asyncio.selector_events", "_SelectorSocketTransport"),
        ("uvloop.loop", "TCPTransport"),
        ("uvloop.loop", "UnixTransport"),
    }
)


def plain_socket(transport: asyncio.Transport) -> int:
    """Return the descriptor of a transport that is nothing but a stream socket, or -1."""
    if not is_plain(transport):
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def is_plain(transport: asyncio.Transport) -> bool:
    """Tell whether a transport is the event loop's own, and nothing but a stream socket."""
    kind: Any = type(transport)
    return _is_plain(kind)


@cache
def _is_plain(kind: Any) -> bool:
    return (kind.__module__, kind.__name__) in _PLAIN and os.name != "nt"


def in_kernel(transport: asyncio.Transport) -> int:
    """Return how many bytes the operating system holds that the peer's has not acknowledged; 0 if it does not tell."""
    if sys.platform != "linux":
        return 0  # pragma: no cover - the tests run on Linux
    sock = transport.get_extra_info("socket")
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (AttributeError, OSError, ValueError):
        return 0  # no socket, or one that is closed
