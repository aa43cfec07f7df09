"""Sockets as transports: the choice of the twin, listening, and the fallback for loops without `add_reader`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._built import IMPLEMENTATION, unusable
from .loops import is_plain_socket

if TYPE_CHECKING or IMPLEMENTATION == "python" or os.name == "nt":
    from ._socket_py import Addresses, SocketTransport, accept, nothing_unread_at
else:
    try:
        from ._socket import Addresses, SocketTransport, accept, nothing_unread_at
    except Exception as exc:
        raise unusable("wsfast.transport._socket", exc) from exc

__all__ = [
    "Addresses",
    "SocketTransport",
    "accept",
    "begin_transport",
    "can_take_over",
    "has_readers",
    "look_up",
    "nothing_unread",
    "take_over",
]

_has_readers: dict[type[asyncio.AbstractEventLoop], bool] = {}


def has_readers(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop has `add_reader`, which our transport needs; the Proactor loop of Windows has not."""
    kind = type(loop)
    known = _has_readers.get(kind)
    if known is None:
        known = _has_readers[kind] = os.name != "nt" and _try_reader(loop)
    return known


def _try_reader(loop: asyncio.AbstractEventLoop) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            loop.add_reader(ours, bool)
        except NotImplementedError:
            return False
        loop.remove_reader(ours)
    return True


async def begin_transport(
    factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket, *, shared: bool = False
) -> asyncio.BaseProtocol:
    """Take over a connected socket, and set a protocol on it.

    Args:
        factory: makes the protocol.
        sock: the socket. Where this raises, it is left as it is.
        shared: whether somebody else has the socket too, and may close it or read its address. Then the transport has a
            descriptor of its own, and closes both at the end.

    Returns:
        The protocol, whose ``connection_made`` was called.

    Raises:
        OSError: the socket is not connected, or the system is out of descriptors.
    """
    loop = asyncio.get_running_loop()
    if not has_readers(loop):
        _, protocol = await loop.create_connection(factory, sock=sock)
        return protocol
    sock.getpeername()  # raises where it is not connected
    protocol = factory()
    SocketTransport(loop, sock.dup() if shared else sock, protocol, sock if shared else None).begin()
    return protocol


async def look_up(loop: asyncio.AbstractEventLoop, host: str | None, port: int | None, **options: Any) -> list[Any]:
    """Do what ``loop.getaddrinfo`` does for stream sockets; a numeric address needs no thread.

    Args:
        host, port: of an address.
        options: `family`, `proto` and `flags`.

    Raises:
        OSError: the name is not known.
    """
    if host is not None:
        numeric = {**options, "flags": options.get("flags", 0) | socket.AI_NUMERICHOST}
        try:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, **numeric))
        except OSError:
            pass  # it is a name
    return list(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, **options))


def can_take_over(loop: asyncio.AbstractEventLoop, transport: asyncio.BaseTransport) -> bool:
    """Tell whether a transport is one that `take_over` knows: a loop's own for a stream socket, without TLS."""
    return is_plain_socket(type(transport)) and has_readers(loop)


def nothing_unread(transport: asyncio.BaseTransport) -> bool:
    """Tell whether it is sure that nothing waits to be read of a transport that can be taken over, not even the end."""
    sock = transport.get_extra_info("socket")
    return sock is not None and nothing_unread_at(sock.fileno())


def take_over(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, protocol: asyncio.BaseProtocol
) -> SocketTransport | None:
    """Go on with the connection of a loop's own transport on one of wsfast, which reads and writes sooner.

    The new one has a descriptor of its own, and reads from now on if the old one did. The old one is closed; it tells
    nobody.

    Returns:
        The transport; None, with everything as it was, where that cannot be done: the old one is of another kind (TLS,
        a framework's, a test's), is closing or has something unsent, or the system is out of descriptors.
    """
    if not can_take_over(loop, transport):
        return None
    if transport.is_closing() or transport.get_write_buffer_size():
        return None
    sock = transport.get_extra_info("socket")
    try:
        own = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    except OSError:
        return None
    taken = SocketTransport(loop, own, protocol)
    reading = transport.is_reading()
    transport.set_protocol(_NOBODY)
    transport.abort()
    taken.pause_reading()
    if reading:
        taken.resume_reading()
    return taken


_NOBODY = asyncio.Protocol()
"""Whom a transport that was taken over tells of its end."""
