"""`WebSocket` without an event loop: what `wsfast.sync.connect` returns, and what handlers of `wsfast.sync.serve` get.

A thread of its own moves the bytes of each connection: it receives, answers pings, and does what the `Session` says
when it is due, whatever the program does meanwhile. A thread that sends writes to the socket itself; what the operating
system does not take at once is left to the connection's thread. One lock guards the state; no thread waits for the
network while it holds the lock.

While the program is behind, the connection's thread stops reading and decoding: a few bytes can inflate to megabytes.
Only this thread decodes, because KeyboardInterrupt never reaches it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, Self, overload

from wsfast.assembly import Assembler, Decoded, PieceCheck, check_pieces, converted, is_whole
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Compression, Side, State
from wsfast.events import BytesLike, Fragment
from wsfast.exceptions import BufferFull, ConcurrencyError, ConnectionClosed, ConnectionClosedOK, InvalidState
from wsfast.extensions import Chain
from wsfast.handshake import Request, Response
from wsfast.session import LONGEST, Do, Limits
from wsfast.shell import Shell

from ..telling import tell
from .link import Link

if TYPE_CHECKING:
    import socket
    import ssl

    from wsfast.asyncio.broadcast import Prepared
    from wsfast.bus import Position

    from .topics import Bridge, Sink

__all__ = ["PingWaiter", "WebSocket"]

_LOOK: Final = 0.5
"""Seconds after which a thread that waits for another's `recv_streaming` looks whether Ctrl-C has ended that."""
_OTHERS: Final = "no message was received in time: another thread receives, too"


class PingWaiter:
    """The answer to a ping, to be waited for.

    Attributes:
        latency: seconds of the round trip; None before the pong has come.
    """

    __slots__ = ("_ack_on_close", "_ended", "_ws", "latency")

    def __init__(self, ws: WebSocket, ack_on_close: bool) -> None:
        self._ws = ws
        self._ack_on_close = ack_on_close
        self._ended = False
        self.latency: float | None = None

    def is_set(self) -> bool:
        """Tell whether the pong has come, or, with `ack_on_close`, the connection has ended."""
        return self.latency is not None or (self._ack_on_close and self._ended)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the pong.

        Args:
            timeout: seconds; None, the default, for no limit.

        Returns:
            Whether it has come; False if it has not in time.

        Raises:
            ConnectionClosed: the connection ended first, and `ack_on_close` is not set.
        """
        ws = self._ws
        with ws._answered:
            # The pong may be behind messages that this program has not taken, and the waiting thread may be the one to
            # take them.
            longest = None if timeout is None else min(timeout, LONGEST)
            ws._answered.wait_for(lambda: self.latency is not None or self._ended or ws._waits, longest)
            if self.latency is None and (self._ended or ws._waits) and not self._ack_on_close:
                raise ws._connection.closed_error()
            return self.is_set()

    def _done(self, latency: float | None) -> None:
        """Note the pong, or, by None, that the connection has ended before it; the connection's lock is held."""
        self.latency = latency
        self._ended = latency is None
        self._ws._answered.notify_all()


