"""The connections of the old implementation, from either side."""

from __future__ import annotations

import asyncio
import collections
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from wsfast import connection as native
from wsfast.codes import CloseCode
from wsfast.connection import Side

from ..asyncio import connection
from ..asyncio.connection import Connection
from ..exceptions import ConnectionClosed, InvalidState
from ..frames import Close
from ..imports import lend
from ..protocol import CLIENT, CLOSED, CONNECTING, OPEN, SERVER, Machine, Protocol
from ..typing import LoggerLike

if TYPE_CHECKING:
    from wsfast.events import BytesLike

__all__ = ["WebSocketCommonProtocol", "broadcast", "warn_of_old"]


class WebSocketCommonProtocol(Connection):
    """A connection, as the old implementation names what it has.

    Args:
        logger: default: ``logging.getLogger("websockets.client")``, or ``.server``.
        ping_interval, ping_timeout, close_timeout, max_size, max_queue, write_limit: those of `connect` and `serve`.
        read_limit, host, port, secure, legacy_recv, loop: of no effect.
        timeout: the old name of `close_timeout`.
    """

    is_client: bool = True
    side: str = "undefined"

    def __init__(
        self,
        *,
        logger: LoggerLike | None = None,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = None,
        max_size: int | None = 2**20,
        max_queue: int | None = 2**5,
        read_limit: int = 2**16,
        write_limit: int = 2**16,
        host: str | None = None,
        port: int | None = None,
        secure: bool | None = None,
        legacy_recv: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        timeout: float | None = None,
    ) -> None:
        if legacy_recv:
            warnings.warn("legacy_recv is deprecated", DeprecationWarning, stacklevel=2)
        warn_of_old(timeout=timeout, loop=loop)
        if timeout is None:
            timeout = 10
        Connection.__init__(
            self,
            Protocol(CLIENT if self.is_client else SERVER, state=CONNECTING, max_size=max_size, logger=logger),
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=timeout if close_timeout is None else close_timeout,
            max_queue=max_queue,
            write_limit=write_limit,
        )
        self.max_size = max_size
        self.read_limit = read_limit
        self.legacy_recv = legacy_recv

    @property
    def connection_type(self) -> Callable[..., native.Connection]:  # type: ignore[override]
        """Makes the state machine, with this connection's own `max_size`."""

        def make(side: Side, **options: Any) -> Machine:
            return Machine(side, **{**options, "max_size": self.max_size})

        return make

    @property
    def open(self) -> bool:
        """Whether messages may be sent."""
        return self.state is OPEN

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.state is CLOSED

    async def ensure_open(self) -> None:
        """Return if messages may be sent; wait for the end if the connection is closing.

        Raises:
            ConnectionClosed: it is closed.
            InvalidState: it is not open yet.
        """
        if self.state is OPEN:
            return
        if self.state is CONNECTING:
            raise InvalidState("WebSocket connection isn't established yet")
        await self.wait_closed()
        raise self.connection_closed_exc()

    def connection_closed_exc(self) -> ConnectionClosed:
        """Return what `recv` and `send` raise once the connection is closed."""
        return self.close_exc

    @property
    def messages(self) -> collections.deque[str | bytes]:
        """The messages that were not received yet, as a new deque."""
        return self.recv_messages.frames

    @property
    def close_rcvd(self) -> Close | None:
        """What the peer's Close frame said."""
        return self.protocol.close_rcvd

    @property
    def close_sent(self) -> Close | None:
        """What this side's Close frame said."""
        return self.protocol.close_sent

    @property
    def close_rcvd_then_sent(self) -> bool | None:
        """Which came first; None before there were both."""
        return self.protocol.close_rcvd_then_sent

    def connection_open(self) -> None:
        """Nothing: it is called when the opening handshake is done, for who overrides it."""

    async def close_connection(self) -> None:
        """Drop the connection, without a closing handshake, and wait for its end."""
        if self._channel is not None:
            self.abort()
            await self.wait_closed()

    @property
    def transfer_data_task(self) -> asyncio.Future[None]:
        """Done once the connection is closed."""
        return self.connection_lost_waiter

    @property
    def close_connection_task(self) -> asyncio.Future[None]:
        """Done once the connection is closed."""
        return self.connection_lost_waiter

    def fail_connection(self, code: int = CloseCode.ABNORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection because of an error, without waiting for the end.

        Args:
            code: the close code; 1006 drops the connection.
            reason: the close reason.
        """
        channel = self._channel
        if channel is None:
            if self.transport is not None:
                self.transport.close()
        elif code == CloseCode.ABNORMAL_CLOSURE:
            self.abort()
        else:
            self._fail(code, reason)
            channel.flush()  # who calls this may close the transport next

    @property
    def host(self) -> str | None:
        """Deprecated: the server's address."""
        return self._of_server(0)  # type: ignore[no-any-return]

    @property
    def port(self) -> int | None:
        """Deprecated: the server's port."""
        return self._of_server(1)  # type: ignore[no-any-return]

    def _of_server(self, part: int) -> Any:
        name = "remote_address" if self.is_client else "local_address"
        old = "port" if part else "host"
        warnings.warn(f"use {name}[{part}] instead of {old}", DeprecationWarning, stacklevel=3)
        address = getattr(self, name)
        return None if address is None else address[part]

    @property
    def secure(self) -> bool:
        """Deprecated: whether there is TLS."""
        warnings.warn("don't use secure", DeprecationWarning, stacklevel=2)
        return self.ssl_object is not None

    @property
    def origin(self) -> str | None:
        """The value of Origin, if the client sent one."""
        origin: str | None = self.request.headers.get("Origin")
        return origin

    @property
    def extensions(self) -> list[Any]:
        """The extensions that were agreed on."""
        return self.protocol.extensions

    @property
    def path(self) -> str:
        """The request's path with the query."""
        path: str = self.request.path
        return path

    @property
    def request_headers(self) -> object:
        """The request's headers."""
        return self.request.headers

    @property
    def response_headers(self) -> object:
        """The response's headers."""
        return self.response.headers


def warn_of_old(*, timeout: object = None, klass: object = None, loop: object = None) -> None:
    """Warn the caller's caller of arguments that have another name today, or no effect; None for those not given."""
    if timeout is not None:
        warnings.warn("rename timeout to close_timeout", DeprecationWarning, stacklevel=3)
    if klass is not None:
        warnings.warn("rename klass to create_protocol", DeprecationWarning, stacklevel=3)
    if loop is not None:
        warnings.warn("remove loop argument", DeprecationWarning, stacklevel=3)


def broadcast(
    websockets: Iterable[WebSocketCommonProtocol], message: str | BytesLike, raise_exceptions: bool = False
) -> None:
    """Send a message to several connections, without waiting.

    Args:
        websockets: the connections; those that are not open are skipped.
        message: `str` for a text message, bytes-like for a binary one.
        raise_exceptions: raise an `ExceptionGroup` of the exceptions that would be logged otherwise.
    """
    connection.broadcast(websockets, message, raise_exceptions=raise_exceptions)


lend(globals())
