"""`WebSocket` without an event loop: what `wsfast.sync.connect` returns.

A thread of its own moves the bytes of each connection: it receives, answers pings, keeps the connection alive and
keeps the deadlines, whatever the program does meanwhile. Whoever sends does so itself; what the operating system does
not take at once is left to that thread. One lock guards the state; nobody waits for the network with it held.

While the program is behind, nothing is read, and what one read brought is not decoded any further: a few bytes of it
can hold megabytes. Only the thread decodes, for Ctrl-C never comes to it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, ClassVar, Final, Literal, Self, cast, overload

from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Compression, Connection, Side, State
from wsfast.events import BytesLike, Event, Fragment, Pong
from wsfast.exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK, InvalidState
from wsfast.handshake import Request, Response
from wsfast.session import Limits

from .link import Link

__all__ = ["PingWaiter", "WebSocket"]

_MAX_EVENTS: Final = 256
"""Messages, pings and pongs that are handled before it is asked again whether the program is behind."""
_MAX_PINGS: Final = 64
"""Pings of `ping` that may be unanswered."""
_LINGER: Final = 2.0
"""Seconds for which the peer may go on sending after the last frame, before its connection is dropped."""


class PingWaiter:
    """The answer to a ping, to be waited for.

    Attributes:
        latency: seconds of the round trip; None before the pong has come.
    """

    __slots__ = ("_condition", "_error", "ack_on_close", "latency", "sent")

    def __init__(self, condition: threading.Condition, sent: float, ack_on_close: bool) -> None:
        self._condition = condition
        self._error: Callable[[], Exception] | None = None
        self.sent = sent
        self.ack_on_close = ack_on_close
        self.latency: float | None = None

    def is_set(self) -> bool:
        """Tell whether the pong has come, or, with `ack_on_close`, the connection has ended."""
        return self.latency is not None or (self.ack_on_close and self._error is not None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the pong.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            Whether it has come; False if it has not in time.

        Raises:
            ConnectionClosed: the connection ended first, and `ack_on_close` is not set.
        """
        with self._condition:
            self._condition.wait_for(lambda: self.latency is not None or self._error is not None, timeout)
            if self.latency is None and self._error is not None and not self.ack_on_close:
                raise self._error()
            return self.is_set()

    def fail(self, error: Callable[[], Exception]) -> None:
        """Note that the connection has ended; `error` makes the exception."""
        self._error = error


