"""Sockets to listen on, and what is known of accepting on them, whatever waits for them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

__all__ = ["EXHAUSTED", "PAUSE", "SocketFile", "bind_tcp", "bind_unix"]

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors by which the system says that it has no room for one more connection."""
PAUSE: Final = 1.0
"""Seconds without accepting after the system refused."""


class SocketFile:
    """The file of a Unix socket, to be removed at the end unless another server listens by its name meanwhile.

    Args:
        path: of a socket that was bound; one in Linux' abstract namespace has no file.
    """

    __slots__ = ("_identity", "_path")

    def __init__(self, path: str | bytes) -> None:
        self._path = path
        self._identity = None if path[:1] in ("\0", b"\0") else self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Remove the file, once."""
        identity, self._identity = self._identity, None
        if identity is not None and self._look() == identity:
            with suppress(OSError):
                os.unlink(self._path)


def bind_tcp(
    host: object,
    found: Iterable[Any],
    *,
    reuse_address: bool = True,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
) -> list[socket.socket]:
    """Bind a socket for each address.

    Args:
        host: for the text of an error.
        found: what `socket.getaddrinfo` returned.
        reuse_address, reuse_port, keep_alive: options of the sockets.

    Raises:
        OSError: an address is not to be had.
        ValueError: the system does not know `reuse_port`.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port is not supported by this system")
    found = list(found)
    bound: list[socket.socket] = []
    try:
        for kind, type_, proto, _, address in found:
            try:
                sock = socket.socket(kind, type_, proto)
            except OSError:
                continue  # the system does not have that family
            bound.append(sock)
            if reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if keep_alive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if kind == socket.AF_INET6 and hasattr(socket, "IPPROTO_IPV6"):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # the other family has a socket of its own
            try:
                sock.bind(address)
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                    bound.remove(sock)  # the family is there, but not in use
                    sock.close()
                    continue
                raise OSError(exc.errno, f"cannot listen on {address!r}: {exc.strerror}") from None
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on any address of {host!r}")
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def bind_unix(path: str | bytes) -> socket.socket:
    """Bind a Unix socket; a file that a server left behind is no hindrance.

    Raises:
        OSError: the name is not to be had.
    """
    if path[:1] not in ("\0", b"\0"):
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.remove(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, f"cannot listen on {path!r}: {exc.strerror}") from None
    return sock
