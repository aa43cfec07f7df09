"""Sockets to listen on, and the rules of accepting, for asyncio, threads and trio alike."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypedDict

from ..handshake.uri import format_address
from ..options import check_values
from ..telling import tell
from .refusal import why_refused

__all__ = [
    "BACKLOG",
    "EXHAUSTED",
    "LATER",
    "PAUSE",
    "BindOptions",
    "GivenSocket",
    "Refusals",
    "SocketFile",
    "bind",
    "bind_another",
    "bind_tcp",
    "bind_unix",
    "check_address",
    "check_backlog",
    "check_unused",
    "explain_binding",
    "part_listen",
]

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors by which the system says that it has no room for one more connection."""
LATER: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
"""Errors by which the system says that it can neither send nor receive now, but may a moment later."""
PAUSE: Final = 1.0
"""Seconds for which accepting pauses after the system refused."""
BACKLOG: Final = 1024
"""Connections that the system may hold before they are accepted, unless another number is asked for."""


class BindOptions(TypedDict, total=False):
    """How to listen on an address, for type checkers; `wsfast.Server.start` documents it."""

    backlog: int
    family: int
    flags: int
    reuse_address: bool | None
    reuse_port: bool | None
    keep_alive: bool | None


class Refusals:
    """Tells the log that the system refuses to accept connections: one line when that begins, and one when it ends.

    Args:
        logger: where to.
    """

    __slots__ = ("_logger", "_since")

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._since: float | None = None

    def refused(self, exc: OSError, now: float) -> None:
        """Note that the system refused; the next try is to follow after `PAUSE`.

        Each try would fail in the same way, and the system keeps the backlog meanwhile.
        """
        if self._since is None:
            self._since = now
            tell(self._logger.error, "no connections are accepted for now: %s", exc)

    def accepted(self, now: float) -> None:
        """Note that the system accepts: a connection, or if one came."""
        if self._since is not None:
            seconds, self._since = now - self._since, None
            tell(self._logger.warning, "connections are accepted again, after %.0f s", seconds)


def part_listen(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the options of a server into those for listening, as `bind` takes them, and the others."""
    listen = {name: value for name, value in options.items() if name in BindOptions.__annotations__}
    check_values(listen)
    return listen, {name: value for name, value in options.items() if name not in listen}


class GivenSocket:
    """A socket that the program gave to listen on. The server has a duplicate, whose number is its own.

    So whatever becomes of the program's, nobody who gets its number next is taken for it; both are closed at the end.

    Args:
        sock: the program's.
    """

    __slots__ = ("_given",)

    def __init__(self, sock: socket.socket) -> None:
        self._given = sock

    def duplicate(self) -> socket.socket:
        """Return the server's.

        Raises:
            OSError: the program's is closed, or there is no room for another.
        """
        return self._given.dup()

    def remove(self) -> None:
        """Close the program's."""
        self._given.close()


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
        OSError: an address cannot be bound.
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
                raise OSError(exc.errno, f"cannot listen on {format_address(address)}: {exc.strerror or exc}") from None
        if not bound:
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on any address of {host!r}")
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


def bind_another(bound: Any) -> socket.socket:
    """Return one more socket for the address of a bound one: with a queue of its own where ports are shared.

    Args:
        bound: a socket, or what asyncio makes of one.
    """
    shared = bound.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "SO_REUSEPORT")
    if not shared or not bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        duplicate: socket.socket = bound.dup()
        return duplicate
    another = socket.socket(bound.family, socket.SOCK_STREAM)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT, socket.SO_KEEPALIVE):
            another.setsockopt(socket.SOL_SOCKET, option, bound.getsockopt(socket.SOL_SOCKET, option))
        if bound.family == socket.AF_INET6:
            only = bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            another.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        another.bind(bound.getsockname())
    except BaseException:
        another.close()
        raise
    return another


