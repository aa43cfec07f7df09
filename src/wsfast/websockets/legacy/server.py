"""`serve` with the parameters and the handlers of the old implementation."""

from __future__ import annotations

import asyncio
import functools
import http
import inspect
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..asyncio import server
from ..datastructures import Headers, HeadersLike
from ..exceptions import InvalidHandshake, InvalidUpgrade
from ..extensions.base import ServerExtensionFactory
from ..headers import parse_subprotocol, validate_subprotocols
from ..http11 import SERVER, Response
from ..imports import lend
from ..server import ServerProtocol
from ..typing import LoggerLike, Origin, PathLike, Subprotocol
from .exceptions import AbortHandshake
from .protocol import WebSocketCommonProtocol, broadcast, warn_of_old

__all__ = ["HTTPResponse", "Serve", "WebSocketServer", "WebSocketServerProtocol", "broadcast", "serve", "unix_serve"]

WebSocketServer = server.Server
HTTPResponse = tuple[http.HTTPStatus, HeadersLike, bytes]
ProcessRequest = Callable[[str, Headers], Awaitable[HTTPResponse | None] | HTTPResponse | None]
SelectSubprotocol = Callable[[Sequence[Subprotocol], Sequence[Subprotocol]], Subprotocol | None]


class WebSocketServerProtocol(WebSocketCommonProtocol, server.ServerConnection):  # type: ignore[misc]
    """A connection from the server's side.

    `serve` makes it. It can also be made by itself and be used as an asyncio protocol, which does the opening handshake
    on its transport, as uvicorn has it.

    Args:
        ws_handler: called with the connection, or with the connection and the path.
        ws_server: the server that it belongs to.
        logger: default: ``logging.getLogger("websockets.server")``.
        origins, extensions, subprotocols, extra_headers, server_header, process_request, select_subprotocol,
            open_timeout: those of `serve`.
        kwargs: those of `WebSocketCommonProtocol`.

    Attributes:
        ws_server: the server that it belongs to.
        handler_task: the task that runs the handler.
    """

    is_client = False
    side = "server"
    handler_task: asyncio.Task[Any]

    _inner: Any = None  # what its transport really talks to, where it was made by itself
    _given_loop: asyncio.AbstractEventLoop | None = None
    _given_transport: Any = None

    def __init__(
        self,
        ws_handler: Callable[..., Awaitable[Any]],
        ws_server: Any = None,
        *,
        logger: LoggerLike | None = None,
        origins: Sequence[Origin | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        extra_headers: Any = None,
        server_header: str | None = SERVER,
        process_request: ProcessRequest | None = None,
        select_subprotocol: SelectSubprotocol | None = None,
        open_timeout: float | None = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(logger=logger, **kwargs)
        self.server: Any = getattr(self, "server", ws_server)
        self.ws_handler = ws_handler
        self.ws_server = ws_server
        self.origins = origins
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self.extra_headers = extra_headers
        self.server_header = server_header
        self._process_request = process_request
        self._select_subprotocol = select_subprotocol
        self.open_timeout = open_timeout

    # A program that makes it by itself sets these two.

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        return super().loop if self._given_loop is None else self._given_loop

    @loop.setter
    def loop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._given_loop = loop

    @property
    def transport(self) -> Any:
        """The asyncio transport; None once the connection is closed, unless it was set."""
        return super().transport if self._given_transport is None else self._given_transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._given_transport = transport

    def _overrides(self, name: str) -> bool:
        # Where it was made by itself, its transport calls these.
        return self._inner is None and super()._overrides(name)

    async def process_request(self, path: str, request_headers: Headers) -> Any:
        """Return None to go on, or a status, headers and a body to answer an ordinary request; to be overridden."""
        if self._process_request is not None:
            answer = self._process_request(path, request_headers)
            return await answer if inspect.isawaitable(answer) else answer
        return None

    def process_subprotocol(
        self, headers: Headers, available_subprotocols: Sequence[Subprotocol] | None
    ) -> Subprotocol | None:
        """Choose a subprotocol, or None.

        Args:
            headers: the request's.
            available_subprotocols: those that the server has.
        """
        values = headers.get_all("Sec-WebSocket-Protocol")
        if not values or not available_subprotocols:
            return None
        offers = [name for value in values for name in parse_subprotocol(value)]
        return self.select_subprotocol(offers, available_subprotocols)

    def select_subprotocol(
        self, client_subprotocols: Sequence[Subprotocol], server_subprotocols: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        """Choose what both sides like best, or None if they have nothing in common."""
        if self._select_subprotocol is not None:
            chosen: Subprotocol | None = self._select_subprotocol(client_subprotocols, server_subprotocols)
            return chosen
        common = [name for name in client_subprotocols if name in server_subprotocols]
        return min(common, key=lambda n: client_subprotocols.index(n) + server_subprotocols.index(n), default=None)

    # --- As an asyncio protocol

    def connection_made(self, transport: Any) -> None:
        """Begin the opening handshake on a transport; nothing where `serve` has made it, which does that."""
        if self._inner is not None:
            super().connection_made(transport)
        if self._inner is not None or self._transport is not None:
            return

        def make(protocol: ServerProtocol, server: Any, **settings: Any) -> WebSocketServerProtocol:
            self.describe(protocol)
            return self

        self._given_transport = transport
        alone = _server(
            make,
            self.ws_handler,
            origins=self.origins,
            extensions=self.available_extensions,
            server_header=self.server_header,
            open_timeout=self.open_timeout,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            close_timeout=self.close_timeout,
            max_size=self.max_size,
            max_queue=self.max_queue,
            write_limit=self.write_limit,
            logger=self.protocol.logger,
        )
        self._inner = alone.new_protocol()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take in what the transport received."""
        if self._inner.opening is not None:
            self._inner.opening.data_received(data)
        else:
            self._inner.feed(data)

    def eof_received(self) -> Any:
        """Called by the transport when the peer has ended its sending side."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended."""
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Called by the transport when much is unsent."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Called by the transport when little is unsent."""
        self._inner.resume_writing()


def serve(
    ws_handler: Callable[..., Awaitable[Any]],
    host: str | None = None,
    port: int | None = None,
    *,
    create_protocol: Callable[..., Any] | None = None,
    logger: LoggerLike | None = None,
    compression: str | None = "deflate",
    origins: Sequence[Origin | None] | None = None,
    extensions: Sequence[ServerExtensionFactory] | None = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    extra_headers: Any = None,
    server_header: str | None = SERVER,
    process_request: ProcessRequest | None = None,
    select_subprotocol: SelectSubprotocol | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = None,
    max_size: int | None = 2**20,
    max_queue: int | None = 2**5,
    read_limit: int = 2**16,
    write_limit: int = 2**16,
    klass: Callable[..., Any] | None = None,
    timeout: float | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    legacy_recv: bool = False,
    **kwargs: Any,
) -> WebSocketServer:
    """Make a WebSocket server.

    Args:
        ws_handler: called with the connection, or with the connection and the path.
        host, port: where to listen.
        create_protocol, klass: makes the connection, from the arguments of `WebSocketServerProtocol`.
        extra_headers: headers for the response, or what makes them of the path and the request's headers.
        process_request: called with the path and the headers; returns None, or a status, headers and a body.
        subprotocols: that are supported; without one in common, the connection has none.
        select_subprotocol: called with the client's and the server's subprotocols; returns one, or None.
        timeout: `close_timeout` of today's `serve`.
        loop, read_limit: of no effect.
        logger, compression, origins, extensions, server_header, open_timeout, ping_interval, ping_timeout,
            close_timeout, max_size, max_queue, write_limit, kwargs: those of today's `serve`.
    """
    warn_of_old(timeout=timeout, klass=klass, loop=loop)
    if subprotocols is not None:
        validate_subprotocols(subprotocols)
    close_timeout = close_timeout or timeout or 10
    shared: dict[str, Any] = {
        "logger": logger,
        "origins": origins,
        "extensions": extensions,
        "server_header": server_header,
        "open_timeout": open_timeout,
        "ping_interval": ping_interval,
        "ping_timeout": ping_timeout,
        "close_timeout": close_timeout,
        "max_size": max_size,
        "max_queue": max_queue,
        "write_limit": write_limit,
    }
    own: Callable[..., Any] = create_protocol or klass or WebSocketServerProtocol
    factory = functools.partial(
        own,
        ws_handler,
        subprotocols=subprotocols,
        extra_headers=extra_headers,
        process_request=process_request,
        select_subprotocol=select_subprotocol,
        read_limit=read_limit,
        host=host,
        port=port,
        secure=kwargs.get("ssl") is not None,
        legacy_recv=legacy_recv,
        loop=loop,
        **shared,
    )

    def make(protocol: ServerProtocol, server: Any, **settings: Any) -> Any:
        made = factory(server)
        made.describe(protocol)
        return made

    return _server(make, ws_handler, host, port, compression=compression, **shared, **kwargs)


def _server(
    make: Callable[..., Any], ws_handler: Callable[..., Awaitable[Any]], *args: Any, **options: Any
) -> WebSocketServer:
    """Make a server whose connections decide about requests.

    Args:
        make: makes a connection, from the arguments of today's `ServerConnection`.
        ws_handler: the handler.
        args, options: those of today's `serve`.
    """
    with_path = len(inspect.signature(ws_handler).parameters) > 1
    if with_path:
        warnings.warn("remove second argument of ws_handler", DeprecationWarning, stacklevel=3)

    async def handler(ws: Any) -> None:
        ws.handler_task = asyncio.current_task()
        ws.connection_open()
        await (ws_handler(ws, ws.request.path) if with_path else ws_handler(ws))

    async def before(ws: Any, request: Any) -> Response | None:
        try:
            answer = ws.process_request(request.path, request.headers)
            if inspect.isawaitable(answer):
                answer = await answer
        except AbortHandshake as exc:
            answer = exc.status, exc.headers, exc.body
        except InvalidUpgrade as exc:
            answer = http.HTTPStatus.UPGRADE_REQUIRED, {"Upgrade": "websocket"}, _refusal(exc)
        except InvalidHandshake as exc:
            answer = http.HTTPStatus.BAD_REQUEST, {}, _refusal(exc)
        if answer is None:
            return None
        status, given, body = answer
        response: Response = ws.respond(status, "")
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(body))
        headers = Headers(given)
        for name, value in response.headers.raw_items():
            headers.setdefault(name, value)
        response.headers, response.body = headers, body
        return response

    async def after(ws: Any, request: Any, response: Any) -> None:
        extra = ws.extra_headers
        if extra is not None:
            response.headers.update(extra(request.path, request.headers) if callable(extra) else extra)

    def choose(ws: Any, offers: Sequence[Subprotocol]) -> Any:
        return ws.process_subprotocol(ws.request.headers, ws.available_subprotocols)

    return server.serve(
        handler,
        *args,
        create_connection=make,
        select_subprotocol=choose,
        process_request=before,
        process_response=after,
        **options,
    )


def _refusal(exc: Exception) -> bytes:
    return f"Failed to open a WebSocket connection: {exc}.\n".encode()


def unix_serve(
    ws_handler: Callable[..., Awaitable[Any]], path: PathLike | None = None, **kwargs: Any
) -> WebSocketServer:
    """Make a WebSocket server that listens on a Unix socket.

    Args:
        ws_handler, kwargs: those of `serve`.
        path: of the socket.
    """
    return serve(ws_handler, unix=True, path=path, **kwargs)


Serve = serve

lend(globals())