class WebSocket:
    """One WebSocket connection, for programs without an event loop; every method may be called by any thread.

    Iterate over it for messages, or call `recv`; `str` is a text message, `bytes` a binary one::

        with wsfast.sync.connect("ws://localhost:8765") as ws:
            ws.send("hello")
            for message in ws:
                print(message)

    The iteration ends when the connection is closed with 1000, 1001 or no code, and raises `ConnectionClosedError` when
    it ends otherwise. Where several threads receive, each message goes to one of them. Leaving the ``with`` block
    closes the connection: with 1000, or with 1011 if an exception leaves it.

    Attributes:
        request: the opening handshake's `Request`.
        response: the opening handshake's `Response`.
        subprotocol: the name that was agreed on, or None.
        latency: seconds of the latest ping's round trip, a keepalive's or one by `ping`; 0 before the first.
        logger: where the connection logs to.
    """

    connection_type: ClassVar[type[Connection]] = Connection
    """The sans-IO state machine that a connection is made with."""
    _overhead: ClassVar[int] = 64
    """Bytes that a held message counts for beside its own; the same as on asyncio."""

    def __init__(
        self,
        link: Link,
        limits: Limits,
        *,
        compression: Compression | None = None,
        request: Request,
        response: Response,
        subprotocol: str | None = None,
        trailing: bytes = b"",
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        self.request = request
        self.response = response
        self.subprotocol = subprotocol
        self.latency = 0.0
        self._id: uuid.UUID | None = None
        self.logger = logger
        self._limits = limits
        self._link = link
        self._remote_address = _address(link.sock.getpeername)
        self._local_address = _address(link.sock.getsockname)
        self._connection = self.connection_type(
            Side.CLIENT,
            max_size=limits.max_size,
            max_fragments=limits.max_fragments,
            max_events=_MAX_EVENTS,
            compression=compression,
        )
        self._lock = threading.Lock()
        self._writable = threading.Condition(self._lock)  # little is unsent, or the connection has ended
        self._answered = threading.Condition(self._lock)  # a pong has come, or none will
        self._finished = threading.Condition(self._lock)  # the transport has ended
        self._decoded = threading.Condition(self._lock)  # more of what one read brought is
        self._gate = threading.Lock()  # held by who sends a message, so that fragments are not mixed
        self._sender: int | None = None  # the thread that has the gate for a message in fragments
        self._turnstile = threading.RLock()  # held by who receives a message
        self._queue: SimpleQueue[str | bytes | Fragment | None] = SimpleQueue()  # None is its end
        self._put = 0  # bytes that were put into the queue, ever: written under `_lock`
        self._taken = 0  # bytes that were taken out of it: written under `_turnstile`
        self._paused = False  # reading is, while the consumer is behind
        self._pending = False  # what one read brought is not all decoded: set by the thread, once the rest is queued
        self._waits = False  # writing has failed, and the program is given time to take what had come
        self._ended = False  # the end was put into the queue
        self._streamer: int | None = None  # the thread that is in recv_streaming
        self._skip = False  # the rest of a message that recv_streaming left
        self._parts: list[str | bytes] = []  # of a message that began to arrive in pieces
        self._pings: dict[bytes, PingWaiter | float] = {}
        self._due: float | None = None
        self._keepalive_sent = False
        self._heard = 0
        self._heard_before = 0
        self._unsent_before = 0
        self._over = False
        with self._lock:
            if limits.ping_interval is not None:
                self._due = time.monotonic() + limits.ping_interval
            if trailing:
                self._received(trailing)
        self._thread = threading.Thread(target=self._run, name="wsfast", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<wsfast.sync.WebSocket {self.state.name} {self.remote_address}>"

    # --- What it is ---------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """A `State`: OPEN, CLOSING, DRAINING or CLOSED."""
        return self._connection.state

    @property
    def remote_address(self) -> Any:
        """The peer's address as `socket.getpeername` gives it, or None."""
        return self._remote_address

    @property
    def local_address(self) -> Any:
        """This side's address as `socket.getsockname` gives it, or None."""
        return self._local_address

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1005 without one, 1006 without a Close frame; None while it is open."""
        if self.state < State.DRAINING:
            return None
        rcvd = self._connection.close_rcvd
        return CloseCode.ABNORMAL_CLOSURE if rcvd is None else rcvd.code

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent, ``""`` without one; None while the connection is open."""
        if self.state < State.DRAINING:
            return None
        rcvd = self._connection.close_rcvd
        return "" if rcvd is None else rcvd.reason

    @property
    def close_exc(self) -> ConnectionClosed | None:
        """What `recv` and `send` raise from now on, as a new exception; None while the connection is open."""
        return None if self.state < State.DRAINING else self._connection.closed_error()

    @property
    def socket(self) -> socket.socket:
        """The socket, to look at and to set options of; what it carries belongs to the connection."""
        return self._link.sock

    @property
    def id(self) -> uuid.UUID:
        """A random identifier of the connection, for logs; made when it is first asked for."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def close_cause(self) -> CloseCause | None:
        """Who or what closed the connection; None while it is open."""
        return self._connection.cause

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent by this program and not yet taken by the operating system."""
        return self._link.unsent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR)

    # --- Receiving ----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str | bytes]:
        """Iterate over messages until the connection is closed.

        Raises:
            ConnectionClosedError: it was closed otherwise than with 1000, 1001 or no code.
        """
        try:
            while True:
                yield self.recv()
        except ConnectionClosedOK:
            return

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...

    @overload
    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes:
        """Receive the next message.

        Args:
            timeout: seconds to wait; None for no limit, 0 to take only what has come already. A message that is
                arriving when the time is up is not lost.
            decode: None for `str` from a text message and `bytes` from a binary one; True for `str`, False for
                `bytes` always.

        Raises:
            TimeoutError: no message came in time.
            ConnectionClosed: the connection is closed, and no message is left.
            ConcurrencyError: this thread is in `recv_streaming`.
            UnicodeDecodeError: `decode` is True and the message is no UTF-8.
        """
        self._check_receiver()
        if timeout is None:
            with self._turnstile:
                return _converted(self._next_message(None), decode)
        end = time.monotonic() + timeout
        turnstile = self._turnstile
        try:
            if not (turnstile.acquire(timeout=timeout) if timeout > 0 else turnstile.acquire(blocking=False)):
                raise TimeoutError("no message was received in time: another thread receives, too")
            return _converted(self._next_message(end), decode)
        finally:
            # Ctrl-C can come between the lock's return and anything that would note it.
            if turnstile._is_owned():  # type: ignore[attr-defined]
                turnstile.release()

    def _check_receiver(self) -> None:
        if self._streamer == threading.get_ident():
            raise ConcurrencyError("the thread that is in recv_streaming() cannot receive otherwise")

    def _next_message(self, end: float | None) -> str | bytes:
        """Take the next whole message; the turnstile is held."""
        while True:
            event = self._next(end)
            if not isinstance(event, Fragment):
                return event
            if self._skip:
                self._skip = not event.final
            else:
                # It began to arrive in pieces, for a `recv_streaming` that never saw them.
                self._parts.append(event.data)
                if event.final:
                    parts, self._parts = self._parts, []
                    return _joined(parts)

    @overload
    def recv_streaming(self, decode: Literal[True]) -> Iterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> Iterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> Iterator[str | bytes]: ...

    def recv_streaming(self, decode: bool | None = None) -> Iterator[str | bytes]:
        """Receive one message in pieces, as they arrive, so that it need not fit into memory.

        The pieces follow the stream as it arrives, not the frames. If the iteration is left before the end of
        the message, the rest of it is dropped. `max_size` limits the whole message here too. Other threads that
        receive wait until the message is over.

        Args:
            decode: None for `str` from a text message and `bytes` from a binary one; True for `str`, False for `bytes`
                always.

        Raises:
            ConnectionClosed: the connection ended before the message or within it.
            ConcurrencyError: this thread is in `recv_streaming` already.
            UnicodeDecodeError: `decode` is True and a piece is no UTF-8, as one that ends within a character.
        """
        self._check_receiver()
        with self._turnstile:
            begun = final = False
            try:
                self._streamer = threading.get_ident()
                self._connection.decoder.streaming = True
                while not final:
                    if self._parts:
                        begun = True  # first: if Ctrl-C comes between the two, the rest is dropped
                        piece = self._parts.pop(0)
                    else:
                        event = self._next(None)
                        piece, last = event if isinstance(event, Fragment) else (event, True)
                        if self._skip:
                            self._skip = not last
                            continue
                        final = last
                        begun = not final
                    yield _converted(piece, decode)
            finally:
                if begun and not final:
                    self._skip = True
                    self._parts.clear()
                self._streamer = None
                self._connection.decoder.streaming = False

    def _next(self, end: float | None) -> str | bytes | Fragment:
        """Wait for the next thing in the queue and take it; the turnstile is held."""
        if self._paused and self._queue.empty():
            with self._lock:
                if self._paused and self._queue.empty():
                    # Ctrl-C came between taking a message and counting it.
                    self._taken = self._put
                    self._link.wake()
                    self._paused = False
        try:
            if end is None:
                event = self._queue.get()
            else:
                left = end - time.monotonic()
                try:
                    event = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
                except Empty:
                    if self._pending:
                        self._catch_up()
                    event = self._queue.get_nowait()
        except Empty:
            raise TimeoutError("no message was received in time") from None
        if event is None:
            self._queue.put(None)  # for the next who asks
            raise self._connection.closed_error()
        self._taken += _weight(event) + self._overhead
        if self._paused and (self._put - self._taken) * 4 <= self._limits.read_limit:
            with self._lock:
                # In this order: if Ctrl-C comes between the two, the next call does it again.
                self._link.wake()
                self._paused = False
        return event

    def _catch_up(self) -> None:
        """Wait for the thread to decode what has come already, as far as to a message: that takes no time."""
        with self._lock:
            self._decoded.wait_for(lambda: not self._pending or not self._queue.empty())

    # --- Sending ------------------------------------------------------------------------------------------

    def send(
        self,
        message: str | BytesLike | Iterable[str | BytesLike],
        text: bool | None = None,
        *,
        compress: bool | None = None,
    ) -> None:
        """Send a message, and wait while more than `write_limit` bytes are unsent.

        Args:
            message: `str` for a text message, bytes-like for a binary one, or an iterable of either, whose items are
                sent as the fragments of one message; other threads that send wait for its end.
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary.
            compress: True or False to compress it or not, where compression was agreed; None leaves it to the size.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: the iterable sends to the same connection.
            TypeError: the message is of another type, or of several.
            UnicodeError: it is no text.
        """
        try:
            self._send(message, text, compress)
        except ConnectionClosed:
            raise self._final_error() from self._connection.failure
        self._drain()

    def _send(
        self, message: str | BytesLike | Iterable[str | BytesLike], text: bool | None, compress: bool | None
    ) -> None:
        if isinstance(message, (str, bytes, bytearray, memoryview)) or hasattr(message, "__buffer__"):
            self._check_sender()
            with self._gate:
                self._send_whole(message, text, compress)  # type: ignore[arg-type]
        elif isinstance(message, dict):
            raise TypeError("a message must be str, bytes-like or an iterable of these, got dict")
        elif isinstance(message, Iterable):
            self._check_sender()
            with self._gate:
                self._sender = threading.get_ident()
                try:
                    self._send_fragments(message, text, compress)
                finally:
                    self._sender = None
        else:
            raise TypeError(f"a message must be str, bytes-like or an iterable of these, got {type(message).__name__}")

    def _final_error(self) -> ConnectionClosed:
        """Wait for the end of a connection that is closing, and make the exception that tells how it ended."""
        with self._lock:
            while self._connection.state is State.CLOSING and not self._over:
                self._finished.wait()
            return self._connection.closed_error()

    def _check_sender(self) -> None:
        if self._sender == threading.get_ident():
            raise ConcurrencyError("send() was called by the iterable whose items are being sent")

    def _send_whole(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        connection = self._connection
        if connection.compression is None:
            with self._lock:
                connection.send_message(message, text=text, compress=compress)
                self._flush()
            return
        # To compress takes long: meanwhile pings are answered and other threads receive.
        try:
            prepared = connection.prepare_message(message, text, compress)
            with self._lock:
                connection.send_prepared(prepared)
                self._flush()
        except Exception:
            raise
        except BaseException:
            # Ctrl-C between the two: the peer's window and ours may no longer be in step.
            self._give_up("sending was interrupted")
            raise

    def _send_fragments(self, pieces: Iterable[str | BytesLike], text: bool | None, compress: bool | None) -> None:
        kind: type | None = None
        held: str | BytesLike | None = None
        started = False
        try:
            for piece in pieces:
                if kind is None:
                    kind = str if isinstance(piece, str) else bytes
                elif isinstance(piece, str) != (kind is str):
                    raise TypeError(f"all fragments must be {kind.__name__}, got {type(piece).__name__}")
                if held is not None:
                    started = True
                    self._send_fragment(held, False, text, compress)
                    self._drain()
                held = piece
            if held is not None:
                self._send_fragment(held, True, text, compress)
        except BaseException:
            # A message that was begun can neither be finished nor taken back (RFC 6455, 5.4).
            if started:
                self._give_up("a message was not finished")
            raise

    def _send_fragment(self, data: str | BytesLike, fin: bool, text: bool | None, compress: bool | None) -> None:
        with self._lock:
            self._connection.send_fragment(data, fin, text=text, compress=compress)
            self._flush()

    def _drain(self) -> None:
        """Wait until less than a quarter of `write_limit` is unsent."""
        if self._link.unsent <= self._limits.write_limit and self._link.broken is None:
            return
        with self._lock:
            # Where writing has failed, the peer's Close frame may tell why; it is looked for unless reading is paused.
            while not self._over and (
                self._link.unsent * 4 > self._limits.write_limit if self._link.broken is None else not self._paused
            ):
                self._writable.wait()
            if self._over or self._link.broken is not None:
                raise self._connection.closed_error()

    def _flush(self) -> None:
        """Write what the encoder holds; the lock is held."""
        encoder = self._connection.encoder
        if not len(encoder) or self._over:
            return
        waited = self._link.unsent > 0
        try:
            self._link.write(encoder.take())
        except BaseException:
            # Ctrl-C: how much of it was sent is not known, and half a frame cannot be taken back.
            self._abort(CloseCause.LOCAL)
            raise
        if (self._link.unsent and not waited) or self._link.broken is not None:
            self._link.wake()
        self._connection.congested = self._link.unsent > self._limits.write_limit

    def ping(self, data: str | BytesLike | None = None, *, ack_on_close: bool = False) -> PingWaiter:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None for random ones.
            ack_on_close: let the waiter's `wait` return, not raise, when the connection ends first.

        Returns:
            A waiter: ``ws.ping().wait(timeout)`` waits for the pong; then its `latency` is the round trip in
            seconds. It can be left alone.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a ping with the same data is unanswered.
            InvalidState: 64 pings are unanswered.
            ValueError: `data` is too long.
        """
        with self._lock:
            if data is None:
                payload = os.urandom(4)
                while payload in self._pings:
                    payload = os.urandom(4)
            else:
                payload = data.encode() if isinstance(data, str) else bytes(memoryview(data))
            if payload in self._pings:
                raise ConcurrencyError("already waiting for a pong with the same data")
            if len(self._pings) >= _MAX_PINGS:
                raise InvalidState(f"{_MAX_PINGS} pings are unanswered")
            if self._connection.state is State.OPEN and self._link.broken is None:
                self._connection.send_ping(payload)
                waiter = PingWaiter(self._answered, time.monotonic(), ack_on_close)
                self._pings[payload] = waiter
                self._flush()
                return waiter
        raise self._final_error()

    def pong(self, data: str | BytesLike = b"") -> None:
        """Send an unsolicited Pong frame: a heartbeat that asks for no answer (RFC 6455, 5.5.3).

        Raises:
            ConnectionClosed: the connection is closed.
            ValueError: `data` has more than 125 bytes.
        """
        with self._lock:
            if self._connection.state is State.OPEN:
                self._connection.send_pong(data.encode() if isinstance(data, str) else data)
                self._flush()
                return
        raise self._final_error()

    # --- Closing ------------------------------------------------------------------------------------------

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection with the closing handshake and wait for its end, for at most `close_timeout`.

        Without effect on a connection that is closed or closing, but that it waits. Messages that were received before
        can still be received after. If the wait is interrupted, by Ctrl-C, the connection is dropped.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 for a Close frame without a code.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        try:
            with self._lock:
                self._start_close(code, reason, CloseCause.LOCAL)
            self.wait_closed()
        except (ValueError, TypeError):
            raise
        except BaseException:
            self.abort()
            raise

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection has ended, whoever ends it.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            Whether it has ended.
        """
        end = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            if not self._finished.wait_for(lambda: self._over, timeout):
                return False
        # It closes the socket and ends, which takes no time.
        self._thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return True

    def abort(self) -> None:
        """Drop the connection at once, without a closing handshake; what is unsent is lost."""
        with self._lock:
            self._abort(CloseCause.LOCAL)

    def _give_up(self, reason: str) -> None:
        try:
            with self._lock:
                self._start_close(CloseCode.INTERNAL_ERROR, reason, CloseCause.LOCAL)
        except BaseException:
            self.abort()
            raise

    def _start_close(self, code: int, reason: str, cause: CloseCause) -> None:
        connection = self._connection
        was_open = connection.state is State.OPEN
        connection.close(code, reason, cause)
        if was_open:
            self._flush()
            self._set_deadline(self._limits.close_timeout)
            # What still comes is dropped, but the peer's Close frame is behind it.
            self._paused = False
            self._link.wake()

    def _abort(self, cause: CloseCause | None) -> None:
        """End the transport; the lock is held."""
        if self._over:
            return
        if cause is not None:
            self._connection.abandon(cause)
        # In this order: who is interrupted between the two can do it again, and the thread is not left asleep.
        self._link.wake()
        self._end()

    def _end(self) -> None:
        """Note that the transport has ended, and wake everybody; the lock is held. The thread closes the socket.

        To call it again does no harm: Ctrl-C may have come in the middle.
        """
        self._over = True
        connection = self._connection
        connection.receive_eof()
        if connection.compression is not None:
            connection.compression.close()
        self._pending = False
        self._put_end()
        self._fail_senders()
        for condition in (self._finished, self._decoded):
            condition.notify_all()

    def _fail_senders(self) -> None:
        """Tell who sends, or waits for a pong, that there is no use in it any more."""
        for waiter in self._pings.values():
            if isinstance(waiter, PingWaiter):
                waiter.fail(self._connection.closed_error)
        self._pings.clear()
        self._writable.notify_all()
        self._answered.notify_all()

    def _put_end(self) -> None:
        if not self._ended:
            self._ended = True
            self._queue.put(None)

    # --- The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as exc:
            self.logger.error("the connection's thread failed", exc_info=exc)
        finally:
            with self._lock:
                self._end()
                self._link.close()

    def _turn(self) -> bool:
        """Wait for something to do, and do it; False once the connection has ended."""
        with self._lock:
            read = not self._paused
            write = self._link.unsent > 0
            broken = self._link.broken is not None
            if broken and not read and not self._waits:
                # What the system has received already may hold more than there is room for: give the program time.
                self._waits = True
                self._fail_senders()
                self._set_deadline(self._limits.close_timeout)
            timeout = None if self._due is None else max(0.0, self._due - time.monotonic())
            ready = read and (broken or self._pending)
        readable = ready or self._link.wait(read, write, timeout)
        with self._lock:
            if self._over:
                return False
            if write:
                self._sent_more()
            if self._pending and not self._paused:
                # Of what one read brought, so that it is soon done with: time is looked at when the next has been made.
                self._received(b"")
                return True
            if self._link.broken is not None:
                if not self._paused and not self._take_rest():
                    self._end()
                    return False
            elif readable and not self._read():
                self._end()
                return False
            if self._due is not None and time.monotonic() >= self._due:
                self._due = None
                self._on_deadline()
            return not self._over

    def _read(self) -> bool:
        """Take in what has come; False at the end of the connection."""
        try:
            data = self._link.read()
        except OSError as exc:
            self.logger.debug("connection lost: %r", exc)
            return False
        if data is None:
            return True
        if not data:
            return False
        self._received(data)
        return True

    def _take_rest(self) -> bool:
        """Take in more of what the system has received already; False once that is all.

        A Close frame may be in it that tells why writing failed.
        """
        try:
            data = self._link.read()
        except OSError:
            return False
        if not data:
            return False
        self._received(data)
        return self._connection.state < State.DRAINING

    def _received(self, data: bytes) -> None:
        connection = self._connection
        self._heard += len(data)
        before = connection.state
        for event in connection.receive_data(data):
            if before is State.OPEN or not isinstance(event, (str, bytes, Fragment)):
                self._deliver(event)
        self._pending = connection.decoder.pending
        self._waits = False
        self._decoded.notify_all()
        self._flush()
        if connection.state >= State.DRAINING and before < State.DRAINING:
            self._drained()

    def _deliver(self, event: Event) -> None:
        if isinstance(event, (str, bytes, Fragment)):
            self._put += _weight(event) + self._overhead
            if self._put - self._taken > self._limits.read_limit and self._connection.state is State.OPEN:
                self._paused = True
            self._queue.put(event)
        elif isinstance(event, Pong):
            self._take_pong(event.payload)

    def _drained(self) -> None:
        """No frames follow either way: wake who waits, and end the transport if that is this side's duty."""
        timeout = self._limits.close_timeout
        if self._connection.should_end_transport:
            # Closing with unread bytes in the socket resets the connection, and the reset can overtake the Close frame:
            # end the sending side, read on for a while, and let the peer end the rest.
            self._link.end()
            self._set_deadline(_LINGER if timeout is None else min(timeout, _LINGER))
        elif self._connection.rcvd_then_sent:
            self._set_deadline(timeout)
        self._paused = False
        self._put_end()

    def _sent_more(self) -> None:
        limit = self._limits.write_limit
        connection = self._connection
        self._link.flush()
        if connection.congested and self._link.unsent * 4 <= limit:
            connection.congested = False
            connection.answer_ping()
            self._flush()
        if self._link.unsent * 4 <= limit:
            self._writable.notify_all()

    def _take_pong(self, payload: bytes) -> None:
        # RFC 6455, 5.5.3: a peer may answer only the latest ping; the earlier ones are answered with it.
        now = time.monotonic()
        while payload in self._pings:
            waiter = self._pings.pop(next(iter(self._pings)))
            if isinstance(waiter, PingWaiter):
                waiter.latency = self.latency = now - waiter.sent
            else:
                self.latency = now - waiter
        self._answered.notify_all()

    # --- Time -----------------------------------------------------------------------------------------------

    def _set_deadline(self, delay: float | None) -> None:
        self._due = None if delay is None else time.monotonic() + delay

    def _on_deadline(self) -> None:
        """Keep alive while the connection is open; while it closes, patience is at its end."""
        connection = self._connection
        if connection.state is State.OPEN and self._link.broken is None:
            self._keep_alive()
        elif connection.state is State.CLOSING and connection.cause is CloseCause.LOCAL:
            self._abort(CloseCause.TIMEOUT)
        else:
            self._abort(connection.cause)

    def _keep_alive(self) -> None:
        limits = self._limits
        # Nothing can be heard while nothing is read, and a peer that takes what was sent to it is alive.
        unsent = self._link.unsent
        progressed = unsent > 0 and unsent < self._unsent_before
        silent = self._heard == self._heard_before and not self._paused and not progressed
        self._heard_before = self._heard
        self._unsent_before = unsent
        if not silent:
            self._keepalive_sent = False
        elif self._keepalive_sent:
            connection = self._connection
            connection.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", CloseCause.KEEPALIVE)
            self._flush()
            self._abort(CloseCause.KEEPALIVE)
            return
        else:
            if unsent <= limits.write_limit:
                payload = os.urandom(4)
                if payload not in self._pings:
                    self._connection.send_ping(payload)
                    self._pings[payload] = time.monotonic()
                    self._flush()
            if limits.ping_timeout is not None:
                self._keepalive_sent = True
                self._set_deadline(limits.ping_timeout)
                return
        self._set_deadline(limits.ping_interval)


def _weight(event: str | bytes | Fragment) -> int:
    return len(event.data) if isinstance(event, Fragment) else len(event)


def _converted(message: str | bytes, decode: bool | None) -> str | bytes:
    if decode is True and isinstance(message, bytes):
        return message.decode()
    if decode is False and isinstance(message, str):
        return message.encode()
    return message


def _joined(parts: list[str | bytes]) -> str | bytes:
    if isinstance(parts[0], bytes):
        return b"".join(cast("list[bytes]", parts))
    return "".join(cast("list[str]", parts))


def _address(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError:
        return None
