"""`WebSocket` for trio: what `wsfast.trio.connect` returns, and what handlers of `wsfast.trio.serve` receive.

Three tasks move the bytes of each connection: one receives, one sends, one does what the `Session` says when it is due.
They run in a nursery that the connection was given, and are shielded: cancelling a scope around them must not cut a
frame in two. Whoever gave the nursery ends them by closing the connection, which takes at most `close_timeout`.

Only the sending task writes to the stream. `send` puts a whole message into the encoder in one step, so the message is
sent whole or not at all, whenever the caller is cancelled. `Line` keeps the order of the senders.

trio's `enable_ki_protection` keeps Ctrl-C out of the middle of a step: it is raised at the main task's next checkpoint.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, overload

import trio

from wsfast.assembly import Assembler, PieceCheck, check_pieces, converted, is_whole
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Compression, Connection, Side, State
from wsfast.events import BytesLike, Fragment
from wsfast.exceptions import (
    ONE_RECEIVER,
    ConcurrencyError,
    ConnectionClosedOK,
    InvalidState,
)
from wsfast.extensions import Chain
from wsfast.handshake import Request, Response
from wsfast.session import LINGER, Do, Limits
from wsfast.shell import Pieces, Shell

from ..telling import tell
from .line import Line
from .stream import CHUNK, Transport, close_now, tls_of

if TYPE_CHECKING:
    import ssl

    from wsfast.bus import Position
    from wsfast.topics.part import Part

    from .topics import Bridge, Sink

__all__ = ["Message", "PingWaiter", "WebSocket"]

Message: TypeAlias = str | BytesLike | Iterable[str | BytesLike] | AsyncIterable[str | BytesLike]
"""What `WebSocket.send` takes."""

_PARTING: Final = 0.1
"""Seconds for what is unsent, a Close frame mostly, when the transport is ended at once."""


class PingWaiter:
    """The answer to a ping, to be waited for.

    Attributes:
        latency: seconds of the round trip; None before the pong has come.
    """

    __slots__ = ("_ack_on_close", "_connection", "_event", "latency")

    def __init__(self, connection: Connection, ack_on_close: bool) -> None:
        self._connection = connection
        self._ack_on_close = ack_on_close
        self._event = trio.Event()
        self.latency: float | None = None

    def is_set(self) -> bool:
        """Tell whether the pong has come, or, with `ack_on_close`, the connection has ended."""
        return self.latency is not None or (self._ack_on_close and self._event.is_set())

    async def wait(self) -> None:
        """Wait for the pong.

        Raises:
            ConnectionClosed: the connection ended first, and `ack_on_close` is not set.
        """
        await self._event.wait()
        if not self.is_set():
            raise self._connection.closed_error()

    def _done(self, latency: float | None) -> None:
        """Note the pong, or, by None, that the connection has ended before it."""
        self.latency = latency
        self._event.set()


class WebSocket(Shell):
    """One WebSocket connection, for trio.

    Iterate over it for messages, or call `recv`; `str` is a text message, `bytes` a binary one::

        async with wsfast.trio.connect("ws://localhost:8765") as ws:
            await ws.send("hello")
            async for message in ws:
                print(message)

    The iteration ends when the connection is closed with 1000, 1001 or no code, and raises `ConnectionClosedError` when
    it ends otherwise. Every method that is awaited is a checkpoint, and can be cancelled without harm to the
    connection.

    Attributes:
        request: the opening handshake's `Request`.
        response: the opening handshake's `Response`; None in a server's hooks.
        subprotocol: the name that was agreed on, or None.
        username: who the client is, where a server's hook found out; else None.
        logger: where the connection logs to.
    """

    def __init__(
        self,
        transport: Transport,
        limits: Limits,
        *,
        stream: trio.abc.Stream | None = None,
        request: Request,
        logger: logging.Logger | logging.LoggerAdapter[Any],
    ) -> None:
        super().__init__(limits, request, logger, (transport.address("getpeername"), transport.address("getsockname")))
        self._transport = transport
        self._stream: trio.abc.Stream = transport if stream is None else stream  # with TLS, if there is any
        # Who waits, and for what: a message or the end, room to send, bytes to send, reading to go on.
        self._receivers, self._senders = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._writer, self._reader = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()
        self._finished = trio.Event()  # the stream is closed
        self._line = Line(self)  # whose turn it is to send
        self._sender: trio.lowlevel.Task | None = None  # who has it, for a message in fragments
        self._workers = trio.CancelScope()
        self._writing = trio.CancelScope()
        self._timer = trio.CancelScope()
        self._queue: deque[str | bytes | Fragment] = deque()
        self._held = 0  # bytes in the queue
        self._receiving = False  # a task is, or `recv_streaming` is in the middle of a message
        self._assembler = Assembler()
        self._written = 0  # bytes that the stream has taken
        self._unwritten = 0  # bytes that were taken out of the encoder, and not taken by the stream
        self._full = False  # more than `write_limit` was unsent, and not little is yet
        self._broken = False  # writing has failed
        self._no_more = False  # no message follows those in the queue
        self._ending = False  # this side is to end the transport, once all is sent
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
        """Go on as an open connection; the caller then has `_work` run.

        Args:
            side: which end this is.
            response: the one that ended the opening handshake.
            subprotocol: the name that was agreed on, or None.
            compression: what permessage-deflate negotiated, or a `Chain` of extensions, or None.
            trailing: the bytes that came behind the opening handshake.
        """
        self._begin(side, response, subprotocol, compression)
        if self._bridge is not None:
            self._sink = self._bridge.sink(self)
        if trailing:
            self._received(trailing)

    # --- What it is ---------------------------------------------------------------------------------------

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS of the connection: it has `version`, `cipher`, and `getpeercert`; None without TLS.

        It is there in a server's hooks too.
        """
        return tls_of(self._stream)

    @property
    def buffered_amount(self) -> int:
        """Bytes that were sent by this program and not yet taken by the operating system."""
        return self._unwritten + len(self._connection.encoder) if self._opened else 0

    # --- Receiving ----------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        """Iterate over messages until the connection is closed."""
        return self

    async def __anext__(self) -> str | bytes:
        """Receive the next message.

        Raises:
            StopAsyncIteration: the connection was closed with 1000, 1001 or no code.
            ConnectionClosedError: it was closed otherwise.
            ConcurrencyError: another task receives.
        """
        try:
            return await self.recv()
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    @overload
    async def recv(self, decode: Literal[True]) -> str: ...

    @overload
    async def recv(self, decode: Literal[False]) -> bytes: ...

    @overload
    async def recv(self, decode: bool | None = None) -> str | bytes: ...

    @trio.lowlevel.enable_ki_protection
    async def recv(self, decode: bool | None = None) -> str | bytes:
        """Receive the next message.

        If it is cancelled no message is lost: the next call returns it.

        Args:
            decode: None, the default, for `str` from a text message and `bytes` from a binary one; True for `str`,
                False for `bytes` always.

        Raises:
            ConnectionClosed: the connection is closed, and no message is left.
            ConcurrencyError: another task receives.
            UnicodeDecodeError: `decode` is True and the message is not UTF-8.
        """
        self._connection  # noqa: B018 - raises if it is not open yet
        await trio.lowlevel.checkpoint()
        self._check_receiver("recv")
        self._receiving = True
        try:
            while True:
                event = await self._next()
                # The message began to arrive in pieces, for a `recv_streaming` that never got them, or gave them up.
                message = self._assembler.add(event) if isinstance(event, Fragment) else event
                if message is not None:
                    return converted(message, decode)
        finally:
            self._receiving = False

    def _check_receiver(self, call: str) -> None:
        if self._receiving:
            raise ConcurrencyError(ONE_RECEIVER.format(call))

    @trio.lowlevel.enable_ki_protection
    async def _next(self) -> str | bytes | Fragment:
        """Wait for the next item in the queue and take it, without a checkpoint after the wait."""
        self._owing_since = None
        while not self._queue:
            self._obey(self._hand_in())
            if self._no_more:
                raise self._connection.closed_error()
            await self._receivers.park()
        event = self._queue.popleft()
        self._owing_since = self._now()
        self._held -= self._marks.weight(event)
        if self._paused and self._held <= self._marks.low:
            self._unpause()
        return event

    @overload
    def recv_streaming(self, decode: Literal[True]) -> AsyncIterator[str]: ...

    @overload
    def recv_streaming(self, decode: Literal[False]) -> AsyncIterator[bytes]: ...

    @overload
    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]: ...

    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]:
        """Receive one message in pieces, as they arrive, so that it need not fit into memory.

        Each piece is what has just arrived, whatever the sender's frames were. If the iterator is given up before the
        end of the message, or cancelled within it, the rest of the message is dropped. `max_size` limits the whole
        message here too.

        Args:
            decode: None, the default, for `str` from a text message and `bytes` from a binary one; True for `str`,
                False for `bytes` always.

        Raises:
            ConnectionClosed: the connection ended before the message or within it.
            ConcurrencyError: another task receives, or another iteration is not finished.
            UnicodeDecodeError: `decode` is True and the message is not UTF-8.
        """
        self._connection  # noqa: B018 - raises if it is not open yet
        return Pieces(self._begin_streaming, self._next_piece, self._end_streaming, decode)

    def _begin_streaming(self) -> None:
        self._check_receiver("recv_streaming")
        self._receiving = True
        self._connection.decoder.streaming = True
        self._show_held()

    def _show_held(self) -> None:
        """Deliver, in streaming mode, what has come of a message already: its sender may wait for a reaction."""
        if self._connection.decoder.held and not self._over:
            self._received(b"")

    @trio.lowlevel.enable_ki_protection
    async def _next_piece(self) -> str | bytes | Fragment:
        await trio.lowlevel.checkpoint()
        if self._assembler.holding:
            return self._assembler.take()
        while True:
            event = await self._next()
            if not isinstance(event, Fragment) or not self._assembler.skipping:
                return event
            self._assembler.add(event)

    def _end_streaming(self, skip: bool) -> None:
        if skip:
            self._assembler.skip()
        self._receiving = False
        self._connection.decoder.streaming = False

    # --- Sending ------------------------------------------------------------------------------------------

    async def send(self, message: Message, text: bool | None = None, *, compress: bool | None = None) -> None:
        """Send a message, after waiting while more than `write_limit` bytes are unsent.

        If it is cancelled, nothing of the message is sent; if it returns, all of it will be. The exception is a message
        in fragments that has begun: it can neither be finished nor taken back, so the connection is closed with 1011.

        Args:
            message: `str` for a text message, bytes-like for a binary one, or an iterable or asynchronous iterable of
                either, whose items are sent as the fragments of one message; other tasks that send wait for its end.
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
            compress: whether to compress the message, where compression was agreed on; None, the default, decides by
                its size.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: the iterable sends to the same connection.
            TypeError: the message is of another type, or of several.
            UnicodeError: the message is not text.
        """
        self._connection  # noqa: B018 - raises if it is not open yet
        check_pieces(message)
        pieces = message if isinstance(message, AsyncIterable) else None if is_whole(message) else _Each(message)  # type: ignore[arg-type]
        if self._sender is trio.lowlevel.current_task():
            raise ConcurrencyError("send() was called by the iterable whose items are being sent")
        if pieces is None:
            if await self._line.send(partial(self._send_whole, message, text, compress)):  # type: ignore[arg-type]
                return
        else:
            async with self._line.turn() as mine:
                if mine:
                    self._settle_gathered()  # ahead of the message, and not held until its end
                    self._sender = trio.lowlevel.current_task()
                    try:
                        await self._send_fragments(pieces, text, compress)
                    finally:
                        self._sender = None
                    return
        await self._check_open()

    @trio.lowlevel.enable_ki_protection
    def _send_whole(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> Literal[True]:
        self._settle_gathered()
        self._connection.send_message(message, text=text, compress=compress)
        self._messages_sent += 1
        self._flush()
        return True

    async def _check_open(self) -> None:
        """Return if the connection is open.

        Raises:
            ConnectionClosed: it is not. On one that is closing this waits for the end, to tell how it was.
        """
        if self._connection.state is not State.OPEN:
            await trio.lowlevel.checkpoint()
            await self._wait_for_end()
            error = self._connection.closed_error()
            raise error from error.__cause__

    async def _send_fragments(
        self, pieces: AsyncIterable[str | BytesLike], text: bool | None, compress: bool | None
    ) -> None:
        connection = self._connection
        check = PieceCheck()
        try:
            async for piece in pieces:
                check(piece)
                await self._check_open()
                # At once, as the next piece may be long in coming; so an empty fragment ends the message.
                connection.send_fragment(piece, False, text=text, compress=compress)
                self._flush()
                await self._wait_for_room()
            if check.kind is not None:
                await self._check_open()
                connection.send_fragment(check.kind(), True, text=text, compress=compress)
                self._messages_sent += 1
                self._flush()
        except BaseException:
            # A message that was begun can neither be finished nor taken back (RFC 6455, 5.4).
            if connection.in_message:
                self._start_close(*self._unfinished, at_once=True)
            raise
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()  # it may be left in the middle, and nobody else has it

    async def _wait_for_room(self) -> None:
        """Wait until less than a quarter of `write_limit` is unsent, if more than all of it is."""
        while (self._full or self._broken) and self._connection.state is State.OPEN:
            # Where writing has failed, the peer's Close frame may tell why; it is looked for until the end.
            await self._senders.park()

    async def _wait_for_end(self) -> None:
        """Wait for the end of a connection that is closing: only then it is known how it ended."""
        while self._connection.state is State.CLOSING and not self._over:
            await self._senders.park()

    def _flush(self) -> None:
        """Wake the sending task, to send what the encoder holds."""
        if not len(self._connection.encoder):
            return
        self._count()
        self._writer.unpark_all()

    def _count(self) -> None:
        """Note how much is unsent."""
        limit = self._limits.write_limit
        unsent = self.buffered_amount
        if unsent > limit:
            if not self._full:
                self._full = True
                self._session.congest(trio.current_time())
                self._reschedule()
        elif self._full and unsent * 4 <= limit:
            self._full = False
            self._session.congest(trio.current_time(), congested=False)  # the writer is at work, and sends the pong
            self._senders.unpark_all()
            self._line.go_on()

    @trio.lowlevel.enable_ki_protection
    async def ping(self, data: str | BytesLike | None = None, *, ack_on_close: bool = False) -> PingWaiter:
        """Send a Ping frame.

        Args:
            data: at most 125 bytes; None, the default, for random ones.
            ack_on_close: let the waiter's `wait` return, not raise, when the connection ends first. Default: False.

        Returns:
            A waiter: ``await (await ws.ping()).wait()`` waits for the pong; then its `latency` is the round trip in
            seconds. It can be left alone.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a ping with the same data is unanswered.
            InvalidState: 64 pings are unanswered.
            ValueError: `data` is too long.
        """
        connection = self._connection
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._check_open()
        try:
            waiter = PingWaiter(connection, ack_on_close)
            self._obey(self._session.ping(trio.current_time(), data, waiter._done))
            return waiter
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def pong(self, data: str | BytesLike = b"") -> None:
        """Send an unsolicited Pong frame: a heartbeat that asks for no answer (RFC 6455, 5.5.3).

        Raises:
            ConnectionClosed: the connection is closed.
            ValueError: `data` has more than 125 bytes.
        """
        connection = self._connection
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._check_open()
        try:
            connection.send_pong(data.encode() if isinstance(data, str) else data)
            self._flush()
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()

    # --- Topics -------------------------------------------------------------------------------------------

    def subscribe(self, topic: str, *, info: str | None = None) -> Awaitable[None]:
        """Subscribe to a topic: what is published to it from now on is sent to the peer, until the connection ends.

        Without effect if the connection has subscribed already.

        Args:
            topic: 1 to 200 of ``A-Z a-z 0-9 _ . : @ / -``.
            info: what others learn of this connection, in a topic with presence; at most 1024 bytes in UTF-8. Default:
                none.

        Returns:
            An awaitable, which need not be awaited. It is done when the subscription holds in other threads and
            processes too.

        Raises:
            ValueError, TypeError: `topic` is not a valid name, or `info` is not valid.
            NotAuthorized: the hook `authorize` does not allow it.
            TooManySubscriptions: a limit of `Topics` is reached.
            ConnectionClosed: the connection is closed.
            InvalidState: its server has no topics, or they are closed; or `recover` is about to subscribe it to this.
            BusUnavailable: by the awaitable: other processes cannot be reached; this process' messages are sent.
        """
        return self._topics_part().subscribe(self, topic, info)

    def unsubscribe(self, topic: str) -> bool:
        """Unsubscribe from a topic; return False if there was no subscription. What was published before is sent."""
        return self._topics_part().unsubscribe(self, topic)

    async def recover(self, topic: str, since: Position | str | None, *, info: str | None = None) -> int:
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
        part = self._topics_part()
        return await part.recover(self, topic, part.hub.checked_since(topic, since), info)

    def publish(
        self,
        topic: str,
        message: str | BytesLike,
        *,
        key: str | None = None,
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Awaitable[Position | None]:
        """Send a message to all others who subscribed to a topic; `Topics.publish` has arguments and errors.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            InvalidState: its server has no topics, or they are closed.
        """
        part = self._topics_part()
        sink = self._open_channel()
        if sink.connection.state is not State.OPEN:
            raise sink.connection.closed_error()
        return part.hub.publish(topic, message, key, text, compress, sink.member, part)

    @property
    def topics(self) -> set[str]:
        """The topics that this connection has subscribed to, as a new set."""
        return set() if self._sink is None or self._sink.member is None else set(self._sink.member.topics)

    def _topics_part(self) -> Part:
        if self._bridge is None:
            raise InvalidState("the connection's server has no topics: give it some, serve(topics=wsfast.Topics())")
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError("a connection can be used in the thread of its trio.run() only: use trio.from_thread")
        return self._bridge.part()

    def _open_channel(self) -> Sink:
        """Return what the topics know of the connection."""
        if self._sink is None:
            self._connection  # noqa: B018 - raises if it is not open yet
            raise InvalidState("the connection has no topics")
        return self._sink

    def _settle_gathered(self) -> None:
        if self._sink is not None:
            self._sink.settle_gathered()

    # --- Closing ------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def _start_close(self, code: int, reason: str, cause: CloseCause, *, at_once: bool = False) -> None:
        if self._opened:
            self._settle_gathered()
        super()._start_close(code, reason, cause, at_once=at_once)

    def _put_off(self, close: Callable[[], None], at: float | None) -> bool:
        behind = self._line.put_off(close, at)
        if behind:
            self._reschedule()
        return behind

    def _close_late(self) -> None:
        self._line.close_late()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection with the closing handshake and wait for its end, for about `close_timeout` at most.

        Messages for which other tasks called `send` before go out first. A message in fragments has half of
        `close_timeout` to end, and is then cut off, since its next piece may never come.

        On a connection that is closed or closing already it only waits. What the peer sent before its own
        Close frame can still be received afterwards, up to `read_limit`. Closing begins before the first checkpoint: if
        the call is cancelled, the connection goes on closing.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 for a Close frame without a code. Default: 1000.
            reason: at most 123 bytes in UTF-8. Default: none.

        Raises:
            ValueError, TypeError: another code, or a reason that is too long.
        """
        self._start_close(code, reason, CloseCause.LOCAL)
        await self._finished.wait()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, whoever ends it."""
        self._connection  # noqa: B018 - raises if it is not open yet
        await self._finished.wait()

    def abort(self) -> None:
        """Drop the connection at once, without a closing handshake; what is unsent is lost.

        Raises:
            RuntimeError: this is another thread than trio's; ``trio.from_thread.run_sync(ws.abort)`` is the way there.
        """
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError("a connection can be used in the thread of its trio.run() only: use trio.from_thread")
        self._abort(CloseCause.LOCAL)

    async def _leave(self, code: int, cause: CloseCause) -> None:
        """Close, because no task will receive any more, and wait for the end, which comes even if this is cancelled."""
        self._start_close(code, "", cause)
        self._discard()
        try:
            await self._finished.wait()
        except BaseException:
            timeout = self._limits.close_timeout
            with trio.move_on_after(LINGER if timeout is None else timeout, shield=True):
                await self._finished.wait()
            if not self._finished.is_set():
                self._abort(cause)
                with trio.CancelScope(shield=True):
                    await self._finished.wait()
            raise

    def _abort(self, cause: CloseCause) -> None:
        self._kept = None
        if not self._over:
            self._session.abort(cause)
            self._end()
        self._workers.cancel()

    def _never_ran(self) -> None:
        """End a connection that was opened but has no tasks, because the response could not be sent."""
        self._abort(CloseCause.LOST)
        self._finished.set()

    def _end(self, patience: float = _PARTING) -> None:
        """Note that the transport has ended, or has to, and wake everybody; unsent bytes get `patience` seconds."""
        if self._over:
            return
        connection = self._connection
        self._obey(self._hand_in())
        self._over = True
        if self._sink is not None:
            self._sink.leave()
        self._session.receive_eof()
        if connection.compression is not None:
            connection.compression.close()
        self._put_end()
        self._senders.unpark_all()
        self._line.end()
        self._reader.unpark_all()
        self._writer.unpark_all()
        self._writing.deadline = trio.current_time() + patience

    def _put_end(self) -> None:
        self._no_more = True
        self._receivers.unpark_all()

    # --- The session ------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return trio.current_time()

    def _bytes_sent(self) -> int:
        return self._written + self.buffered_amount

    def _hold(self, size: int) -> int:
        self._held += size
        return self._held

    def _put(self, message: str | bytes | Fragment) -> None:
        self._queue.append(message)
        self._receivers.unpark_all()

    def _is_behind(self) -> bool:
        return bool(self._queue)

    def _read_on(self) -> None:
        self._reader.unpark_all()

    def _drained(self, do: Do) -> None:
        self._put_end()
        self._senders.unpark_all()
        self._line.end()
        if self._paused:
            self._unpause()
        if do is Do.END:
            self._ending = True
            self._writer.unpark_all()

    def _reschedule(self) -> None:
        deadline = self._deadline()
        self._timer.deadline = inf if deadline is None else deadline

    def _received(self, data: bytes | bytearray) -> None:
        self._obey(self._take_in(data))

    # --- The tasks --------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _work(self) -> None:
        """Move the bytes until the connection has ended; it raises nothing, and cannot be cancelled."""
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    self._workers = nursery.cancel_scope
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._keep_time)
                    await self._write()
                    nursery.cancel_scope.cancel()
                if self._ending and not self._over:
                    await self._part()
            except Exception as exc:
                tell(self.logger.error, "the connection's task failed", exc_info=exc)
            finally:
                self._end()
                await close_now(self._stream)
                self._finished.set()

    async def _work_guarded(self) -> None:
        """Do the work of `_work` in a nursery of somebody else's: if that is cancelled, the connection is closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work)
            try:
                await self._finished.wait()
            except trio.Cancelled:
                await self._leave(CloseCode.GOING_AWAY, CloseCause.LOCAL)
                raise

    @trio.lowlevel.enable_ki_protection
    async def _read(self) -> None:
        connection = self._connection
        try:
            while not self._over:
                if self._paused:
                    await self._reader.park()
                elif connection.decoder.pending:
                    # Of what one read brought; others have a turn in between.
                    self._received(b"")
                    await trio.lowlevel.checkpoint()
                else:
                    data = await self._stream.receive_some(CHUNK)
                    if not data:
                        break
                    self._received(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            tell(self.logger.debug, "connection lost: %r", exc.__cause__ or exc)
            self._connection.lose(exc)
            self._end()
        else:
            # The peer has ended its sending side: it may still take what is unsent.
            now = trio.current_time()
            self._session.receive_end(now)
            self._end(max((self._session.drop_at or now + LINGER) - now, _PARTING))

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        encoder = self._connection.encoder
        with self._writing:
            while True:
                if len(encoder):
                    data = memoryview(encoder.take())
                    self._unwritten = len(data)
                    try:
                        while data:
                            await self._stream.send_all(data[:CHUNK])
                            self._written += len(data[:CHUNK])
                            data = data[CHUNK:]
                            self._unwritten = len(data)
                            self._count()
                    except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                        self._connection.lose(exc)
                        break
                elif self._over or self._ending:
                    return
                else:
                    await self._writer.park()
        if not self._over:
            # A Close frame may have come that tells why: it is read as far as there is something, but not for ever.
            self._broken = True
            self._session.receive_end(trio.current_time())
            self._reschedule()
            while not (self._over or self._ending):
                await self._writer.park()

    @trio.lowlevel.enable_ki_protection
    async def _keep_time(self) -> None:
        while not self._over:
            with trio.CancelScope() as self._timer:
                self._reschedule()
                await trio.sleep_forever()
            self._obey(self._tell_time())

    def _count_unsent(self) -> None:
        """Tell the session what was sent, and what of it the stream has not taken."""
        self._session.unsent = self._unwritten
        self._session.sent = self._written + self._unwritten

    def _socket(self) -> Any:
        return self._transport.sock

    async def _part(self) -> None:
        """End the transport, which is this side's duty."""
        session = self._session
        now = trio.current_time()
        session.unsent = 0
        session.sending_ended(now)
        # RFC 6455, 5.5.1: nothing follows the peer's Close frame.
        self._transport.linger = not self._connection.rcvd_then_sent
        with trio.CancelScope(deadline=now + LINGER if session.deadline is None else session.deadline) as self._workers:
            try:
                await self._stream.aclose()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                tell(self.logger.debug, "the connection did not end well: %r", exc)


class _Each:
    """The items of an iterable, as an asynchronous iterator: not a generator, since that would have to be closed."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[str | BytesLike]) -> None:
        self._items = iter(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | BytesLike:
        for item in self._items:
            return item
        raise StopAsyncIteration
