"""`serve` with the parameters and the handlers of the old implementation."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from ..asyncio import server
from ..datastructures import Headers
from ..http11 import Response
from ..typing import PathLike
from .protocol import WebSocketCommonProtocol, broadcast

__all__ = ["WebSocketServer", "WebSocketServerProtocol", "broadcast", "serve", "unix_serve"]

WebSocketServer = server.Server


class WebSocketServerProtocol(WebSocketCommonProtocol, server.ServerConnection):  # type: ignore[misc]
    """A connection from the server's side."""

    async def process_request(self, path: str, request_headers: Headers) -> Any:
        """Return None to go on, or a status, headers and a body to answer an ordinary request; to be overridden."""


def serve(
    ws_handler: Callable[..., Awaitable[Any]],
    host: str | None = None,
    port: int | None = None,
    *,
    create_protocol: Any = None,
    klass: Any = None,
    process_request: Callable[[str, Headers], Any] | None = None,
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
        process_request: called with the path and the headers; returns None, or a status, headers and a body.
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
        answer = ask(request.path, request.headers)
        if inspect.isawaitable(answer):
            answer = await answer
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

    return server.serve(
        handler,
        host,
        port,
        create_connection=make,
        process_request=before,
        process_response=after,
        close_timeout=close_timeout or timeout or 10,
        max_queue=max_queue,
        write_limit=write_limit,
        **kwargs,
    )


def unix_serve(
    ws_handler: Callable[..., Awaitable[Any]], path: PathLike | None = None, **kwargs: Any
) -> WebSocketServer:
    """Make a WebSocket server that listens on a Unix socket.

    Args:
        ws_handler, kwargs: those of `serve`.
        path: of the socket.
    """
    return serve(ws_handler, unix=True, path=path, **kwargs)
