"""`serve` of `websockets`: `wsfast.Server` with its parameters, defaults and meaning."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from wsfast import handshake
from wsfast.asyncio.protocol import ConnectionProtocol
from wsfast.codes import CloseCause, CloseCode
from wsfast.server import auth
from wsfast.server import server as native

from ..dialing import MaxQueue, WriteLimit
from ..extensions.base import ServerExtensionFactory
from ..http11 import SERVER, Request, Response, plain_response
from ..imports import lend
from ..protocol import OPEN
from ..receiving import Receiving, Terms, within_block
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, PathLike, StatusLike, Subprotocol
from .connection import Connection, broadcast

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

Handler = Callable[["ServerConnection"], Awaitable[None]]
Answer = Response | Awaitable[Response | None] | None
ProcessRequest = Callable[["ServerConnection", Request], Answer]
ProcessResponse = Callable[["ServerConnection", Request, Response], Answer]
SelectSubprotocol = Callable[["ServerConnection", Sequence[Subprotocol]], Subprotocol | None]


class ServerConnection(Connection):
    """A connection from the server's side; see `Connection`.

    Args:
        protocol: the sans-IO protocol of the connection.
        server: the server that it belongs to.
        ping_interval, ping_timeout, close_timeout, max_queue, write_limit: those of `serve`.

    Attributes:
        server: the server that it belongs to.
        username: the name of the client, set by `basic_auth`.
        handler, handler_kwargs: set by `route`.
    """

    __slots__ = ("server",)

    protocol: ServerProtocol
    handler: Callable[..., Awaitable[None]]
    handler_kwargs: Mapping[str, Any]

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = 2**15,
    ) -> None:
        super().__init__(
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
        )
        self.server: Server = server

    def respond(self, status: StatusLike, text: str) -> Response:  # type: ignore[override]
        """Make a plain text response for `process_request` or `process_response` to return."""
        return plain_response(status, text)


class Server(Receiving, native.Server):
    """The server that `serve` makes.

    ``await`` it, or enter it with ``async with``, to start it.

    Args:
        handler: called with each `ServerConnection`.
        listen: where to listen, from the arguments of `serve`.
        create_connection: makes a `ServerConnection`.
        terms: the options of `serve` for connections.
        options: those of `wsfast.Server`.
    """

    def __init__(
        self,
        handler: Handler,
        listen: dict[str, Any],
        create_connection: Callable[..., ServerConnection],
        terms: Terms,
        **options: Any,
    ) -> None:
        super().__init__(stop_timeout=None, **self.receive_by(terms), **options)
        self._served = handler if create_connection is ServerConnection else within_block(handler)
        self._listen = listen
        self._create_connection = create_connection
        self._started = False
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()

    def _new_websocket(
        self, request: handshake.Request, peer: Any, transport: asyncio.Transport | None
    ) -> ServerConnection:
        """Make what the hooks and the handler hold."""
        ws = self._create_connection(self._described(), self, **self._terms.settings)
        ws.request = request
        ws._peer = peer
        ws._transport = transport
        if transport is not None and type(ws) is not ServerConnection and ws._overrides("connection_made"):
            ws.connection_made(transport)
        return ws

    def _note_response(self, ws: Any, head: bytes) -> None:
        if ws.protocol._extensions is not None:
            ws.response = head  # only this server knows what extensions were agreed on
        else:
            super()._note_response(ws, head)

    def _registration(self, name: str | None) -> native._Registration:
        return native._Registration(handler=self._served)  # type: ignore[arg-type]

    def _connection_opened(self, protocol: ConnectionProtocol) -> None:
        super()._connection_opened(protocol)
        self._tell_open(protocol.ws)

    def _tell_cancelled(self, ws: Any) -> None:
        """Nothing: websockets does not."""

    def _handler_failed(self, protocol: ConnectionProtocol, exc: BaseException) -> None:
        """Close a connection with 1011 because its handler raised; log it."""
        self._tell_failure(protocol.ws, exc)
        protocol.start_close(CloseCode.INTERNAL_ERROR, "", CloseCause.HANDLER_ERROR)
        protocol.discard()

    # --- What users call ----------------------------------------------------------------------------------

    @property
    def connections(self) -> set[ServerConnection]:  # type: ignore[override]
        """The connections that are open, as a new set."""
        return {ws for ws in cast(set[ServerConnection], super().connections) if ws.state is OPEN}

    @property
    def websockets(self) -> set[ServerConnection]:
        """What the servers of ``websockets.legacy`` call `connections`."""
        return self.connections

    @property
    def server(self) -> Self:
        """Itself, which has the methods of an `asyncio.Server` that websockets has here."""
        return self

    @property
    def ws_server(self) -> Self:
        """Itself: so the servers of ``websockets.legacy`` are found before they are started."""
        return self

    def close(  # type: ignore[override]
        self, close_connections: bool = True, code: CloseCode | int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Begin to stop; `wait_closed` waits for the end.

        Args:
            close_connections: close connections too, else wait for them to end by themselves.
            code: the close code to send.
            reason: the close reason to send.
        """
        if self.closing:
            return  # only the first call counts
        self.logger.info("server closing")
        super().close(code, reason, close_connections=close_connections)

    async def _stop(self, *args: Any) -> None:
        await super()._stop(*args)
        self.logger.info("server closed")

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop that it runs on."""
        return self.loop

    async def serve_forever(self, *args: Any, **kwargs: Any) -> None:
        """Serve until it is cancelled, or `close` is called; then stop in order."""
        await self
        try:
            if not self.is_serving() and not self.closing:
                await self.start_serving()
            await self.wait_closed()
        finally:
            self.close()
            await self.wait_closed()

    async def _begin(self) -> Self:
        if not self._started:
            self._started = True
            await self.start(**self._listen)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begin().__await__()

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
        await self.wait_closed()


def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
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
    write_limit: WriteLimit = 2**15,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    **kwargs: Any,
) -> Server:
    """Make a WebSocket server: ``async with serve(handler, host, port):``, or ``server = await serve(...)``.

    Args:
        handler: called with each `ServerConnection`.
        host, port: where to listen.
        origins: the Origin headers that are accepted, None for a client that sends none. Default: any.
        extensions: factories of extensions to accept: settings of permessage-deflate, or a program's own.
        subprotocols: those that the server has, in its order of preference. A client must then offer one of them.
        select_subprotocol: called with the connection and the client's offers; returns the choice, or None.
        compression: ``"deflate"`` or None.
        process_request: called with the connection and the request; may return a response. Plain or async.
        process_response: called with the connection, the request and the response; may return another one.
        server_header: the value of Server; None for none.
        open_timeout, ping_interval, ping_timeout, close_timeout: those of `wsfast.Server`.
        max_size, max_queue, write_limit: those of `connect`.
        logger: default: ``logging.getLogger("websockets.server")``.
        create_connection: makes the `ServerConnection`.
        kwargs: further arguments of `wsfast.Server.start`: `ssl`, `sock`, `start_serving`, ...

    Raises:
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
        write_limit=write_limit,
        logger=logger,
    )
    for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        kwargs.pop(name, None)  # `open_timeout` and `close_timeout` are for TLS too
    return Server(
        handler,
        _address(host, port, kwargs),
        ServerConnection if create_connection is None else create_connection,
        terms,
        compression=terms.compression,
        server_header=server_header,
        open_timeout=open_timeout,
        **terms.limits,
    )


def _address(host: str | None, port: int | None, options: dict[str, Any]) -> dict[str, Any]:
    sock = options.get("sock")
    if options.pop("unix", False):
        path = options.get("path")
        if path is None and sock is None:
            raise ValueError("path was not specified, and no sock specified")
        if path is not None and sock is not None:
            raise ValueError("path and sock can not be specified at the same time")
        return options
    if sock is not None and (host is not None or port is not None):
        raise ValueError("host/port and sock can not be specified at the same time")
    return {"host": host, "port": port, **options}


def unix_serve(handler: Handler, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Make a WebSocket server that listens on a Unix socket.

    Args:
        handler: called with each `ServerConnection`.
        path: of the socket; None if `sock` is given.
        kwargs: those of `serve`.
    """
    return serve(handler, unix=True, path=path, **kwargs)


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
