"""Both ends of a connection in memory, for the tests of programs that use wsfast.

No socket, no port, no thread: two asyncio transports that are each other's peer, on any event loop, with the network's
delays, limits and failures at the test's command::

    async with wsfast.testing.pair() as (client, server):
        await client.send("hello")
        assert await server.recv() == "hello"

The opening handshake, the frames and the closing handshake are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Unpack, cast

from ..asyncio.protocol import ConnectionProtocol
from ..asyncio.websocket import WebSocket
from ..client.connector import connect
from ..client.options import ConnectOptions
from ..codes import CloseCause
from ..dial.dialer import Dialer
from ..handshake.uri import URI
from ..server.accepting import ServerOpening
from ..server.options import Handler, ServerOptions
from ..server.server import Server
from .memory import Pipe, check_network

__all__ = ["Pair", "pair"]

_PATIENCE: Final = 1.0
"""Seconds that the end of a pair gives a closing handshake, and a handler."""


class Pair:
    """Both ends of an open connection; it unpacks into ``client, server``.

    Attributes:
        client: the client's end.
        server: the server's end. Where a `Server` with handlers was given, it is what the handler holds.
        pipe: the network between them.
    """

    __slots__ = ("client", "pipe", "server")

    def __init__(self, client: WebSocket, server: WebSocket, pipe: Pipe) -> None:
        self.client: WebSocket = client
        self.server: WebSocket = server
        self.pipe: Pipe = pipe

    def __iter__(self) -> Iterator[WebSocket]:
        return iter((self.client, self.server))


class _PipeDialer(Dialer):
    """The way to a server through a pipe, whatever the URI says."""

    pipe: Pipe
    server: Server
    opening: ServerOpening

    async def dial(self, uri: URI, protocol: asyncio.Protocol) -> None:
        """Connect; the URI's scheme is for the request only."""
        served = cast(ConnectionProtocol, self.server.new_protocol())
        self.opening = cast(ServerOpening, served.opening)
        self.pipe.start(protocol, served)


class pair:  # noqa: N801
    """Connect a client and a server in memory: ``async with pair() as (client, server):``.

    At the end of the block both ends are closed, by the closing handshake if the network still works; no task is left
    behind. A handler first gets what was sent to it, and has a second to take that and to end. If the block raises,
    both ends are dropped at once.

    Args:
        server: a `Server` whose handlers are to be tested, dispatch by subprotocol included; a handler, for a server of
            its own; or None, the default: then the test uses both ends. A `Server` can be used for any number of pairs,
            and is not closed.
        uri: the URI that the client asks for; its path can matter to the server. Default: ``ws://server.test/``.
        server_options: for the server that is made when none is given, as for `Server`; default none.
        latency, bandwidth, chunk_size, window: the network's; see `Pipe`.
        client_options: those of `connect`, such as ``subprotocols=["chat"]``.

    Attributes:
        pipe: the `Pipe`, once the block is entered: ``pipe.pause()``, ``pipe.drop()``, ``pipe.reset()``, ...

    Raises:
        ValueError, TypeError: an argument is wrong, or `server_options` goes with a `Server`.
        InvalidHandshake: the server refuses the client: `InvalidStatus`, with its response.
    """

    def __init__(
        self,
        server: Server | Handler | None = None,
        *,
        uri: str = "ws://server.test/",
        server_options: ServerOptions | None = None,
        latency: float | Callable[[], float] = 0.0,
        bandwidth: float | None = None,
        chunk_size: int | None = None,
        window: int = 65536,
        **client_options: Unpack[ConnectOptions],
    ) -> None:
        check_network(latency, bandwidth, chunk_size, window)
        if server_options is not None and not isinstance(server_options, Mapping):
            raise TypeError(f"server_options must be a mapping or None, got {type(server_options).__name__}")
        client_options.setdefault("proxy", None)
        self._connector = connect(uri, **client_options)
        self._own = not isinstance(server, Server)
        self._held = server is None  # for the test, so that nobody else receives on the server's end
        if isinstance(server, Server):
            if server_options is not None:
                raise TypeError("server_options goes with no Server: it has options of its own")
            self._server = server
        else:
            self._server = Server(**(server_options or {}))
            for name in [None, *(client_options.get("subprotocols") or ())]:
                self._server.register_handler(name, _hold if server is None else server)
        self._network: dict[str, Any] = {
            "latency": latency,
            "bandwidth": bandwidth,
            "chunk_size": chunk_size,
            "window": window,
        }
        self.pipe: Pipe

    async def __aenter__(self) -> Pair:
        loop = asyncio.get_running_loop()
        self.pipe = Pipe(loop, **self._network)
        dialer = _PipeDialer(None, None, None, None, {})
        dialer.pipe, dialer.server = self.pipe, self._server
        self._connector._dialer = dialer
        try:
            client = await self._connector
            protocol = self.pipe.server.get_protocol()
            if not isinstance(protocol, ConnectionProtocol):
                raise RuntimeError("the server has not opened the connection")  # pragma: no cover - the client has
        except BaseException:
            self.pipe.reset()
            await self._stop()
            raise
        self._protocol = protocol
        self._pair = Pair(client, dialer.opening.ws, self.pipe)  # the protocol has it until the connection has ended
        return self._pair

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self.pipe._dropped:
                self.pipe._hurry()
                await self._close()
        finally:
            self._pair.client.abort()
            self._protocol.abort(CloseCause.STOP)
            await self._pair.client.wait_closed()
            await self._pair.server.wait_closed()
            await self._stop()

    async def _close(self) -> None:
        client, server = self._pair
        client.close_nowait()
        if self._held:
            # Messages that the test has not received do not matter any more.
            self._protocol.discard()
        _, late = await asyncio.wait(
            [asyncio.ensure_future(client.wait_closed()), asyncio.ensure_future(server.wait_closed())],
            timeout=_PATIENCE,
        )
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def _stop(self) -> None:
        """Let the handler end, and the server if it is the pair's own."""
        task = None if not hasattr(self, "_protocol") else self._protocol.task
        if task is not None:
            await asyncio.wait([task], timeout=_PATIENCE)
            task.cancel()
        if self._own:
            self._server.close()
            await self._server.wait_closed()


async def _hold(ws: WebSocket) -> None:
    """Leave a connection to the test."""
    await ws.wait_closed()
