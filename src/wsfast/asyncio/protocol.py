"""The asyncio protocols of a connection: it moves bytes, keeps time, and applies backpressure.

`ConnectionProtocol` serves a connection after its opening handshake, on either side. The way of a message is its
base class, `Channel`; here is all that is rare. What a frame means is decided in `connection`, not here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from ..codec import IMPLEMENTATION
from ..codes import CloseCause, CloseCode
from ..connection import Side, State
from ..events import BytesLike, Close, Event, Fragment, Ping, Pong
from ..exceptions import BufferFull, ConcurrencyError, ConnectionClosed, InvalidState, PeerError
from ..transport.loops import in_kernel, plain_socket
from ..transport.timers import CoarseTimer
from .channel import PAUSED_HELD, PAUSED_WRITING, Channel, Turn
from .streams import Reader, Writer

if TYPE_CHECKING:
    from ..deflate import Deflate, PerMessageDeflate
    from .listener import Listener
    from .websocket import WebSocket

__all__ = ["ConnectionProtocol", "Host", "Limits", "Opening", "turn_of"]

_ANSWER_GRACE: Final = 1.0
"""Seconds for which a Close frame or a failure waits until the messages before it are answered."""
_LINGER: Final = 2.0
"""Seconds for which the peer may go on sending after the last frame, before its connection is dropped."""
_MAX_EVENTS: Final = 256
"""Messages that one connection may handle in one turn of the loop."""
_MAX_PINGS: Final = 64
"""Pings of `ping` that may be unanswered."""
_RECEIVE_SIZE: Final = 65536 + 64 if IMPLEMENTATION == "cython" else 16384
"""What the codec handles in a few milliseconds; in Cython, a message of 64 KiB and its head come in one read."""

Overflow: TypeAlias = Literal["error", "drop", "close"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits and times of a connection; `Server` and `connect` document them.

    Raises:
        ValueError, TypeError: a value is out of range, or of another type; the text names it.
    """

    max_size: int | None = 1048576
    max_fragments: int | None = None
    read_limit: int = 65536
    write_limit: int = 65536
    max_buffered: int | None = 4194304
    overflow: Overflow = "error"
    open_timeout: float | None = 10.0
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float | None = 10.0
    compression: Deflate | None = None

    def __post_init__(self) -> None:
        for name in ("max_size", "max_fragments", "read_limit", "write_limit", "max_buffered"):
            value = getattr(self, name)
            if value is None and name.startswith("max"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be int{' or None' * name.startswith('max')}, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("open_timeout", "ping_interval", "ping_timeout", "close_timeout"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
                raise TypeError(f"{name} must be a number of seconds or None, got {type(value).__name__}")
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name} must be a positive number of seconds or None, got {value}")
        if self.overflow not in ("error", "drop", "close"):
            raise ValueError(f"overflow must be 'error', 'drop' or 'close', got {self.overflow!r}")


class Host(Protocol):
    """What a connection needs of its server or client."""

    limits: Limits
    logger: logging.Logger
    timer: CoarseTimer

    def connection_opened(self, protocol: ConnectionProtocol) -> None: ...

    def connection_closed(self, protocol: ConnectionProtocol) -> None: ...


class Opening(Protocol):
    """What handles a connection's callbacks until it is open."""

    def connection_made(self, transport: asyncio.BaseTransport, protocol: ConnectionProtocol, /) -> None: ...

    def data_received(self, data: bytes, /) -> None: ...

    def connection_lost(self, exc: Exception | None, /) -> None: ...


_turns: dict[asyncio.AbstractEventLoop, Turn] = {}


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """Return what the connections of a loop share: the receive buffer, and the list of those with frames to write."""
    turn = _turns.get(loop)
    if turn is None:
        for old in [old for old in _turns if old.is_closed()]:
            del _turns[old]
        turn = _turns[loop] = Turn(loop, memoryview(bytearray(_RECEIVE_SIZE)))
    return turn


class ConnectionProtocol(Channel, asyncio.BufferedProtocol):
    """One connection on asyncio.

    Args:
        loop: the event loop.
        opening: what handles the transport's callbacks until `open` is called; None if it is called at once. One
            protocol for both halves of a connection's life saves the time of making and setting another.
    """

    __slots__ = (
        "_closed_waiters",
        "_drain_waiters",
        "_gate",
        "_heard",
        "_keepalive_sent",
        "_parts",
        "_pings",
        "_skip",
        "_steps",
        "_taken",
        "due",
        "host",
        "latency",
        "listener",
        "pings_received",
        "pings_sent",
        "reader",
        "task",
        "ws",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, opening: Opening | None = None) -> None:
        self.begin(turn_of(loop), opening)
        self.listener: Listener | None = None

    def open(
        self,
        host: Host,
        side: Side,
        ws: WebSocket,
        transport: asyncio.Transport,
        compression: PerMessageDeflate | None = None,
        head: bytes | None = None,
    ) -> None:
        """Go on as an open connection.

        Args:
            host: the server or client that it belongs to.
            side: which end of the connection this is.
            ws: what the handler holds.
            transport: the asyncio transport, on which this protocol is or will be set.
            compression: what permessage-deflate negotiated, or None.
            head: the response that ends the opening handshake, to be sent first; None if it is not for this side.
        """
        limits = host.limits
        connection = ws.connection_type(
            side,
            max_size=limits.max_size,
            max_fragments=limits.max_fragments,
            max_events=_MAX_EVENTS,
            compression=compression,
            buffer=self.turn.buffer,
        )
        self.attach(
            connection,
            transport,
            plain_socket(transport),
            limits.read_limit,
            limits.max_buffered,
            limits.write_limit,
        )
        self.sendable = compression is None
        self.packs = compression is not None
        self.host = host
        self.ws = ws
        self.latency = 0.0
        self.pings_received = self.pings_sent = 0
        self.due = 0.0
        self.reader: Reader | None = None
        self.task: asyncio.Task[Any] | None = None
        self._closed_waiters: list[asyncio.Future[None]] | None = None
        self._drain_waiters: list[asyncio.Future[None]] | None = None
        self._pings: dict[bytes, tuple[asyncio.Future[float] | None, float]] | None = None
        self._gate: deque[asyncio.Future[None]] | None = None
        self._keepalive_sent = False
        self._heard = 0
        self._taken = 0
        self._skip = False
        self._steps = 0  # sent in other ways than the fast one, since others had a turn
        self._parts: tuple[bytearray, bool] | None = None  # of a message, and whether it is text
        transport.set_write_buffer_limits(limits.write_limit)
        if head is not None:
            ws.response = head
            self.write_head(head)
        if compression is not None:
            if limits.compression is not None and limits.compression.executor_threshold is not None:
                self.thread_size = limits.compression.executor_threshold
            if compression.parameters.idle is not None:
                sweeper = host.timer.sweeper(compression.parameters.idle)
                compression.watched = sweeper.busy
                sweeper.enter()
        host.connection_opened(self)
        if limits.ping_interval is not None:
            host.timer.set(self, limits.ping_interval)
        ws._open(self)

    def use_listener(self, listener: Listener) -> None:
        """Call a listener for what happens, instead of queueing messages for `recv`."""
        self.consume(listener.on_message)
        self.listener = listener
        listener.on_open()

    def use_streams(self, *, text: bool) -> tuple[Reader, Writer]:
        """Make the byte-stream view, which takes messages piece by piece."""
        self.reader = Reader(self, self.host.limits.read_limit)
        self.consume(self.reader.feed)
        self.connection.decoder.streaming = True
        return self.reader, Writer(self.ws, text=text)

    def finish_handler(self) -> None:
        """Close because the handler returned: with 1000, after what a `Writer` holds was sent."""
        if self.connection.state is not State.OPEN:
            return
        if self.ws.writer is not None:
            self.ws.writer.finish()
        self.start_close(CloseCode.NORMAL_CLOSURE, "", CloseCause.LOCAL)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the connection lives on."""
        return self.turn.loop

    # --- Events that are no messages ------------------------------------------------------------------------

    def is_terminal(self, event: Event) -> bool:
        """Tell whether an event ends what the peer may send, and waits until what came before it is answered."""
        # A listener has answered already.
        return self.listener is None and isinstance(event, (Close, PeerError))

    def handle_event(self, event: Event) -> None:
        """Do what the decoder's event asks for, if it is no message."""
        connection = self.connection
        if isinstance(event, Ping):
            self.pings_received += 1
        elif isinstance(event, Pong):
            self._take_pong(event.payload)
        connection.congested = self.write_paused
        connection.handle(event)
        if connection.state >= State.DRAINING:
            self._drained()
        else:
            self.written()

    def handle_fragment(self, event: Fragment) -> object | None:
        """Return what of a piece of a message is for the queue, if anything."""
        if self._skip:
            self._skip = not event.final
            return None
        if self.streaming:
            return event
        # A message of which `recv_streaming` saw no piece arrives in pieces: put it together, in memory that does not
        # depend on how many they are.
        data, text = event.data, isinstance(event.data, str)
        if self._parts is None:
            self._parts = bytearray(), text
        self._parts[0].extend(data.encode() if isinstance(data, str) else data)
        return self._take_parts() if event.final else None

    def _take_parts(self) -> str | bytes:
        assert self._parts is not None
        (data, text), self._parts = self._parts, None
        return data.decode() if text else bytes(data)

    def begin_streaming(self) -> None:
        """Deliver the next message in pieces."""
        self.streaming = True
        self.connection.decoder.streaming = True
        if self._parts is not None:
            # The latest message began to come in pieces before: hand out what there is.
            self.put_back(Fragment(self._take_parts(), False))

    def end_streaming(self, *, skip: bool) -> None:
        """Deliver messages whole again; `skip` drops the rest of the message of which a piece was taken."""
        self.streaming = False
        self.connection.decoder.streaming = False
        self._skip = skip
        for event in self.take_queue():
            kept = self.handle_fragment(event) if isinstance(event, Fragment) else event
            if kept is not None:
                self.put_back(kept)
        if self.paused & PAUSED_HELD and self.held * 4 <= self.high_water:
            self.unpause(PAUSED_HELD)

    def consumer_failed(self, exc: BaseException) -> None:
        """Close with 1011 because a listener's method, or a handler, raised; log it once."""
        if self.connection.state is not State.OPEN and _is_end(exc):
            return
        self.host.logger.error("handler for subprotocol %r raised", self.ws.subprotocol, exc_info=exc)
        self.start_close(CloseCode.INTERNAL_ERROR, "", CloseCause.HANDLER_ERROR)
        self.discard()

    def transport_failed(self, exc: BaseException) -> None:
        """Drop the connection because its transport, or what handled its bytes, raised, which it must not."""
        self.abort(CloseCause.LOST)
        self.host.logger.debug("connection dropped: %r", exc)

    def settle_later(self) -> None:
        """Wait for the answers to what came before a Close frame or a failure, but not for long."""
        self.loop.call_later(_ANSWER_GRACE, self.settle)

    # --- Sending ---------------------------------------------------------------------------------------------

    def send_rare(self, data: str | BytesLike) -> None:
        """Send a message, now, on a connection where that is not the plain case."""
        if self._gate is not None and not self.connection.in_message:
            # A thread may be compressing it.
            raise ConcurrencyError("send_nowait() was called while send() is at work on a message in several steps")
        self.settle_gathered()
        self.connection.send_message(data)
        self.count_sent()
        self.written()

    def may_buffer(self, message: str | BytesLike) -> bool:
        """Apply the policy of `send_nowait` to a message that might be too much; False drops it.

        Raises:
            BufferFull: the policy is "error".
            ConnectionClosed: the connection is closed, or the policy is "close" and it was closed now.
        """
        limits = self.host.limits
        if self.connection.state is not State.OPEN:
            raise self.connection.closed_error()
        size = _size(message)
        if limits.max_buffered is None or self.buffered + size <= limits.max_buffered:
            return True
        if limits.overflow == "drop":
            return False
        if limits.overflow == "close":
            self.start_close(CloseCode.TRY_AGAIN_LATER, "too much is unsent", CloseCause.OVERFLOW)
            raise self.connection.closed_error()
        raise BufferFull(f"{self.buffered} bytes are unsent, {size} more would pass the limit of {limits.max_buffered}")

    async def send_whole(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        """Send a whole message and wait while too much is unsent."""
        if self._gate is not None:
            await self._enter_gate()
        elif _size(message) < self.thread_size or compress is False or self.connection.state is not State.OPEN:
            self._send_now(message, text, compress)
            await self.drain()
            return
        else:
            self._close_gate()
        if _size(message) < self.thread_size or compress is False or self.connection.state is not State.OPEN:
            try:
                self._send_now(message, text, compress)
                await self.drain()
            finally:
                self._open_gate()
        else:
            await self._compress_in_thread(message, text, compress)
            await self.drain()

    def _send_now(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        self.settle_gathered()
        self.connection.send_message(message, text=text, compress=compress)
        self.count_sent()
        self.written()
        if self.connection.compression is not None and _size(message) >= 65536:
            self.turn_full = True  # little may have come out of it, but it took its time

    def send_by_thread(self, message: str | bytes, compress: bool | None) -> Awaitable[None]:
        """Send a message that is to be compressed in a thread, before all that is sent from now on."""
        self._close_gate()
        return self._sent_by_thread(self._compress_in_thread(message, None, compress))

    async def _sent_by_thread(self, done: asyncio.Future[None]) -> None:
        await done
        await self.drain()

    def _compress_in_thread(
        self, message: str | BytesLike, text: bool | None, compress: bool | None
    ) -> asyncio.Future[None]:
        """Compress a message in a thread and send it; the gate, which is this caller's, is opened afterwards.

        Once begun, it is finished, whatever becomes of the caller: the compressor and the peer must stay in step.
        """
        done: asyncio.Future[None] = self.loop.create_future()
        try:
            if not isinstance(message, (str, bytes)):
                message = bytes(memoryview(message))  # the caller may be cancelled, and use the memory again
            work = self.loop.run_in_executor(None, self.connection.prepare_message, message, text, compress)
        except BaseException:
            self._open_gate()
            raise
        work.add_done_callback(partial(self._send_compressed, done))
        return done

    def _send_compressed(self, done: asyncio.Future[None], work: asyncio.Future[Any]) -> None:
        try:
            self.connection.send_prepared(work.result())
            self.count_sent()
            self.written()
        except asyncio.CancelledError:
            # The loop is at its end. What the thread has done to the compressor is not known.
            self.start_close(CloseCode.INTERNAL_ERROR, "a message was not finished", CloseCause.LOCAL)
            done.cancel()
        except Exception as exc:
            if not done.done():
                done.set_exception(exc)
                done.exception()  # its task may have been cancelled before it began to wait
        else:
            if not done.done():
                done.set_result(None)
        finally:
            self._open_gate()

    def send_fragment(self, data: str | BytesLike, *, fin: bool, text: bool | None, compress: bool | None) -> None:
        """Send the next fragment of a message."""
        self.settle_gathered()
        self.connection.send_fragment(data, fin, text=text, compress=compress)
        self._set_sendable()
        if fin:
            self.count_sent()
        self.written()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Keep other tasks from sending while a message takes several steps; they go on in the order they came."""
        if self._gate is None:
            self._close_gate()
        else:
            await self._enter_gate()
        try:
            yield
        finally:
            self._open_gate()

    def _close_gate(self) -> None:
        self.settle_gathered()
        self._gate = deque()
        self.sendable = self.packs = False

    async def _enter_gate(self) -> None:
        """Wait until those that came before are done; the gate is then closed for the others."""
        assert self._gate is not None
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._gate.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._open_gate()
            elif self._gate is not None and waiter in self._gate:
                self._gate.remove(waiter)  # else it was passed over already
            raise

    @property
    def gated(self) -> bool:
        """Whether a call of `send` is at work on a message in several steps; `sending` waits for its end."""
        return self._gate is not None

    @property
    def is_sending(self) -> bool:
        """Whether a message that takes several steps is under way, so that no other may come in between."""
        return self._gate is not None or self.connection.in_message

    def _open_gate(self) -> None:
        gate = self._gate
        while gate:
            waiter = gate.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._gate = None
        self._set_sendable()

    def _set_sendable(self) -> None:
        connection = self.connection
        free = connection.state is State.OPEN and not connection.in_message and self._gate is None
        self.sendable = free and connection.compression is None
        self.packs = free and connection.compression is not None

    async def drain(self) -> None:
        """Wait until less than a quarter of `write_limit` is unsent.

        Raises:
            ConnectionClosed: the connection ended first.
        """
        if self.transport is None:
            raise self.connection.closed_error()
        if not self.write_paused:
            self._steps += 1
            if self.turn_full or self._steps >= _MAX_EVENTS:
                self._steps = 0
                await self.next_turn()
            return
        if self._drain_waiters is None:
            self._drain_waiters = []
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._drain_waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if self._drain_waiters is not None and waiter in self._drain_waiters:
                self._drain_waiters.remove(waiter)
            raise

    # --- What the transport calls, beside `get_buffer` and `buffer_updated` ------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop when TCP, and TLS, are set up."""
        assert self.opening is not None  # a client's is set on transports that are made
        self.opening.connection_made(transport, self)

    def pause_writing(self) -> None:
        """Called by the transport when more than `write_limit` is unsent."""
        self.write_paused = True
        if self.listener is not None and self.connection.state is State.OPEN:
            self.pause(PAUSED_WRITING)

    def resume_writing(self) -> None:
        """Called by the transport when less than a quarter of `write_limit` is unsent."""
        self.write_paused = False
        if self.opening is not None:
            return
        connection = self.connection
        connection.congested = False
        connection.answer_ping()
        self.written()
        self._release(self._drain_waiters, None)
        self._drain_waiters = None
        if self.listener is not None:
            self.unpause(PAUSED_WRITING)
            if connection.state is State.OPEN:
                try:
                    self.listener.on_writable()
                except (Exception, asyncio.CancelledError) as exc:
                    self.consumer_failed(exc)

    def transport_reading(self, wanted: bool) -> None:
        """Stop or start the transport's reading."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    # --- Pings -----------------------------------------------------------------------------------------------

    def ping(self, data: str | BytesLike | None) -> asyncio.Future[float]:
        """Send a ping; the future's result is the round trip in seconds."""
        if data is None:
            payload = os.urandom(4)
            while self._pings is not None and payload in self._pings:
                payload = os.urandom(4)
        else:
            payload = data.encode() if isinstance(data, str) else bytes(memoryview(data))
        if self._pings is not None and payload in self._pings:
            raise ConcurrencyError("already waiting for a pong with the same data")
        if self._pings is not None and len(self._pings) >= _MAX_PINGS:
            raise InvalidState(f"{_MAX_PINGS} pings are unanswered")
        waiter: asyncio.Future[float] = self.loop.create_future()
        self._send_ping(payload, waiter)
        return waiter

    def _send_ping(self, payload: bytes, waiter: asyncio.Future[float] | None) -> None:
        self._write_ping(payload)
        if self._pings is None:
            self._pings = {}
        self._pings[payload] = (waiter, perf_counter())

    def _write_ping(self, payload: bytes) -> None:
        self.connection.send_ping(payload)
        self.pings_sent += 1
        self.written()

    def pong(self, data: str | BytesLike) -> None:
        """Send an unsolicited pong."""
        self.connection.send_pong(data.encode() if isinstance(data, str) else data)
        self.written()

    def _take_pong(self, payload: bytes) -> None:
        # RFC 6455, 5.5.3: a peer may answer only the latest ping; the earlier ones are answered with it.
        if self._pings is None or payload not in self._pings:
            return
        now = perf_counter()  # uvloop's clock counts in milliseconds
        while payload in self._pings:
            waiter, sent = self._pings.pop(next(iter(self._pings)))
            self.latency = now - sent
            if waiter is not None and not waiter.done():
                waiter.set_result(self.latency)
        if not self._pings:
            self._pings = None

    # --- Time ------------------------------------------------------------------------------------------------

    def on_deadline(self) -> None:
        """Called by the timer: keepalive while the connection is open, the end of patience while it closes."""
        connection = self.connection
        if connection.state is State.OPEN:
            if self.transport is not None and self.transport.is_closing():
                self.abort(CloseCause.LOST)
            else:
                self._keep_alive()
        else:
            unanswered = connection.state is State.CLOSING and connection.cause is CloseCause.LOCAL
            self.abort(CloseCause.TIMEOUT if unanswered else None)

    def _keep_alive(self) -> None:
        limits = self.host.limits
        heard = self.bytes_received
        # Nothing can be heard while this program does not read, unless it is the peer that keeps it from going on;
        # and a peer that takes what was sent to it is alive.
        deaf = self.paused & ~PAUSED_WRITING and not self.write_paused
        silent = not self._progressed() and heard == self._heard and not deaf
        self._heard = heard
        assert limits.ping_interval is not None  # else there is no deadline while the connection is open
        if not silent:
            self._keepalive_sent = False
        elif self._keepalive_sent:
            # RFC 6455, 7.1.7 does not ask for a Close frame to a peer that is gone, but a live one learns the reason.
            connection = self.connection
            connection.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", CloseCause.KEEPALIVE)
            self.flush()
            self.abort(CloseCause.KEEPALIVE)
            return
        else:
            if not self.write_paused:
                payload = os.urandom(4)
                if self._pings is None or (payload not in self._pings and len(self._pings) < _MAX_PINGS):
                    self._send_ping(payload, None)
                else:
                    self._write_ping(payload)
            if limits.ping_timeout is not None:
                self._keepalive_sent = True
                self.host.timer.set(self, limits.ping_timeout)
                return
        self.host.timer.set(self, limits.ping_interval)

    def _progressed(self) -> bool:
        """Tell whether the peer took some of what is waiting for it since the last call."""
        waiting = 0 if self.transport is None else self.transport.get_write_buffer_size() + in_kernel(self.transport)
        before, self._taken = self._taken, self.bytes_sent - waiting
        return waiting > 0 and self._taken > before

    # --- Closing ---------------------------------------------------------------------------------------------

    def start_close(self, code: int | None, reason: str, cause: CloseCause) -> None:
        """Start the closing handshake; without effect once the connection is closing."""
        # What the peer sent last comes first, though it was kept back: then the connection is closing already.
        self.settle()
        self.settle_gathered()
        connection = self.connection
        was_open = connection.state is State.OPEN
        connection.close(code, reason, cause)
        if was_open:
            self.receiving = False
            self.sendable = self.packs = False
            self.written()
            self._set_deadline(self.host.limits.close_timeout)
            # What comes is dropped, so that the peer's Close frame can be seen.
            self.unpause(PAUSED_HELD | PAUSED_WRITING)

    def _drained(self) -> None:
        """No frames follow either way: wake who waits, and end the transport if that is this side's duty."""
        connection = self.connection
        self.receiving = False
        self.sendable = self.packs = False
        self.ended = True
        if connection.should_end_transport:
            self._end_transport()
        else:
            self.written()
            if connection.rcvd_then_sent:  # else `start_close` has set it: `close_timeout` is for all of the closing
                self._set_deadline(self.host.limits.close_timeout)
        self._end_reader()
        self.wake_receiver()

    def _end_reader(self) -> None:
        if self.reader is not None:
            self.reader.end(None if self.connection.closed_ok else self.connection.closed_error())

    def _end_transport(self) -> None:
        # Closing with unread bytes in the socket resets the connection, and the reset can overtake the Close frame:
        # end the sending side, read on for a while, and let the peer end the rest.
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not self.connection.rcvd_then_sent:
            self.flush()
        elif self.flush_last():
            # RFC 6455, 5.5.1: nothing follows the peer's Close frame.
            transport.close()
            if transport.get_write_buffer_size():
                self._set_deadline(self.host.limits.close_timeout)
            return
        self.unpause(0xFF)
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                self.abort(CloseCause.LOST)
                return
        else:
            transport.close()
        timeout = self.host.limits.close_timeout
        if timeout is None or not transport.get_write_buffer_size():
            timeout = _LINGER if timeout is None else min(timeout, _LINGER)
        self._set_deadline(timeout)

    def _set_deadline(self, delay: float | None) -> None:
        if delay is None:
            self.host.timer.clear(self)
        else:
            self.host.timer.set(self, delay)

    async def wait_closed(self) -> None:
        """Wait for the end of the connection."""
        if self.transport is None:
            return
        if self._closed_waiters is None:
            self._closed_waiters = []
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._closed_waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if self._closed_waiters is not None and waiter in self._closed_waiters:
                self._closed_waiters.remove(waiter)
            raise

    def abort(self, cause: CloseCause | None) -> None:
        """End the transport at once; the cause is None if it is known already."""
        if cause is not None:
            self.connection.abandon(cause)
        if self.transport is not None:
            self.transport.abort()

    def eof_received(self) -> bool:
        """Called by the transport when the peer has ended its sending side; False closes the transport."""
        if self.opening is not None:
            return False
        self.flush()  # or what this turn's messages were answered would be dropped
        # The transport closes once all is written, which a peer that reads nothing could put off for ever.
        if self.connection.state is State.OPEN:
            self._set_deadline(self.host.limits.close_timeout or _LINGER)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended."""
        if self.opening is not None:
            opening, self.opening = self.opening, None
            opening.connection_lost(exc)
            return
        connection = self.connection
        ws = self.ws
        ws._peer = ws.remote_address  # which the transport will not know any more
        self.host.timer.clear(self)
        self.take_rest()
        self.settle()
        connection.receive_eof()
        self.detach()
        compression: PerMessageDeflate | None = connection.compression  # type: ignore[assignment]
        if compression is not None:
            compression.close()
            if compression.parameters.idle is not None:
                self.host.timer.sweeper(compression.parameters.idle).leave()
        if self._pings is not None:
            error = connection.closed_error()
            for waiter, _ in self._pings.values():
                if waiter is not None and not waiter.done():
                    waiter.set_exception(error)
                    waiter.exception()  # nobody need look at it
            self._pings = None
        if self._drain_waiters is not None:
            self._release(self._drain_waiters, connection.closed_error())
            self._drain_waiters = None
        if self._gate:
            # The message before theirs may wait for its next piece for ever.
            self._release(self._gate, connection.closed_error())
            self._gate.clear()
        self.wake_receiver()
        self._end_reader()
        self.host.connection_closed(self)
        listener = self.listener
        if listener is not None:
            self.listener = None
            code, reason = (1006, "") if connection.close_rcvd is None else connection.close_rcvd
            try:
                listener.on_close(code, reason)
            except (Exception, asyncio.CancelledError) as exc_:
                self.host.logger.error("on_close for subprotocol %r raised", ws.subprotocol, exc_info=exc_)
        self._release(self._closed_waiters, None)
        self._closed_waiters = None

    @staticmethod
    def _release(waiters: Iterable[asyncio.Future[None]] | None, error: Exception | None) -> None:
        for waiter in waiters or ():
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _is_end(exc: BaseException) -> bool:
    """Tell whether an exception, or each one of a group as TaskGroup raises it, says that a connection has ended."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_end(one) for one in exc.exceptions)
    return isinstance(exc, (ConnectionClosed, asyncio.IncompleteReadError))


def _size(message: str | BytesLike) -> int:
    if isinstance(message, str):
        return len(message) if message.isascii() else len(message.encode())
    return memoryview(message).nbytes
