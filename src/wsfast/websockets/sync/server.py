"""`serve` of `websockets` in threads: `wsfast.sync.Server` with its parameters, defaults and meaning."""

from __future__ import annotations

import os
import re
import socket
import ssl as ssl_module
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from wsfast import handshake
from wsfast.server import auth
from wsfast.session import Limits
from wsfast.sync import server as native
from wsfast.sync.link import Link
from wsfast.transport.binding import BACKLOG

from ..dialing import MaxQueue
from ..extensions.base import ServerExtensionFactory
from ..frames import CloseCode
from ..http11 import SERVER, Request, Response, plain_response
from ..imports import lend
from ..protocol import OPEN
from ..receiving import OneHandler, Receiving, Terms
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, PathLike, StatusLike, Subprotocol
from .connection import Connection, Opening, broadcast

__all__ = ["Server", "ServerConnection", "basic_auth", "broadcast", "serve", "unix_serve"]

Handler = Callable[["ServerConnection"], object]
ProcessRequest = Callable[["ServerConnection", Request], Response | None]
ProcessResponse = Callable[["ServerConnection", Request, Response], Response | None]
SelectSubprotocol = Callable[["ServerConnection", Sequence[Subprotocol]], Subprotocol | None]


class ServerConnection(Connection):
    """A connection from the server's side; see `Connection`.

    Args:
        socket: what `serve` passes.
        protocol: the sans-IO protocol of the connection.
        server: the server that it belongs to.
        ping_interval, ping_timeout, close_timeout, max_queue: those of `serve`.

    Attributes:
        server: the server that it belongs to.
        username: the name of the client, set by `basic_auth`.
        handler, handler_kwargs: set by `route`.
    """

    protocol: ServerProtocol
    handler: Callable[..., Any]
    handler_kwargs: Mapping[str, Any]

    def __init__(
        self,
        socket: socket.socket | Opening,
        protocol: ServerProtocol,
        server: Server,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
    ) -> None:
        super().__init__(
            socket,
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
    """The server that `serve` makes: `serve_forever` accepts connections, `shutdown` stops it.

    Args:
        handler: called with each `ServerConnection`.
        create_connection: makes a `ServerConnection`.
        terms: the options of `serve` for connections.
        ssl: for TLS, a server's context.
        server_header: the value of Server; None for none.
        open_timeout: seconds for the opening handshake, TLS included.
    """

    def __init__(
        self,
        handler: Handler,
        create_connection: Callable[..., ServerConnection],
        terms: Terms,
        *,
        ssl: ssl_module.SSLContext | None,
        server_header: str | None,
        open_timeout: float | None,
    ) -> None:
        self._make = create_connection
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
        self, link: Link, limits: Limits, *, request: handshake.Request, logger: Any
    ) -> ServerConnection:
        return self._make(Opening(link, limits, request), self._described(), self, **self._terms.settings)

    def _connection_opened(self, ws: Any) -> None:
        super()._connection_opened(ws)
        self._tell_open(ws)

    @property
    def connections(self) -> set[ServerConnection]:  # type: ignore[override]
        """The connections that are open, as a new set."""
        return {ws for ws in cast(set[ServerConnection], super().connections) if ws.state is OPEN}

    def shutdown(
        self, close_connections: bool = True, code: CloseCode | int = CloseCode.GOING_AWAY, reason: str = ""
    ) -> None:
        """Stop: accept no more connections, close those that there are, and wait until all handlers have returned.

        Args:
            close_connections: False waits for connections that are open to end by themselves.
            code: the close code to send.
            reason: the close reason to send.
        """
        self.logger.info("server closing")
        super().shutdown(close_connections, code, reason)
        self.logger.info("server closed")


def within_block(handler: Handler) -> Handler:
    """Make a handler run in its connection's ``with`` block, for a class of a program's own that overrides it."""

    def run(ws: ServerConnection) -> None:
        with ws:
            handler(ws)

    return run


def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
    sock: socket.socket | None = None,
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
    **kwargs: Any,
) -> Server:
    """Make a WebSocket server in threads: ``with serve(handler, host, port) as server: server.serve_forever()``.

    Args:
        handler: called with each `ServerConnection`, in a thread of its own.
        host, port: where to listen.
        sock: a bound socket, instead of host and port.
        ssl: for wss://, a server's context.
        origins, extensions, subprotocols, select_subprotocol, compression, process_request, process_response,
            server_header, open_timeout, ping_interval, ping_timeout, close_timeout, max_size, max_queue, logger: those
            of `serve` on asyncio; the hooks are plain functions.
        create_connection: makes the `ServerConnection`.
        kwargs: what `socket.create_server` takes.

    Raises:
        OSError: the address is not to be had.
        ValueError, TypeError: an argument is wrong.
    """
    if ssl is None and "ssl_context" in kwargs:
        ssl = kwargs.pop("ssl_context")
        warnings.warn("ssl_context was renamed to ssl", DeprecationWarning, stacklevel=2)
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
    server = Server(
        handler,
        ServerConnection if create_connection is None else create_connection,
        terms,
        ssl=ssl,
        server_header=server_header,
        open_timeout=open_timeout,
    )
    server._listen([_bound(host, port, sock, kwargs)], None, kwargs.get("backlog") or BACKLOG)
    return server


def _bound(host: str | None, port: int | None, sock: socket.socket | None, options: dict[str, Any]) -> socket.socket:
    unix = options.pop("unix", False)
    path: PathLike | None = options.pop("path", None)
    if sock is not None:
        for name, value in (("host", host), ("port", port), ("path", path)):
            if value is not None:
                raise ValueError(f"{name} is incompatible with sock")
        return sock
    if not unix:
        return socket.create_server((host or "", port or 0), **options)
    if path is None:
        raise ValueError("missing path argument")
    return socket.create_server(os.fspath(path), **{"family": socket.AF_UNIX, **options})


def unix_serve(handler: Handler, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Make a WebSocket server in threads that listens on a Unix socket.

    Args:
        handler: called with each `ServerConnection`.
        path: of the socket; None if `sock` is given.
        kwargs: those of `serve`.
    """
    return serve(handler, unix=True, path=path, **kwargs)


def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], bool] | None = None,
) -> Callable[[ServerConnection, Request], Response | None]:
    """Make a `process_request` that lets only those in who have a user name and a password.

    See `wsfast.server.basic_auth`; `check_credentials` is a plain function here.
    """
    check: Callable[[Any, Any], Any] = auth.basic_auth(realm, credentials, check_credentials)

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        response: Response | None = native.run_to_end(check(connection, request))
        return response

    return process_request


def __getattr__(name: str) -> Any:
    if name == "WebSocketServer":
        warnings.warn("WebSocketServer was renamed to Server", DeprecationWarning, stacklevel=2)
        return Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


lend(globals())
