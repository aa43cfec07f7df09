"""`Connection`: a `wsfast.WebSocket` with the names of `websockets`."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from wsfast import connection as native
from wsfast import handshake
from wsfast.asyncio import broadcast as sending
from wsfast.asyncio.protocol import ConnectionProtocol
from wsfast.asyncio.websocket import WebSocket
from wsfast.session import Limits
from wsfast.transport.timers import CoarseTimer

from ..exceptions import ConnectionClosed
from ..http11 import Request, Response
from ..protocol import SERVER, Machine, Protocol, State

if TYPE_CHECKING:
    from wsfast.events import BytesLike

__all__ = ["Connection"]

MaxQueue = int | tuple[int | None, int | None] | None
WriteLimit = int | tuple[int, int | None]

_NO_LIMIT = 2**62


def limits(
    *,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: MaxQueue = 16,
    write_limit: WriteLimit = 2**15,
    **others: Any,
) -> dict[str, Any]:
    """Turn limits of `websockets` into those of wsfast, of which each is one number."""
    high = max_queue[0] if isinstance(max_queue, tuple) else max_queue
    write_high = write_limit[0] if isinstance(write_limit, tuple) else write_limit
    return {
        "max_size": max_size[0] if isinstance(max_size, tuple) else max_size,
        "read_limit": _NO_LIMIT if high is None else max(4096 * high, 1),
        "write_limit": max(write_high, 1),
        "max_buffered": None,
        **others,
    }


class _Host:
    """What a connection that has neither a server nor a client belongs to."""

    def __init__(self, limits: Limits, logger: Any) -> None:
        self.limits = limits
        self.logger = logger
        self.timer = CoarseTimer(asyncio.get_running_loop())

    def connection_opened(self, protocol: ConnectionProtocol) -> None:
        """Nothing is to be noted."""

    def connection_closed(self, protocol: ConnectionProtocol) -> None:
        """Nothing is to be noted."""


class Connection(WebSocket):
    """A connection, with the names and the behaviour of `websockets`.

    It can be used as an asyncio protocol too: then it is open as soon as its transport is.

    Args:
        protocol: what it is made with.
        ping_interval, ping_timeout, close_timeout, max_queue, write_limit: those of `connect` and `serve`.
    """

    connection_type = Machine

    def __init__(
        self,
        protocol: Protocol,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
        write_limit: WriteLimit = 2**15,
    ) -> None:
        self._native_request: Any = None
        self._request: Request | None = None
        super().__init__()
        self.protocol = protocol
        protocol._websocket = self
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.close_timeout = close_timeout
        self.max_queue = max_queue
        self.write_limit = write_limit
        self._kept_response: Response | None = None
        self._transport: asyncio.Transport | None = None  # before it is open
        self._adapter: logging.LoggerAdapter[Any] | None = None

    # --- What it is ---------------------------------------------------------------------------------------

    @property
    def id(self) -> uuid.UUID:
        """A random identifier of the connection, for logs."""
        return self.protocol.id

    @property
    def logger(self) -> logging.LoggerAdapter[Any]:
        """An adapter of the logger; records that it makes have the connection as ``websocket``."""
        if self._adapter is None:
            self._adapter = logging.LoggerAdapter(self.protocol.logger, {"websocket": self})
        return self._adapter

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        return asyncio.get_running_loop() if self._channel is None else self._open_channel().loop

    @property
    def _machine(self) -> native.Connection | None:
        return None if self._channel is None else self._channel.connection

    @property
    def state(self) -> State:  # type: ignore[override]
        """A `State`: CONNECTING, OPEN, CLOSING or CLOSED."""
        return self.protocol.state

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1006 without a Close frame; None while the connection is open."""
        return self.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent; None while the connection is open."""
        return self.protocol.close_reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """What `recv` and `send` raise once the connection is closed."""
        return self.protocol.close_exc

    @property
    def transport(self) -> asyncio.Transport | None:
        """The asyncio transport; None once the connection is closed."""
        return self._transport if self._channel is None else self._channel.transport

    @property
    def request(self) -> Any:
        """The opening handshake's `Request`."""
        if self._request is None and self._native_request is not None:
            self._request = Request.of(self._native_request)
        return self._request

    @request.setter
    def request(self, request: Any) -> None:
        if isinstance(request, handshake.Request):
            self._native_request, self._request = request, None
        else:
            self._request = request

    @property
    def response(self) -> Any:
        """The opening handshake's `Response`."""
        if self._kept_response is None:
            response = super().response
            if response is None:
                return None
            self._kept_response = Response.of(response)
        return self._kept_response

    @response.setter
    def response(self, response: Any) -> None:
        if isinstance(response, Response):
            self._kept_response = response
        else:
            self._kept_response = None
            WebSocket.response.__set__(self, response)  # type: ignore[attr-defined]

    # --- Messages -----------------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over messages until the connection is closed."""
        return self

    async def aclose(self) -> None:
        """End an iteration, as ``aclosing(aiter(ws))`` does; the connection stays open."""

    # --- As an asyncio protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Go on as an open connection on a transport, without an opening handshake."""
        made = limits(
            max_size=self.protocol.max_size,
            max_queue=self.max_queue,
            write_limit=self.write_limit,
            ping_interval=None,
            ping_timeout=None,
            close_timeout=self.close_timeout,
        )
        self._start(transport, _Host(Limits(**made), self.logger))

    def _start(self, transport: Any, host: Any) -> None:
        side = native.Side.SERVER if self.protocol.side is SERVER else native.Side.CLIENT
        protocol = ConnectionProtocol(asyncio.get_running_loop())
        protocol.open(host, side, self, transport)
        transport.set_protocol(protocol)


def broadcast(
    connections: Iterable[Connection],
    message: str | BytesLike,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send a message to several connections, without waiting; see `wsfast.broadcast`.

    Args:
        connections: those to send to; those that are not open are skipped.
        message: `str` for a text message, bytes-like for a binary one.
        text: True sends bytes-like as text, False sends `str` as binary.
        raise_exceptions: raise in an `ExceptionGroup` what would be logged otherwise.
    """
    sending.broadcast(connections, message, raise_exceptions, text=text)


broadcast.__module__ = "wsfast.websockets.asyncio.server"
