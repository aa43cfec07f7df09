"""`serve` of `websockets` on trio: `wsfast.trio.Server` with its parameters, defaults and meaning."""

from __future__ import annotations

import re
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

import trio

from wsfast import handshake
from wsfast.server import auth
from wsfast.serving import check_context
from wsfast.session import Limits
from wsfast.transport.binding import BACKLOG
from wsfast.trio import server as native
from wsfast.trio.stream import Transport

from ..dialing import MaxQueue
from ..extensions.base import ServerExtensionFactory
from ..frames import CloseCode
from ..http11 import SERVER, Request, Response, plain_response
from ..imports import lend
from ..protocol import OPEN
from ..receiving import OneHandler, Receiving, Terms, within_block
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, StatusLike, Subprotocol
from .connection import Connection, Opening, broadcast

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve"]

Handler = Callable[["ServerConnection"], Awaitable[object]]
Answer = Response | Awaitable[Response | None] | None
ProcessRequest = Callable[["ServerConnection", Request], Answer]
ProcessResponse = Callable[["ServerConnection", Request, Response], Answer]
SelectSubprotocol = Callable[["ServerConnection", Sequence[Subprotocol]], Subprotocol | None]


class ServerConnection(Connection):
    """A connection from the server's side; see `Connection`.

    Args:
        nursery, stream: what `serve` passes.
        protocol: the sans-IO protocol of the connection.
        server: the server that it belongs to.
        ping_interval, ping_timeout, close_timeout, max_queue: those of `serve`.

    Attributes:
        server: the server that it belongs to.
        username: the name of the client, set by `basic_auth`.
        handler, handler_kwargs: set by `route`.
    """

    protocol: ServerProtocol
    handler: Callable[..., Awaitable[Any]]
    handler_kwargs: Mapping[str, Any]

    def __init__(
        self,
        nursery: trio.Nursery | None,
        stream: trio.abc.Stream | Opening,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
    ) -> None:
        super().__init__(
            nursery,
            stream,
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
        )
        self.server = server

    def respond(self, status: StatusLike, text: str) -> Response:  # type: ignore[override]
        """Make a plain text response for `process_request` or `process_response` to return."""
        return plain_response(status, text)


class Server(Receiving, native.Server):
    """The server that `serve` runs.

    Args:
        listeners: what it accepts connections from.
        handler: called with each `ServerConnection`.
        create_connection: makes a `ServerConnection`.
        terms: the options of `serve` for connections.
        ssl: for TLS, a server's context.
        server_header: the value of Server; None for none.
        open_timeout: seconds for the opening handshake, TLS included.

    Attributes:
        listeners: what it accepts connections from.
    """

    def __init__(
        self,
        listeners: Sequence[trio.SocketListener],
        handler: Handler,
        create_connection: Callable[..., ServerConnection],
        terms: Terms,
        *,
        ssl: ssl_module.SSLContext | None,
        server_header: str | None,
        open_timeout: float | None,
    ) -> None:
        self._make = create_connection
        self.listeners: list[trio.SocketListener] = list(listeners)
        super().__init__(
            cast(dict[str | None, Any], {None: handler}),
            ssl=ssl,
            create_connection=self._new_connection,
            stop_timeout=None,
            server_header=server_header,
            open_timeout=open_timeout,
            compression=terms.compression,
            **terms.limits,
            **self.receive_by(terms),
        )
        self._registered = OneHandler(handler if create_connection is ServerConnection else within_block(handler))

    def _new_connection(
        self,
        transport: Transport,
        limits: Limits,
        *,
        stream: trio.abc.Stream | None = None,
        request: handshake.Request,
        logger: Any,
    ) -> ServerConnection:
        opening = Opening(transport, limits, stream, request)
        return self._make(None, opening, self._described(), self, **self._terms.settings)

    def _listeners(self) -> list[trio.SocketListener]:
        return self.listeners

    def _connection_opened(self, ws: Any) -> None:
        super()._connection_opened(ws)
        self._tell_open(ws)

    @property
    def connections(self) -> set[ServerConnection]:  # type: ignore[override]
        """The connections that are open, as a new set."""
        return {ws for ws in cast(set[ServerConnection], super().connections) if ws.state is OPEN}

    async def aclose(
        self, close_connections: bool = True, code: CloseCode | int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Stop: accept no more connections, close those that there are, and wait until all handlers have returned.

        Args:
            close_connections: False waits for connections that are open to end by themselves.
            code: the close code to send.
            reason: the close reason to send.
        """
        self.logger.info("server closing")
        await self.shutdown(close_connections, code, reason)
        self.logger.info("server closed")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()


async def serve(
    handler: Handler,
    port: int | None = None,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    listeners: list[trio.SocketListener] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    origins: Sequence[Origin | re.Pattern[str] | None] | None = None,
    extensions: Sequence[ServerExtensionFactory] | None = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    compression: str | None = "deflate",
    process_request: ProcessRequest | None = None,
    process_response: ProcessResponse | None = None,
    server_header: str | None = SERVER,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: MaxQueue = 16,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve WebSocket connections on trio, until it is cancelled or the `Server` is closed.

    Args:
        handler: called with each `ServerConnection`.
        port, host, backlog: where to listen, as `trio.open_tcp_listeners` takes them.
        listeners: what listens already, instead of these.
        ssl: for wss://, a server's context.
        origins, extensions, subprotocols, select_subprotocol, compression, process_request, process_response,
            server_header, open_timeout, ping_interval, ping_timeout, close_timeout, max_size, max_queue, logger: those
            of `serve` on asyncio.
        create_connection: makes the `ServerConnection`.
        task_status: told of the `Server` once it listens; for ``nursery.start``.

    Raises:
        OSError: the address is not to be had.
        ValueError, TypeError: an argument is wrong.
    """
    terms = Terms(
        origins=origins,
        extensions=extensions,
        subprotocols=subprotocols,
        select_subprotocol=select_subprotocol,
        compression=compression,
        process_request=process_request,
        process_response=process_response,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        logger=logger,
    )
    check_context(ssl)
    if listeners is None:
        if port is None:
            raise ValueError("port is required when listeners is not provided")
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    else:
        for name, value in (("port", port), ("host", host), ("backlog", backlog)):
            if value is not None:
                raise ValueError(f"{name} is incompatible with listeners")
    server = Server(
        listeners,
        handler,
        ServerConnection if create_connection is None else create_connection,
        terms,
        ssl=ssl,
        server_header=server_header,
        open_timeout=open_timeout,
    )
    sockets = [cast(Any, listener.socket) for listener in listeners]
    await server._run(sockets, None, backlog or BACKLOG, cast(Any, task_status))


def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], Awaitable[bool] | bool] | None = None,
) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
    """Make a `process_request` that lets only those in who have a user name and a password.

    See `wsfast.server.basic_auth`, which it is.
    """
    return auth.basic_auth(realm, credentials, check_credentials)


lend(globals())
