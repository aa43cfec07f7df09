"""`Connection`: a `wsfast.WebSocket` with the names of `websockets`."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from wsfast import connection as native
from wsfast import handshake
from wsfast.asyncio import broadcast as sending
from wsfast.asyncio.protocol import ConnectionProtocol, turn_of
from wsfast.asyncio.websocket import WebSocket
from wsfast.codes import CloseCause, CloseCode
from wsfast.session import Limits
from wsfast.transport.timers import CoarseTimer

from ..described import Described, OnePieces, check_broadcast, check_control, closing
from ..dialing import MaxQueue, WriteLimit, limits, marks
from ..imports import lend
from ..protocol import SERVER, Machine, Protocol

if TYPE_CHECKING:
    from wsfast.events import BytesLike

__all__ = ["Connection"]


class _Host:
    """What a connection that has neither a server nor a client belongs to."""

    def __init__(self, limits: Limits, logger: Any) -> None:
        self.limits = limits
        self.logger = logger
        self.timer = CoarseTimer(asyncio.get_running_loop())

    def _connection_opened(self, protocol: ConnectionProtocol) -> None:
        """Nothing is to be noted."""

    def _connection_closed(self, protocol: ConnectionProtocol) -> None:
        """Nothing is to be noted."""


class Waiting:
    """What has come and was not received yet, as programs look at websockets' queue of it: ``len(it.frames)``.

    Args:
        channel: of the connection.
        max_queue: as it was given.

    Attributes:
        high: how many may wait until reading stops; None for any number.
        low: how many may wait when it goes on.
    """

    __slots__ = ("_channel", "high", "low")

    def __init__(self, channel: Any, max_queue: MaxQueue) -> None:
        self._channel = channel
        high, low = max_queue if isinstance(max_queue, tuple) else (max_queue, None)
        self.high: int | None = high
        self.low: int | None = high // 4 if low is None and high is not None else low

    @property
    def frames(self) -> collections.deque[str | bytes]:
        """The messages, oldest first, as a new deque."""
        messages: collections.deque[str | bytes] = collections.deque(self._channel.take_queue())
        for message in messages:
            self._channel.put_back(message)
        return messages

    @property
    def paused(self) -> bool:
        """Whether reading has stopped until some of it is received."""
        return bool(self._channel.paused)


class _Pieces(OnePieces):
    __slots__ = ()
    cancelled = asyncio.CancelledError


class Connection(Described, WebSocket):  # type: ignore[misc]
    """A connection, with the names and the behaviour of `websockets`.

    It can be used as an asyncio protocol too: then it is open as soon as its transport is.

    Args:
        protocol: the sans-IO protocol of the connection.
        ping_interval, ping_timeout, close_timeout, max_queue, write_limit: those of `connect` and `serve`.
    """

    # Beside them a program may set attributes of its own; without any, methods are found as fast as wsfast's.
    __slots__ = (
        "_adapter",
        "_close_timeout",
        "_known_response",
        "_lost",
        "_native_request",
        "_native_response",
        "_ping_interval",
        "_ping_timeout",
        "_request",
        "_transport",
        "max_queue",
        "protocol",
        "write_limit",
    )

    connection_type: ClassVar[type[native.Connection]] = Machine

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
        self.describe(protocol)
        super().__init__()
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._close_timeout = close_timeout
        self.max_queue: MaxQueue = max_queue
        self.write_limit: WriteLimit = write_limit
        self._transport: asyncio.Transport | None = None  # before it is open, and once it is closed
        self._lost: asyncio.Future[None] | None = None

    # --- What it is ---------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it runs on."""
        return asyncio.get_running_loop() if self._channel is None else self._open_channel().turn.loop

    @property
    def _machine(self) -> native.Connection | None:
        return None if self._channel is None else self._channel.connection

    @property
    def transport(self) -> asyncio.Transport | None:
        """The asyncio transport; it can be asked for addresses once the connection is closed, too."""
        return self._transport if self._channel is None else self._channel.transport or self._transport

    @property
    def recv_messages(self) -> Waiting:
        """How much has come that was not received yet."""
        return Waiting(self._open_channel(), self.max_queue)

    @property
    def connection_lost_waiter(self) -> asyncio.Future[None]:
        """A future that is done once the connection is closed; made when it is asked for."""
        if self._lost is None:
            self._lost = self.loop.create_future()
            if self._channel is not None and self._channel.transport is None:
                self._lost.set_result(None)
        return self._lost

    def _response_anew(self) -> handshake.Response | None:
        if self._channel is None or self._native_request is None:
            return None
        anew = getattr(self._open_channel().host, "_response_anew", None)  # of servers
        return None if anew is None else anew(self._native_request, self.subprotocol)

    async def recv(self, decode: bool | None = None) -> Any:
        """Receive the next message; see `wsfast.WebSocket.recv`.

        Args:
            decode: True for `str`, False for `bytes` always.

        Raises:
            ConnectionClosed: as there; with ``decode=True`` a binary message that is not UTF-8 closes the connection
                with 1007, as in websockets.
            ConcurrencyError: another task receives.
        """
        if decode is not True:
            return await self._receive(decode)
        try:
            return await self._receive(decode)
        except UnicodeDecodeError as exc:
            self._lose_text(exc)
            await self.wait_closed()
            raise self._open_channel().connection.closed_error() from exc

    def recv_streaming(self, decode: bool | None = None) -> Any:
        """Receive one message in pieces; see `wsfast.WebSocket.recv_streaming`.

        If it is cancelled within a message, nobody can receive any more, as in websockets: only closing is left.

        Args:
            decode: True for `str`, False for `bytes` always.

        Raises:
            ConcurrencyError: another task receives, or did until it was cancelled.
            ConnectionClosed, UnicodeDecodeError: as there.
        """
        self._own_channel()  # raises if it is not open yet, or another thread's
        return _Pieces(self._begin_streaming, self._recv_piece, self._end_streaming, decode)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection with the closing handshake and wait for its end, for at most `close_timeout`.

        In the middle of a message that is sent in fragments, the code is 1011.

        Args:
            code: the close code.
            reason: the close reason.

        Raises:
            ProtocolError: the code may not be sent, or the reason has more than 123 bytes.
        """
        machine = self._machine
        if machine is not None:
            await super().close(*closing(machine, code, reason))

    async def ping(self, data: str | BytesLike | None = None) -> Awaitable[float]:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None for random ones.

        Returns:
            What waits for the pong, and gives its seconds.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a ping with the same data is unanswered.
            ProtocolError: `data` has more than 125 bytes.
            TypeError: it is neither `str` nor bytes-like.
        """
        check_control(data)
        return await super().ping(data)

    async def pong(self, data: str | BytesLike = b"") -> None:
        """Send a Pong frame that nobody asked for.

        Args:
            data: at most 125 bytes.

        Raises:
            ConnectionClosed: the connection is closed.
            ProtocolError: `data` has more than 125 bytes.
            TypeError: it is neither `str` nor bytes-like.
        """
        check_control(data)
        await super().pong(data)

    async def _leave_block(self, failed: bool) -> None:
        await self.close(CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL_CLOSURE)

    def _unix_peer(self) -> Any:
        transport = self.transport
        return None if transport is None else transport.get_extra_info("peername")

    def _fail(self, code: int, reason: str) -> None:
        self._open_channel().start_close(code, reason, CloseCause.LOCAL)

    def _open(self, channel: Any) -> None:
        channel.use_marks(marks(self.max_queue))
        if isinstance(self.write_limit, tuple):
            channel.transport.set_write_buffer_limits(*self.write_limit)
        own = self.with_own_times(channel.session.limits)
        if own is not channel.session.limits:
            channel.session.change_limits(own, monotonic())
            if own.ping_interval is not None:
                channel.host.timer.set(channel, own.ping_interval)
        super()._open(channel)
        if self._transport is None and self._overrides("connection_made"):
            self._transport = channel.transport
            self.connection_made(self._transport)

    def _keep_addresses(self) -> None:
        super()._keep_addresses()
        if self._channel is None:
            return
        self._transport = self._channel.transport
        if self._lost is not None or self._overrides("connection_lost"):
            self._channel.turn.loop.call_soon(self._tell_lost)  # when the session knows of it

    def _tell_lost(self) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)
        cause = self.protocol.close_exc.__cause__
        self.connection_lost(cause if isinstance(cause, OSError) else None)

    def _overrides(self, name: str) -> bool:
        """Tell whether a callback of asyncio protocols is one of a program's own class."""
        return not getattr(type(self), name).__module__.startswith("wsfast.")

    # --- As an asyncio protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Go on as an open connection on a transport, without an opening handshake.

        A connection of a server or a client is on its transport already: there it is called for who overrides it.
        """
        if self._transport is not None:
            return
        self._transport = transport
        made = limits(
            max_size=self.protocol.max_size,
            max_queue=self.max_queue,
            write_limit=self.write_limit,
            ping_interval=None,
            ping_timeout=None,
            close_timeout=self.close_timeout,
        )
        self._start(transport, _Host(Limits(**made), self.logger))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing: it is called once the transport has ended, for who overrides it.

        Args:
            exc: why, or None where the peer or this side has ended it.
        """

    def _start(self, transport: Any, host: Any) -> None:
        side = native.Side.SERVER if self.protocol.side is SERVER else native.Side.CLIENT
        protocol = ConnectionProtocol(turn_of(asyncio.get_running_loop()))
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
        raise_exceptions: raise an `ExceptionGroup` of the exceptions that would be logged otherwise.
    """
    check_broadcast(message)
    failures = []
    for ws, exc in sending.broadcast_each(connections, message, text, None):
        if raise_exceptions:
            failures.append(exc)
        else:
            ws.logger.warning("skipped broadcast: %s", exc)
    if failures:
        raise ExceptionGroup("skipped broadcast", failures)


broadcast.__module__ = "wsfast.websockets.asyncio.server"

lend(globals())
