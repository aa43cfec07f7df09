"""`serve` with the parameters and the handlers of the old implementation."""

from __future__ import annotations

import asyncio
import http
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..asyncio import server
from ..datastructures import Headers, HeadersLike
from ..exceptions import InvalidHandshake, InvalidUpgrade
from ..headers import parse_subprotocol, validate_subprotocols
from ..http11 import SERVER, Response
from ..server import ServerProtocol
from ..typing import PathLike, Subprotocol
from .exceptions import AbortHandshake
from .protocol import WebSocketCommonProtocol, broadcast

__all__ = ["HTTPResponse", "WebSocketServer", "WebSocketServerProtocol", "broadcast", "serve", "unix_serve"]

WebSocketServer = server.Server
HTTPResponse = tuple[http.HTTPStatus, HeadersLike, bytes]


class WebSocketServerProtocol(WebSocketCommonProtocol, server.ServerConnection):  # type: ignore[misc]
    """A connection from the server's side.

    `serve` makes it. It can also be made by itself and be used as an asyncio protocol, which does the opening handshake
    on its transport, as uvicorn has it: then the arguments are these.

    Args:
        ws_handler: called with the connection, or with the connection and the path.
        ws_server: of no effect.
        logger: default: ``logging.getLogger("websockets.server")``.
        kwargs: those of `serve`, without those for listening.
    """

    _process_request: Callable[..., Any] | None = None
    _select: Callable[..., Any] | None = None
    _inner: Any = None  # what its transport really talks to
    _given_loop: asyncio.AbstractEventLoop | None = None
    _given_transport: Any = None

    def __init__(self, ws_handler: Any, ws_server: Any = None, *, logger: Any = None, **kwargs: Any) -> None:
        if isinstance(ws_handler, ServerProtocol):
            super().__init__(ws_handler, ws_server, **kwargs)
            return
        logger = logging.getLogger("websockets.server") if logger is None else logger
        super().__init__(ServerProtocol(logger=logger), getattr(self, "server", ws_server))
        self.extra_headers: Any = kwargs.pop("extra_headers", None)
        self.server_header: str | None = kwargs.pop("server_header", SERVER)
        self._process_request = kwargs.pop("process_request", None)
        self._handler = ws_handler
        self._options = {**kwargs, "logger": logger}

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
        if self._select is not None:
            chosen: Subprotocol | None = self._select(client_subprotocols, server_subprotocols)
            return chosen
        common = [name for name in client_subprotocols if name in server_subprotocols]
        return min(common, key=lambda n: client_subprotocols.index(n) + server_subprotocols.index(n), default=None)

    # --- As an asyncio protocol

    def connection_made(self, transport: Any) -> None:
        """Begin the opening handshake on a transport."""
        if self._inner is not None or not hasattr(self, "_handler"):
            super().connection_made(transport)
            return

        def make(protocol: ServerProtocol, server: Any, **settings: Any) -> WebSocketServerProtocol:
            self.describe(protocol)
            for name, value in settings.items():
                setattr(self, name, value)
            return self

        self._given_transport = transport
        alone = serve(
            self._handler,
            create_protocol=make,
            extra_headers=lambda path, headers: self.extra_headers or (),
            server_header=self.server_header,
            **self._options,
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
    create_protocol: Any = None,
    klass: Any = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    process_request: Callable[[str, Headers], Any] | None = None,
    select_subprotocol: Callable[[Sequence[Subprotocol], Sequence[Subprotocol]], Any] | None = None,
    extra_headers: Any = None,
    timeout: float | None = None,
    close_timeout: float | None = None,
    loop: Any = None,
    read_limit: int = 2**16,
    max_queue: int | None = 2**5,
    write_limit: int = 2**16,
    **kwargs: Any,
) -> WebSocketServer:
    """Make a WebSocket server.

    Args:
        ws_handler: called with the connection, or with the connection and the path.
        host, port: where to listen.
        create_protocol, klass: makes the connection.
        subprotocols: that are supported; without one in common, the connection has none.
        process_request: called with the path and the headers; returns None, or a status, headers and a body.
        select_subprotocol: called with the client's and the server's subprotocols; returns one, or None.
        extra_headers: headers for the response, or what makes them of the path and the request's headers.
        timeout: `close_timeout` of today's `serve`.
        loop, read_limit: of no effect.
        max_queue, write_limit, kwargs: those of today's `serve`.
    """
    make = create_protocol or klass or WebSocketServerProtocol
    with_path = len(inspect.signature(ws_handler).parameters) > 1

    async def handler(ws: Any) -> None:
        await (ws_handler(ws, ws.request.path) if with_path else ws_handler(ws))

    async def before(ws: Any, request: Any) -> Response | None:
        ask = ws.process_request if process_request is None else process_request
        try:
            answer = ask(request.path, request.headers)
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
        status, headers, body = answer
        response: Response = ws.respond(status, "")
        response.body = body
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(body))
        response.headers.update(headers)
        return response

    async def after(ws: Any, request: Any, response: Any) -> None:
        if extra_headers is not None:
            made = extra_headers(request.path, request.headers) if callable(extra_headers) else extra_headers
            response.headers.update(made)

    def choose(ws: Any, offers: Sequence[Subprotocol]) -> Any:
        ws._select = select_subprotocol
        return ws.process_subprotocol(ws.request.headers, subprotocols)

    if subprotocols is not None:
        validate_subprotocols(subprotocols)
    return server.serve(
        handler,
        host,
        port,
        create_connection=make,
        select_subprotocol=choose,
        process_request=before,
        process_response=after,
        close_timeout=close_timeout or timeout or 10,
        max_queue=max_queue,
        write_limit=write_limit,
        **kwargs,
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
