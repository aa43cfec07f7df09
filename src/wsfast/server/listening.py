"""Listening: sockets are bound, connections accepted in batches, and a system that refuses them is waited for.

On a loop without ``add_reader`` the loop's own server accepts.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from ..transport.sockets import accept, has_readers, look_up

__all__ = ["Listening", "listen"]

_BATCH: Final = 64
"""Connections that are accepted in one turn of the loop."""
_PAUSE: Final = 1.0
"""Seconds without accepting after the system refused."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listening:
    """Sockets on which connections are accepted.

    Args:
        sockets: bound stream sockets, which are closed with it.
        factory: makes the protocol of a connection.
        backlog: connections that the system may hold before they are accepted.
        logger: told once when the system refuses connections, and once when it does so no more.
        has_room: tells whether one more connection may be accepted; `wake` is to be called when that changes.
        path: of a Unix socket, whose file is removed at the end.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        backlog: int,
        logger: Any,
        has_room: Callable[[], bool],
        path: str | bytes | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        self._factory = factory
        self._backlog = backlog
        self._logger = logger
        self._has_room = has_room
        self._serving = False
        self._servers: list[asyncio.Server] = []  # those of a loop without readers
        self._watched: set[socket.socket] = set()
        self._refused_since: float | None = None  # by the system
        self._retry: asyncio.TimerHandle | None = None
        self._file: tuple[str | bytes, tuple[int, int]] | None = None
        if path is not None and path[:1] not in ("\0", b"\0"):
            with suppress(OSError):
                self._file = path, _identity(path)

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The sockets, to be asked for their addresses; none once it is closed."""
        return tuple(TransportSocket(sock) for sock in self._sockets)

    def is_serving(self) -> bool:
        """Tell whether connections are accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Begin to accept; without effect if it has begun, or is closed."""
        if self._serving or not self._sockets:
            return
        self._serving = True
        if has_readers(self._loop):
            for sock in self._sockets:
                sock.listen(self._backlog)
            self.wake()
            return
        for sock in self._sockets:
            create: Any = self._loop.create_server
            if hasattr(socket, "AF_UNIX") and sock.family == socket.AF_UNIX:
                create = self._loop.create_unix_server
            self._servers.append(await create(self._factory, sock=sock, backlog=self._backlog))

    def close(self) -> None:
        """Accept no more, and close the sockets."""
        self._serving = False
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for server in self._servers:
            server.close()
        self._servers.clear()
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()
        if self._file is not None:
            # Another server may listen by that name meanwhile.
            (path, identity), self._file = self._file, None
            with suppress(OSError):
                if _identity(path) == identity:
                    os.unlink(path)

    def wake(self) -> None:
        """Go on accepting where there was no room."""
        if not self._serving or self._retry is not None or self._watched or not has_readers(self._loop):
            return
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept, sock)
            self._watched.add(sock)

    def _pause(self) -> None:
        for sock in self._watched:
            if not self._loop.is_closed():
                self._loop.remove_reader(sock)
        self._watched.clear()

    def _accept(self, sock: socket.socket) -> None:
        accepted = 0
        while accepted < _BATCH and self._serving:
            if not self._has_room():
                self._pause()
                return
            try:
                if not accept(self._loop, sock, self._factory):
                    break
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._refused(exc)
                else:
                    self._broken(sock, exc)
                return
            accepted += 1
        if accepted and self._refused_since is not None:
            seconds = self._loop.time() - self._refused_since
            self._refused_since = None
            self._logger.warning("connections are accepted again, after %.0f s", seconds)

    def _refused(self, exc: OSError) -> None:
        """Wait for a while: each try would fail in the same way, and the backlog is kept by the system."""
        if self._refused_since is None:
            self._refused_since = self._loop.time()
            self._logger.error("no connections are accepted for now: %s", exc)
        self._pause()
        self._retry = self._loop.call_later(_PAUSE, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.wake()

    def _broken(self, sock: socket.socket, exc: OSError) -> None:
        """Leave a socket alone that does not listen any more: somebody closed it, or ended it."""
        self._logger.error("no connections are accepted any more on %r: %s", sock, exc)
        self._watched.discard(sock)
        self._loop.remove_reader(sock)


def _identity(path: str | bytes) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


async def listen(
    factory: Callable[[], asyncio.BaseProtocol],
    host: str | Sequence[str] | None,
    port: int | None,
    *,
    path: str | os.PathLike[str] | None = None,
    sock: socket.socket | None = None,
    backlog: int,
    logger: Any,
    has_room: Callable[[], bool],
    start_serving: bool = True,
    **options: Any,
) -> Listening:
    """Bind sockets and accept connections on them; `Server.start` documents the arguments.

    Args:
        factory: makes the protocol of a connection.
        logger, has_room: those of `Listening`.
        options: `family`, `flags`, `reuse_address`, `reuse_port` and `keep_alive`, those of ``loop.create_server``.

    Raises:
        OSError: the address is not to be had.
        TypeError, ValueError: the arguments do not go together.
    """
    loop = asyncio.get_running_loop()
    file: str | bytes | None = None
    if path is not None:
        if sock is not None:
            raise ValueError("path goes without sock")
        if options:
            raise TypeError(f"{', '.join(options)} does not go with path")
        file = os.fspath(path)
        bound = [_bind_unix(file)]
    elif sock is not None:
        if host is not None or port is not None:
            raise ValueError("sock goes without host and port")
        if options:
            raise TypeError(f"{', '.join(options)} does not go with sock")
        if sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket, got {sock!r}")
        bound = [sock]
    elif host is None and port is None:
        raise ValueError("expected an address: host and port, path or sock")
    else:
        bound = await _bind(loop, host, port, **options)
    listening = Listening(bound, factory, backlog, logger, has_room, file)
    try:
        for one in bound:
            one.setblocking(False)
            if one.family in (socket.AF_INET, socket.AF_INET6):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which connections inherit
        if start_serving:
            await listening.start_serving()
    except BaseException:
        listening.close()
        raise
    return listening


async def _bind(
    loop: asyncio.AbstractEventLoop,
    host: str | Sequence[str] | None,
    port: int | None,
    *,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
) -> list[socket.socket]:
    hosts: Sequence[str | None] = [host or None] if host is None or isinstance(host, str) else list(host)
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port is not supported by this system")
    found: dict[tuple[Any, ...], None] = {}
    for one in hosts:
        for item in await look_up(loop, one, port, family=family, flags=flags):
            found[item] = None
    bound: list[socket.socket] = []
    try:
        for kind, type_, proto, _, address in found:
            try:
                sock = socket.socket(kind, type_, proto)
            except OSError:
                continue  # the system does not have that family
            bound.append(sock)
            if reuse_address is None or reuse_address:
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


def _bind_unix(path: str | bytes) -> socket.socket:
    if path[:1] not in ("\0", b"\0"):
        # A file that a server left behind is no hindrance.
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
