"""Listening: binds sockets, accepts connections in batches, and pauses while the system refuses to accept.

On a loop without ``add_reader`` the loop's own server accepts.
"""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..telling import tell
from ..transport.binding import EXHAUSTED, PAUSE, GivenSocket, Refusals, SocketFile, bind_tcp, bind_unix
from ..transport.sockets import accept, has_readers, look_up

__all__ = ["Listening", "listen"]

_BATCH: Final = 64
"""Connections that are accepted in one turn of the loop."""


class Listening:
    """Sockets on which connections are accepted.

    Args:
        sockets: bound stream sockets, which are closed with it.
        factory: makes the protocol of a connection.
        backlog: connections that the system may hold before they are accepted.
        logger: gets a line when the system begins to refuse connections, and one when that ends.
        has_room: tells whether one more connection may be accepted; `wake` is to be called when that changes.
        left: what is removed at the end: the file of a Unix socket, or the socket that the program gave.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        backlog: int,
        logger: Any,
        has_room: Callable[[], bool],
        left: SocketFile | GivenSocket | None = None,
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
        self._refusals = Refusals(logger)
        self._retry: asyncio.TimerHandle | None = None
        self._left = left

    @property
    def sockets(self) -> tuple[TransportSocket, ...]:
        """The listening sockets, for `getsockname`; empty once this is closed."""
        return tuple(TransportSocket(sock) for sock in self._sockets)

    def is_serving(self) -> bool:
        """Tell whether connections are accepted."""
        return self._serving

    async def start_serving(self) -> None:
        """Begin to accept; without effect if that has begun already, or after `close`."""
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
        if self._left is not None:
            self._left.remove()

    def wake(self) -> None:
        """Go on accepting, after a pause because there was no room."""
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
                if exc.errno in EXHAUSTED:
                    self._refused(exc)
                else:
                    self._broken(sock, exc)
                return
            accepted += 1
        self._refusals.accepted(self._loop.time())

    def _refused(self, exc: OSError) -> None:
        self._refusals.refused(exc, self._loop.time())
        self._pause()
        self._retry = self._loop.call_later(PAUSE, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.wake()
        # At once, for the log: where no connection waits, nothing would call it.
        for sock in self._sockets:
            if sock in self._watched:
                self._accept(sock)

    def _broken(self, sock: socket.socket, exc: OSError) -> None:
        """Forget a socket that no longer listens, because the program shut it down."""
        tell(self._logger.error, "no connections are accepted any more on %r: %s", sock, exc)
        self._watched.discard(sock)
        self._loop.remove_reader(sock)


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
        OSError: the address cannot be bound.
        TypeError, ValueError: the arguments exclude each other.
    """
    loop = asyncio.get_running_loop()
    left: SocketFile | GivenSocket | None = None
    if path is not None:
        if sock is not None:
            raise ValueError("path goes without sock")
        if options:
            raise TypeError(f"{', '.join(options)} does not go with path")
        file = os.fspath(path)
        bound = [bind_unix(file)]
        left = SocketFile(file)
    elif sock is not None:
        if host is not None or port is not None:
            raise ValueError("sock goes without host and port")
        if options:
            raise TypeError(f"{', '.join(options)} does not go with sock")
        if sock.type & 0xF != socket.SOCK_STREAM:
            raise ValueError(f"expected a stream socket, got {sock!r}")
        left = GivenSocket(sock)
        bound = [left.duplicate()]
    elif host is None and port is None:
        raise ValueError("expected an address: host and port, path or sock")
    else:
        bound = await _bind(loop, host, port, **options)
    listening = Listening(bound, factory, backlog, logger, has_room, left)
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
    found: dict[tuple[Any, ...], None] = {}
    for one in hosts:
        for item in await look_up(loop, one, port, family=family, flags=flags):
            found[item] = None
    return bind_tcp(
        host, found, reuse_address=reuse_address is None or reuse_address, reuse_port=reuse_port, keep_alive=keep_alive
    )