class _Streamer:
    """One message that is received in pieces.

    Attributes:
        thread: the thread that took the latest piece.
        over: set once other threads may receive.
    """

    __slots__ = ("over", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.over = threading.Event()

    def wait(self, end: float | None) -> None:
        """Wait until other threads may receive, for a while.

        Raises:
            TimeoutError: they may not at the time `end`.
        """
        left = _LOOK if end is None else min(end - time.monotonic(), _LOOK)
        if not self.over.wait(max(left, 0.0)) and left < _LOOK:
            raise TimeoutError(_OTHERS)


class _Behind(NamedTuple):
    """A close that waits until the sends before it are done."""

    calls: list[object]
    close: Callable[[], None]


class WebSocket(Shell):
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
        response: the opening handshake's `Response`; None in a server's hooks.
        subprotocol: the name that was agreed on, or None.
        username: who the client is, where a server's hook found out; else None.
        logger: where the connection logs to.
    """

    _thread: threading.Thread

    def __init__(
        self, link: Link, limits: Limits, *, request: Request, logger: logging.Logger | logging.LoggerAdapter[Any]
    ) -> None:
        super().__init__(limits, request, logger, (_address(link.sock.getpeername), _address(link.sock.getsockname)))
        self._link = link
        self._lock = threading.Lock()
        self._writable = threading.Condition(self._lock)  # little is unsent, or the connection has ended
        self._answered = threading.Condition(self._lock)  # a pong has come, or none will
        self._finished = threading.Condition(self._lock)  # the transport has ended
        self._decoded = threading.Condition(self._lock)  # more of what one read brought is
        self._gate = threading.Lock()  # held while a message is sent, so that fragments are not mixed
        self._brief = threading.Lock()  # held while a whole message is sent, never for long: `broadcast` takes it
        self._packing = False  # a message is compressed: set under `_brief`
        self._calls: dict[object, int] = {}  # each call that sends and is not done with it, and its thread
        self._behind: _Behind | None = None  # a close that waits for some of them: set under `_lock`
        self._sender: int | None = None  # the thread that has the gate for a message in fragments: set under `_brief`
        self._turnstile = threading.RLock()  # held while a message, or a piece of one, is received
        self._queue: SimpleQueue[str | bytes | Fragment | None] = SimpleQueue()  # None ends it
        self._put_size = 0  # bytes that were put into the queue, ever: written under `_lock`
        self._taken_size = 0  # bytes that were taken out of it: written under `_turnstile`
        self._pending = False  # what one read brought is not all decoded: set by the thread, once the rest is queued
        self._waits = False  # writing has failed, and the program is given time to take what had come
        self._ended = False  # the end was put into the queue
        self._streamer: _Streamer | None = None  # set under `_turnstile`
        self._assembler = Assembler()
        self._bytes_written = 0  # frames, before TLS
        self._bridge: Bridge | None = None  # to the topics of its server, which sets it before it is open
        self._sink: Sink | None = None

    def _open(
        self,
        side: Side,
        response: Response,
        subprotocol: str | None,
        compression: Compression | Chain | None,
        trailing: bytes,
    ) -> None:
        """Go on as an open connection.

        Args:
            side: which end this is.
            response: the one that ended the opening handshake.
            subprotocol: the name that was agreed on, or None.
            compression: what permessage-deflate negotiated, or a `Chain` of extensions, or None.
            trailing: the bytes that came behind the opening handshake.

        Raises:
            RuntimeError: the system has no room for one more thread.
        """
        self._begin(side, response, subprotocol, compression)
        if self._bridge is not None:
            self._sink = self._bridge.sink(self)
        self._thread = threading.Thread(target=self._run, name="wsfast", daemon=True)
        with self._lock:
            if trailing:
                self._received(trailing)
        try:
            self._thread.start()
        except BaseException:
            with self._lock:
                self._abort(CloseCause.LOCAL)
                self._link.close()
            raise

    # --- What it is ---------------------------------------------------------------------------------------

    @property
    def socket(self) -> socket.socket:
        """The connection's socket, to inspect. Do not read or write it: TLS and frames are handled above it."""
        return self._link.sock

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS of the connection: it has `version`, `cipher`, and `getpeercert`; None without TLS.

        It is there in a server's hooks too.
        """
        return self._link.tls

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
            timeout: seconds to wait; None, the default, for no limit, 0 to take only what has come already. A message
                that is arriving when the time is up is not lost.
            decode: None, the default, for `str` from a text message and `bytes` from a binary one; True for `str`,
                False for `bytes` always.

        Raises:
            TimeoutError: no message came in time.
            ConnectionClosed: the connection is closed, and no message is left.
            ConcurrencyError: this thread is in `recv_streaming`.
            UnicodeDecodeError: `decode` is True and the message is not UTF-8.
        """
        self._check_receiver()
        end = None if timeout is None else time.monotonic() + min(timeout, LONGEST)
        while True:
            if end is None:
                with self._turnstile:
                    streamer = self._streamer
                    if streamer is None:
                        return converted(self._next_message(None), decode)
            else:
                turnstile, left = self._turnstile, end - time.monotonic()
                try:
                    if not (turnstile.acquire(timeout=left) if left > 0 else turnstile.acquire(blocking=False)):
                        raise TimeoutError(_OTHERS)
                    streamer = self._streamer
                    if streamer is None:
                        return converted(self._next_message(end), decode)
                finally:
                    # Ctrl-C can come between the lock's return and anything that would note it.
                    if turnstile._is_owned():  # type: ignore[attr-defined]
                        turnstile.release()
            streamer.wait(end)

    def _check_receiver(self) -> None:
        self._session  # noqa: B018 - raises if the connection is not open yet
        streamer = self._streamer
        if streamer is not None and streamer.thread == threading.get_ident():
            raise ConcurrencyError("the thread that is in recv_streaming() cannot receive otherwise")

    def _next_message(self, end: float | None) -> str | bytes:
        """Take the next whole message; the turnstile is held."""
        while True:
            event = self._next(end)
            # The message began to arrive in pieces, for a `recv_streaming` that never got them, or gave them up.
            message = self._assembler.add(event) if isinstance(event, Fragment) else event
            if message is not None:
                return message

    @overload
    def recv_streaming(self, decode: Literal[True]) -> Iterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> Iterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> Iterator[str | bytes]: ...

    def recv_streaming(self, decode: bool | None = None) -> Iterator[str | bytes]:
        """Receive one message in pieces, as they arrive, so that it need not fit into memory.

        Each piece is what has just arrived, whatever the sender's frames were. If the iteration is left before the end
        of the message, the rest of it is dropped. `max_size` limits the whole message here too. Other threads that
        receive wait until the message is over. The iterator may be handed to another thread, and be given up in any.

        Args:
            decode: None, the default, for `str` from a text message and `bytes` from a binary one; True for `str`,
                False for `bytes` always.

        Raises:
            ConnectionClosed: the connection ended before the message or within it.
            ConcurrencyError: this thread is in `recv_streaming` already.
            UnicodeDecodeError: `decode` is True and the message is not UTF-8.
        """
        self._check_receiver()
        begun = final = False
        decoded = Decoded(decode)
        streamer = _Streamer()
        try:
            self._begin_streaming(streamer)
            while not final:
                event: str | bytes | Fragment
                with self._turnstile:
                    streamer.thread = threading.get_ident()
                    if self._assembler.holding:
                        begun = True  # first: if Ctrl-C comes between the two, the rest is dropped
                        event = self._assembler.take()
                    else:
                        event = self._next(None)
                    if isinstance(event, Fragment) and self._assembler.skipping:
                        self._assembler.add(event)
                        continue
                    piece, final = (event.data, event.final) if isinstance(event, Fragment) else (event, True)
                    begun = not final
                yield decoded(piece, final)
        finally:
            # An iterator may be given up in any thread. This is no method of its own: Ctrl-C can come where one begins.
            if self._streamer is streamer:
                try:
                    with self._turnstile:  # nobody has it for long while `_streamer` is set
                        if begun and not final:
                            self._assembler.skip()
                finally:
                    try:
                        self._connection.decoder.streaming = False
                    finally:
                        self._streamer = None
                        streamer.over.set()

    def _begin_streaming(self, streamer: _Streamer) -> None:
        """Keep other threads from receiving, and have messages delivered in pieces."""
        while True:
            with self._turnstile:
                other = self._streamer
                if other is None:
                    self._streamer = streamer
                    self._connection.decoder.streaming = True
                    if self._connection.decoder.held:
                        # The thread delivers what has come of a message already: its sender may wait for a reaction.
                        with self._lock:
                            self._pending = not self._over
                        self._link.wake()
                    return
            other.wait(None)

    def _next(self, end: float | None) -> str | bytes | Fragment:
        """Wait for the next thing in the queue and take it; the turnstile is held."""
        self._owing_since = None  # before `_kept` is looked at: see `_take_in`
        if self._queue.empty() and (self._paused or self._kept is not None):
            with self._lock:
                if self._queue.empty():
                    if self._paused:
                        # Ctrl-C came between taking a message and counting it.
                        self._taken_size = self._put_size
                        self._unpause()
                    if not self._packing:
                        self._obey(self._hand_in())
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
        self._owing_since = time.monotonic()
        self._taken_size += self._marks.weight(event)
        if self._paused and self._put_size - self._taken_size <= self._marks.low:
            with self._lock:
                self._unpause()
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
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
            compress: whether to compress the message, where compression was agreed on; None, the default, decides by
                its size.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: the iterable sends to the same connection.
            TypeError: the message is of another type, or of several.
            UnicodeError: the message is not text.
        """
        whole = is_whole(message)
        self._check_sender()
        call = object()
        try:
            self._calls[call] = threading.get_ident()
            with self._gate:
                if whole:
                    try:
                        with self._brief:
                            self._send_whole(message, text, compress)  # type: ignore[arg-type]
                    except ConnectionClosed:
                        del self._calls[call]  # in case that a close waits for this one
                        self._go_on_closing()
                        self._raise_final()
                else:
                    if self._connection.state is not State.OPEN:
                        del self._calls[call]
                        self._go_on_closing()
                        self._raise_final()
                    try:
                        with self._brief:
                            self._sender = threading.get_ident()
                        self._send_fragments(message, text, compress)  # type: ignore[arg-type]
                    finally:
                        self._sender = None
        finally:
            try:
                self._calls.pop(call, None)  # here, since Ctrl-C can come where a method begins
            finally:
                self._go_on_closing()
        self._drain()

    def _go_on_closing(self) -> None:
        """Go on with a waiting close, if this call was the last that it waits for."""
        if self._behind is not None:
            with self._lock:
                self._close_in_turn()

    def _offer(self, message: str | bytes, text: bool | None, compress: bool | None) -> None:
        """Send a message without waiting for the peer: for `broadcast`.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a message in fragments is under way.
            BufferFull: more than `write_limit` bytes are unsent.
        """
        if self._connection.state is not State.OPEN:
            raise self._connection.closed_error()
        call = object()
        try:
            self._calls[call] = threading.get_ident()
            with self._brief:
                if self._sender is not None:
                    raise ConcurrencyError("sending a fragmented message")
                unsent = self._link.unsent
                if unsent > self._limits.write_limit:
                    raise BufferFull(f"{unsent} bytes are unsent, more than write_limit={self._limits.write_limit}")
                self._send_whole(message, text, compress)
        finally:
            try:
                self._calls.pop(call, None)  # here, since Ctrl-C can come where a method begins
            finally:
                self._go_on_closing()

    def _write_encoded(self, frames: bytes, within: int | None) -> bool:
        """Write whole messages that were encoded for many connections.

        Args:
            frames: one or more frames, each a whole message.
            within: bytes that may be unsent; None for any number.

        Returns:
            Whether they were written: False if the connection is not open, is sending a message in fragments, or has
            more unsent.
        """
        with self._lock:
            connection = self._connection
            if connection.state is not State.OPEN or self._over or connection.in_message:
                return False
            if within is not None and self._link.unsent > within:
                return False
            connection.outgoing.encoded(frames)
            self._flush()
            return True

    def _write_shared(self, message: Prepared) -> bool:
        """Write a whole message whose encodings are shared by many connections, whatever is unsent.

        Returns:
            Whether it was written: False if the connection is not open, or another message is being sent in
            fragments or compressed.
        """
        with self._lock:
            connection = self._connection
            if connection.state is not State.OPEN or self._over or connection.in_message or self._packing:
                return False
            connection.outgoing.encoded(message.encoded(connection.compression)[1])
            self._flush()
            return True

    # --- Topics -------------------------------------------------------------------------------------------

    def subscribe(self, topic: str, *, info: str | None = None, wait: bool = True) -> None:
        """Subscribe to a topic: what is published to it from now on is sent to the peer, until the connection ends.

        Without effect if the connection has subscribed already.

        Args:
            topic: 1 to 200 of ``A-Z a-z 0-9 _ . : @ / -``.
            info: what others learn of this connection, in a topic with presence; at most 1024 bytes in UTF-8. Default:
                none.
            wait: whether to wait until the subscription holds in other processes too, if there is a bus. Default: True.

        Raises:
            ValueError, TypeError: `topic` is not a valid name, or `info` is not valid.
            NotAuthorized: the hook `authorize`, which is called in the topics' thread, does not allow it.
            TooManySubscriptions: a limit of `Topics` is reached.
            ConnectionClosed: the connection is closed.
            InvalidState: its server has no topics, or they are closed; or `recover` is about to subscribe it to this.
            BusUnavailable: other processes cannot be reached; the connection is subscribed to this process' messages.
        """
        self._topics_bridge().subscribe(self, topic, info, wait)

    def unsubscribe(self, topic: str) -> bool:
        """Unsubscribe from a topic; return False if there was no subscription. What was published before is sent."""
        return self._topics_bridge().unsubscribe(self, topic)

    def recover(self, topic: str, since: Position | str | None, *, info: str | None = None) -> int:
        """Send the peer what it missed of a topic with a history, and subscribe, without a gap and without repeating.

        Args:
            topic, info: those of `subscribe`.
            since: the position of the latest message that the peer has, as a `Position` or its `str`; None to send
                all that is kept.

        Returns:
            How many messages it had missed.

        Raises:
            NotRecovered: some of them are not kept any more; the connection has not been subscribed.
            ValueError, TypeError: as `subscribe`, or the topic has no history, or `since` is not a position.
            BusUnavailable: the history cannot be read now.
            NotAuthorized, TooManySubscriptions, ConnectionClosed: as `subscribe`.
            InvalidState: as `subscribe`, or it has subscribed to the topic already.
        """
        return self._topics_bridge().recover(self, topic, since, info)

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
        wait: bool = True,
    ) -> Position | None:
        """Send a message to all who subscribed to a topic, in all processes, but for this connection.

        Args:
            topic, message, key, text, compress: those of `Topics.publish`.
            wait: whether to wait until the bus has taken the message. Default: True.

        Returns:
            The message's `Position` in a topic with a history, if `wait` is set; else None.

        Raises:
            ValueError, TypeError, UnicodeError: the topic's name, the message or the key is not valid.
            ConnectionClosed: the connection is closed.
            InvalidState: its server has no topics, or they are closed.
            BusUnavailable: if `wait` is set: other processes may not get it.
        """
        bridge = self._topics_bridge()
        return bridge.publish(topic, message, key, text, compress, self._open_channel(), wait)

    @property
    def topics(self) -> set[str]:
        """The topics that this connection has subscribed to, as a new set."""
        return set() if self._bridge is None or self._sink is None else self._bridge.names(self._sink)

    def _topics_bridge(self) -> Bridge:
        if self._bridge is None:
            raise InvalidState("the connection's server has no topics: give it some, serve(topics=wsfast.Topics())")
        return self._bridge

    def _open_channel(self) -> Sink:
        """Return what `Topics` sends to; it calls this."""
        if self._sink is None or self._connection.state is not State.OPEN:
            raise self._connection.closed_error()
        return self._sink

    def _final_error(self) -> ConnectionClosed:
        """Wait for the end of a connection that is closing, and make the exception that tells how it ended."""
        with self._lock:
            while self._connection.state is State.CLOSING and not self._over:
                self._finished.wait()
            return self._connection.closed_error()

    def _raise_final(self) -> NoReturn:
        error = self._final_error()
        raise error from error.__cause__

    def _check_sender(self) -> None:
        if self._sender == threading.get_ident():
            raise ConcurrencyError("send() was called by the iterable whose items are being sent")

    def _send_whole(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        connection = self._connection
        if connection.compression is None:
            with self._lock:
                connection.send_message(message, text=text, compress=compress)
                self._messages_sent += 1
                self._flush()
            return
        # To compress takes long: meanwhile pings are answered and other threads receive.
        try:
            # RFC 6455, 5.5.1: "An endpoint MAY delay sending a Close frame until its current message is sent".
            try:
                with self._lock:
                    self._packing = True  # from now on, nobody else touches the compressor
                prepared = connection.prepare_message(message, text, compress)
                with self._lock:
                    connection.send_prepared(prepared)
                    self._messages_sent += 1
                    self._flush()
            finally:
                self._packing = False  # before `_kept` is looked at: see `_take_in`
                if self._kept is not None:
                    with self._lock:
                        if self._is_answered():
                            self._obey(self._hand_in())
        except Exception:
            raise
        except BaseException:
            # Ctrl-C between the two: the peer's window and ours may no longer be in step.
            self._give_up(CloseCode.INTERNAL_ERROR, "sending was interrupted", CloseCause.LOCAL)
            raise

    def _send_fragments(self, pieces: Iterable[str | BytesLike], text: bool | None, compress: bool | None) -> None:
        check = PieceCheck()
        check_pieces(pieces)
        try:
            for piece in pieces:
                check(piece)
                # At once, and an empty one at the end: the next piece may be long in coming.
                self._send_fragment(piece, False, text, compress)
                self._drain()
            if check.kind is not None:
                self._send_fragment(check.kind(), True, text, compress)
                self._messages_sent += 1
        except BaseException:
            # A message that was begun can neither be finished nor taken back (RFC 6455, 5.4).
            if self._connection.in_message:
                self._give_up(*self._unfinished)
            raise

    def _send_fragment(self, data: str | BytesLike, fin: bool, text: bool | None, compress: bool | None) -> None:
        try:
            with self._lock:
                self._connection.send_fragment(data, fin, text=text, compress=compress)
                self._flush()
        except ConnectionClosed:
            self._raise_final()

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
            data = encoder.take()
            self._bytes_written += len(data)
            self._link.write(data)
        except BaseException:
            # Ctrl-C: how much of it was sent is not known, and half a frame cannot be taken back.
            self._abort(CloseCause.LOCAL)
            raise
        if (self._link.unsent and not waited) or self._link.broken is not None:
            self._link.wake()
        if self._link.unsent > self._limits.write_limit:
            self._session.congest(time.monotonic())

    def ping(self, data: str | BytesLike | None = None, *, ack_on_close: bool = False) -> PingWaiter:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None, the default, for random ones.
            ack_on_close: let the waiter's `wait` return, not raise, when the connection ends first. Default: False.

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
            if self._connection.state is State.OPEN and self._link.broken is None:
                waiter = PingWaiter(self, ack_on_close)
                self._obey(self._session.ping(time.monotonic(), data, waiter._done))
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

        Messages for which other threads called `send` before go out first, if that takes no longer than half of
        `close_timeout`. A message in fragments that has begun is cut off then, since its next piece may never come.

        On a connection that is closed or closing already it only waits. What the peer sent before its own
        Close frame can still be received afterwards, up to `read_limit`; what exceeds that is dropped, unless another
        thread receives it within a second. If Ctrl-C interrupts the wait, the connection is dropped.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 for a Close frame without a code. Default: 1000.
            reason: at most 123 bytes in UTF-8. Default: none.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        try:
            self._begin_close(code, reason, CloseCause.LOCAL)
            self.wait_closed()
        except (ValueError, TypeError):
            raise
        except BaseException:
            self.abort()
            raise

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection has ended, whoever ends it.

        Args:
            timeout: seconds; None, the default, for no limit.

        Returns:
            Whether it has ended.
        """
        timeout = None if timeout is None else min(timeout, LONGEST)
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

    def _give_up(self, code: int, reason: str, cause: CloseCause) -> None:
        """Start the closing handshake because a message cannot be sent whole."""
        try:
            with self._lock:
                self._start_close(code, reason, cause, at_once=True)
        except BaseException:
            self.abort()
            raise

    def _begin_close(self, code: int, reason: str, cause: CloseCause) -> None:
        """Start the closing handshake, and return."""
        with self._lock:
            self._start_close(code, reason, cause)

    def _leave(self, code: int, cause: CloseCause) -> None:
        """Close because a server's handler has returned: nobody receives messages any more."""
        with self._lock:
            self._start_close(code, "", cause)
            self._discard()
        self.wait_closed()

    def _drop(self, cause: CloseCause) -> None:
        with self._lock:
            self._abort(cause)

    def _start_close(self, code: int, reason: str, cause: CloseCause, *, at_once: bool = False) -> None:
        super()._start_close(code, reason, cause, at_once=at_once)
        self._link.wake()  # there is a deadline now

    def _put_off(self, close: Callable[[], None], at: float | None) -> bool:
        if self._behind is None:
            if self._connection.in_message or self._sender is not None or self._link.broken is not None:
                return False
            me = threading.get_ident()  # a signal's handler, maybe, which keeps the call from going on
            calls = [call for call, thread in self._calls.copy().items() if thread != me]
            if not calls:
                return False
            self._close_at = at
            self._behind = _Behind(calls, close)
            self._close_in_turn()  # they may all have ended before they could see that a close waits
        return True

    def _close_in_turn(self) -> None:
        """Do the work of `_go_on_closing`; the lock is held."""
        behind = self._behind
        if behind is not None and not any(call in self._calls for call in behind.calls):
            self._close_late()

    def _close_late(self) -> None:
        if self._behind is not None:
            # In this order: who is interrupted between the two can do it again, and the thread does so.
            self._behind.close()
            self._behind = self._close_at = None
            self._link.wake()

    def _abort(self, cause: CloseCause | None) -> None:
        """End the transport; the lock is held."""
        if self._over:
            return
        self._kept = None
        # In this order: who is interrupted between the two can do it again, and the thread is not left asleep.
        self._link.wake()
        self._session.abort(cause)
        self._end()

    def _end(self) -> None:
        """Note that the transport has ended, and wake everybody; the lock is held. The thread closes the socket.

        It may be called again: Ctrl-C may have interrupted it in the middle.
        """
        self._over = True
        self._behind = self._close_at = None
        connection = self._connection
        self._hand_in()
        self._session.receive_eof()
        if connection.compression is not None:
            connection.compression.close()
        self._pending = False
        self._put_end()
        for condition in (self._writable, self._finished, self._decoded):
            condition.notify_all()
        if self._bridge is not None and self._sink is not None:
            self._bridge.ended(self._sink)

    def _put_end(self) -> None:
        if not self._ended:
            self._ended = True
            self._queue.put(None)

    # --- The session; the lock is held ------------------------------------------------------------------------

    def _now(self) -> float:
        return time.monotonic()

    def _bytes_sent(self) -> int:
        return self._bytes_written

    def _hold(self, size: int) -> int:
        self._put_size += size
        return self._put_size - self._taken_size

    def _put(self, message: str | bytes | Fragment) -> None:
        self._queue.put(message)

    def _is_behind(self) -> bool:
        return self._taken_size != self._put_size or self._packing

    def _read_on(self) -> None:
        self._link.wake()

    def _drained(self, do: Do) -> None:
        self._paused = False
        self._put_end()
        if do is Do.END:
            self._link.end()
            self._sending_ended()
        self._link.wake()

    def _sending_ended(self) -> None:
        """Note that the sending side was ended, or will be once what is unsent is sent."""
        if self._connection.rcvd_then_sent and not self._link.unsent:
            # RFC 6455, 5.5.1: nothing follows the peer's Close frame.
            self._end()
        else:
            self._session.unsent = self._link.unsent
            self._session.sending_ended(time.monotonic())

    def _on_time(self) -> None:
        """Have the session do what is due."""
        deadline = self._deadline()
        if deadline is not None and time.monotonic() >= deadline:
            self._obey(self._tell_time())

    def _count_unsent(self) -> None:
        self._session.sent, self._session.unsent = self._link.sent, self._link.unsent

    def _socket(self) -> Any:
        return self._link.sock

    # --- The thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as exc:
            tell(self.logger.error, "the connection's thread failed", exc_info=exc)
        finally:
            with self._lock:
                self._end()
                self._link.close()

    def _turn(self) -> bool:
        """Wait for something to do, and do it; False once the connection has ended."""
        with self._lock:
            read = not self._paused
            write = self._link.blocked
            broken = self._link.broken is not None
            if broken and not read and not self._waits:
                # The system may have received more than there is room for: give the program time.
                self._waits = True
                self._writable.notify_all()
                self._answered.notify_all()
                self._session.receive_end(time.monotonic())
            deadline = self._deadline()
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = read and (broken or self._pending)
        readable = ready or self._link.wait(read, write, timeout)
        with self._lock:
            if self._over:
                return False
            if write:
                self._sent_more()
            if self._pending and not self._paused:
                # Only part of what one read brought, so that this does not take long; the clock is looked at after each
                # part.
                self._received(b"")
                return True
            if self._link.broken is not None:
                if not self._paused and not self._take_rest():
                    self._connection.lose(self._link.broken)
                    self._end()
                    return False
            elif readable:
                if not self._read():
                    self._end()
                    return False
                if self._session.congested:
                    self._sent_more()  # TLS may have waited for what was read
            self._on_time()
            return not self._over

    def _read(self) -> bool:
        """Take in what has come; False at the end of the connection."""
        try:
            data = self._link.read()
        except OSError as exc:
            tell(self.logger.debug, "connection lost: %r", exc)
            self._connection.lose(exc)
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
        do = self._take_in(data)
        self._pending = self._connection.decoder.pending
        self._waits = False
        self._decoded.notify_all()
        self._obey(do)

    def _sent_more(self) -> None:
        limit = self._limits.write_limit
        self._link.flush()
        if self._session.congested and self._link.unsent * 4 <= limit:
            self._obey(self._session.congest(time.monotonic(), congested=False))
        if self._link.unsent * 4 <= limit:
            self._writable.notify_all()
        if self._link.ended and not self._link.unsent:
            self._sending_ended()


def _address(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except OSError:
        return None
