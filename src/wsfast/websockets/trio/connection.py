"""`Connection`: a `wsfast.trio.WebSocket` with the names of `websockets`."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import trio

from wsfast import connection as native
from wsfast import handshake
from wsfast.codes import CloseCause, CloseCode
from wsfast.exceptions import CallerError, ConcurrencyError, ConnectionClosed, ExtensionError
from wsfast.session import Limits
from wsfast.trio.stream import Transport
from wsfast.trio.websocket import PingWaiter, WebSocket

from ..described import Acknowledgement, Described, OnePieces, check_broadcast, check_control, closing
from ..dialing import MaxQueue, limits, marks
from ..imports import lend
from ..protocol import OPEN, SERVER, Machine, Protocol

if TYPE_CHECKING:
    from wsfast.events import BytesLike

__all__ = ["Connection"]


class Opening(NamedTuple):
    """What a connection whose opening handshake is under way is made with, in the place of its stream."""

    transport: Transport
    limits: Limits
    stream: trio.abc.Stream | None
    request: handshake.Request


_NO_REQUEST: Any = None  # of a connection without an opening handshake
_NO_RESPONSE: Any = None


class _Pieces(OnePieces):
    __slots__ = ()
    cancelled = trio.Cancelled


class Connection(Described, WebSocket):  # type: ignore[misc]
    """A connection on trio, with the names and the behaviour of `websockets`.

    Args:
        nursery: where its tasks run; `connect` and `serve` pass None, and run them themselves.
        stream: a trio stream, for a connection that is open at once, without an opening handshake; `connect` and
            `serve` pass something of their own.
        protocol: the sans-IO protocol of the connection.
        ping_interval, ping_timeout, close_timeout, max_queue: those of `connect` and `serve`.
    """

    connection_type: ClassVar[type[native.Connection]] = Machine

    def __init__(
        self,
        nursery: trio.Nursery | None,
        stream: trio.abc.Stream | Opening,
        protocol: Protocol,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: MaxQueue = 16,
    ) -> None:
        self.describe(protocol)
        self.nursery = nursery
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._close_timeout = close_timeout
        self.max_queue = max_queue
        if isinstance(stream, Opening):
            super().__init__(
                stream.transport,
                self.with_own_times(stream.limits),
                stream=stream.stream,
                request=stream.request,
                logger=protocol.logger,
            )
            self._marks = marks(max_queue)
            return
        made = limits(
            max_size=protocol.max_size,
            max_queue=max_queue,
            ping_interval=None,
            ping_timeout=None,
            close_timeout=close_timeout,
        )
        super().__init__(Transport(stream), Limits(**made), request=_NO_REQUEST, logger=protocol.logger)
        self._marks = marks(max_queue)
        if protocol.state is OPEN and nursery is not None:
            side = native.Side.SERVER if protocol.side is SERVER else native.Side.CLIENT
            self._open(side, _NO_RESPONSE, None, None, b"")
            nursery.start_soon(self._work_guarded)

    @property
    def stream(self) -> trio.abc.Stream:
        """The stream, with TLS if there is any; its bytes are the connection's."""
        return self._stream

    @property
    def _machine(self) -> native.Connection | None:
        return self._connection if self._opened else None

    async def recv(self, decode: bool | None = None) -> Any:
        """Receive the next message; see `wsfast.trio.WebSocket.recv`.

        Args:
            decode: True for `str`, False for `bytes` always.

        Raises:
            ConnectionClosed: as there; with ``decode=True`` a binary message that is not UTF-8 closes the connection
                with 1007, as in websockets.
            ConcurrencyError: another task receives.
        """
        try:
            return await super().recv(decode)
        except UnicodeDecodeError as exc:
            self._lose_text(exc)
            await self.wait_closed()
            raise self._connection.closed_error() from exc

    def recv_streaming(self, decode: bool | None = None) -> Any:
        """Receive one message in pieces; see `wsfast.trio.WebSocket.recv_streaming`.

        If it is cancelled within a message, nobody can receive any more, as in websockets: only closing is left.

        Args:
            decode: True for `str`, False for `bytes` always.

        Raises:
            ConcurrencyError: another task receives, or did until it was cancelled.
            ConnectionClosed, UnicodeDecodeError: as there.
        """
        self._connection  # noqa: B018 - raises if it is not open yet
        return _Pieces(self._begin_streaming, self._next_piece, self._end_streaming, decode)

    async def ping(self, data: str | BytesLike | None = None, *, ack_on_close: bool = False) -> Any:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None for random ones.
            ack_on_close: let the waiter's `wait` return, too, when the connection ends first.

        Returns:
            A waiter with the `wait` and `is_set` of a `trio.Event`.

        Raises:
            ConnectionClosed, ConcurrencyError, InvalidState, TypeError: as `wsfast.trio.WebSocket.ping`.
            ProtocolError: `data` has more than 125 bytes.
        """
        check_control(data)
        return _Acknowledgement(await super().ping(data, ack_on_close=ack_on_close))

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR)

    async def aclose(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection with the closing handshake and wait for its end, for at most `close_timeout`.

        In the middle of a message that is sent in fragments, the code is 1011.

        Args:
            code: the close code.
            reason: the close reason.

        Raises:
            ProtocolError: the code may not be sent, or the reason has more than 123 bytes.
        """
        if self._opened:
            await super().close(*closing(self._connection, code, reason))

    def _unix_peer(self) -> Any:
        return self._transport.address("getpeername")

    def _fail(self, code: int, reason: str) -> None:
        self._start_close(code, reason, CloseCause.LOCAL)

    async def close_stream(self) -> None:
        """End the connection at once, without a closing handshake."""
        if self._opened:
            self.abort()
            await self.wait_closed()
        else:
            await trio.aclose_forcefully(self._transport)


class _Acknowledgement(Acknowledgement):
    __slots__ = ()

    _waiter: PingWaiter

    async def wait(self) -> None:
        """Wait for the pong, or, with `ack_on_close`, the end; where there is a deadline, up to that if none will come.

        Raises:
            ConnectionClosed: the connection ended first, and there is no deadline, by which it could be learnt.
        """
        try:
            await self._waiter.wait()
        except ConnectionClosed:
            if trio.current_effective_deadline() == inf:
                raise
            await trio.sleep_forever()


async def broadcast(
    connections: Iterable[Connection],
    message: str | BytesLike,
    *,
    raise_exceptions: bool = False,
    text: bool | None = None,
) -> None:
    """Send a message to several connections.

    Args:
        connections: those to send to; those that are not open are skipped.
        message: `str` for a text message, bytes-like for a binary one.
        raise_exceptions: raise an `ExceptionGroup` of the exceptions that would be logged otherwise.
        text: True sends bytes-like as text, False sends `str` as binary.
    """
    check_broadcast(message)
    failures: list[Exception] = []

    async def send(ws: Connection) -> None:
        try:
            if ws._sender is not None:
                raise ConcurrencyError("sending a fragmented message")
            await ws.send(message, text)
        except ConnectionClosed:
            pass
        except (CallerError, ExtensionError) as exc:
            if raise_exceptions:
                failures.append(exc)
            else:
                ws.logger.warning("skipped broadcast: %s", exc)

    async with trio.open_nursery() as nursery:
        for ws in connections:
            if ws.state is OPEN:
                nursery.start_soon(send, ws)
    if failures:
        raise ExceptionGroup("skipped broadcast", failures)


broadcast.__module__ = "wsfast.websockets.trio.server"

lend(globals())