def bind_unix(path: str | bytes) -> socket.socket:
    """Bind a Unix socket; a file that a server left behind is replaced.

    Raises:
        OSError: the name cannot be bound.
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
        raise OSError(exc.errno, f"cannot listen on {path!r}: {exc.strerror or exc}") from None
    return sock


def check_unused(path: str) -> None:
    """Check that a Unix socket can be bound without harm: binding would replace one on which another program listens.

    Raises:
        OSError: a program listens on it, or it is there and is not a socket.
    """
    try:
        # Connecting to what is not a socket is refused too.
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError("it is there already, and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError, FileNotFoundError):
        probe.settimeout(1)
        probe.connect(path)
        raise OSError("a program listens on it")


def explain_binding(exc: OSError, where: str) -> str:
    """Say in one line why an address cannot be listened on.

    Args:
        exc: what the system refused.
        where: the address, as the user gave it.
    """
    why = why_refused(exc).removeprefix(f"cannot listen on {where!r}: ")  # as `bind_unix` says it
    return f"cannot listen on {where}: {why}"


def check_backlog(backlog: object) -> int:
    """Check the option `backlog`; return it, clamped to what the system's integer holds.

    Raises:
        TypeError, ValueError: it is not an int of at least 0.
    """
    if not isinstance(backlog, int) or isinstance(backlog, bool):
        raise TypeError(f"backlog must be int, got {type(backlog).__name__}")
    if backlog < 0:
        raise ValueError(f"backlog must be at least 0, got {backlog}")
    return min(backlog, 0x7FFFFFFF)


def check_address(host: object, port: object) -> None:
    """Check a host and a port to listen on; the system would take a port that is out of range for another one.

    Raises:
        TypeError, ValueError: one is of another type, or the port out of its range.
    """
    if host is not None and not isinstance(host, str):
        if not isinstance(host, Collection) or isinstance(host, (bytes, bytearray)):
            raise TypeError(f"host must be str, a sequence of them, or None, got {type(host).__name__}")
        for one in host:
            if one is not None and not isinstance(one, str):
                raise TypeError(f"host must be str, a sequence of them, or None, got one of {type(one).__name__}")
    for name, value in (("host", host), ("port", port)):
        for one in (value,) if isinstance(value, str) or not isinstance(value, Collection) else value:
            if isinstance(one, str) and not one.isprintable():
                raise ValueError(f"{name} must be without control characters, got {one!a}")
    if port is None or isinstance(port, str):
        return
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"port must be int, the name of a service, or None, got {type(port).__name__}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 to 65535, got {port}")


def bind(
    host: str | Sequence[str] | None,
    port: int | None,
    sock: socket.socket | None,
    path: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> tuple[list[socket.socket], SocketFile | GivenSocket | None]:
    """Bind a socket for each address that a server is told to listen on; names are looked up, which may take long.

    Args:
        host, port, sock, path: those of `wsfast.sync.serve`.
        options: `BindOptions` but `backlog`, for host and port.

    Returns:
        The sockets, and what is to be removed at the end, if there is something.

    Raises:
        OSError: the address cannot be bound.
        ValueError, TypeError: an argument is wrong; the text names it.
    """
    check_values({"sock": sock, "path": path, **options})
    ways = [name for name, given in (("sock", sock), ("path", path)) if given is not None]
    if host is not None or port is not None:
        ways.append("host and port")
    if len(ways) != 1:
        raise ValueError(f"expected one address: host and port, path or sock; got {', '.join(ways) or 'none'}")
    if (sock is not None or path is not None) and options:
        raise TypeError(f"{', '.join(sorted(options))} does not go with {ways[0]}")
    if sock is not None:
        if sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket, got {sock!r}")
        given = GivenSocket(sock)
        return [given.duplicate()], given
    if path is not None:
        name = os.fspath(path)
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no Unix sockets")
        return [bind_unix(name)], SocketFile(name)
    check_address(host, port)
    family, flags = options.pop("family", socket.AF_UNSPEC), options.pop("flags", socket.AI_PASSIVE)
    # Windows lets several processes have a port if this is set.
    options.setdefault("reuse_address", sys.platform != "win32")
    found: dict[Any, None] = {}
    for one in [host or None] if host is None or isinstance(host, str) else host:
        found |= dict.fromkeys(socket.getaddrinfo(one, port, family=family, type=socket.SOCK_STREAM, flags=flags))
    return bind_tcp(host, found, **options), None
