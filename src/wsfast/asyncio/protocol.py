"""The asyncio protocol of a connection: it moves bytes, obeys the `Session`, and applies backpressure.

`ConnectionProtocol` serves a connection after its opening handshake, on either side. Its base class, `Channel`, moves
the messages; nothing here runs for each message. `connection` decides what a frame means, `session` when something has
to happen, and `outbox` in which order tasks send.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..closing import encode_close
from ..codec import IMPLEMENTATION
from ..codes import NO_CLOSE, CloseCause, CloseCode
from ..connection import Side, State
from ..events import BytesLike, Close, Event, Fragment
from ..exceptions import ENDS_PROGRAM, BufferFull, ConcurrencyError, ConnectionClosed, PeerError, is_only
from ..extensions import Chain
from ..session import Do, Limits, Session
from ..telling import tell
from ..transport.loops import PerLoop
from ..transport.timers import CoarseTimer
from ..transport.unacknowledged import unsent_by
from .channel import PAUSED_HELD, PAUSED_WRITING, Channel, Turn
from .fragments import Fragments
from .outbox import Outbox, Waiters, size_of
from .room import Room

if TYPE_CHECKING:
    from ..deflate import PerMessageDeflate
    from .listener import Listener
    from .streams import Reader
    from .websocket import WebSocket

__all__ = ["ConnectionProtocol", "Host", "Opening", "turn_of"]

_RECEIVE_SIZE: Final = 65536 + 64 if IMPLEMENTATION == "cython" else 16384
"""Bytes that the codec handles in a few milliseconds; in Cython, a message of 64 KiB and its head fit into one read."""
_LARGE_PACKED: Final = 65536
"""Bytes of a message whose compression fills a turn."""


# As globals: to get a member from its class takes CPython 3.11 some 900 instructions.
_CLOSING: Final = State.CLOSING
_DRAINING: Final = State.DRAINING
_OPEN: Final = State.OPEN
_DROP: Final = Do.DROP
_END: Final = Do.END
_FLUSH: Final = Do.FLUSH
_NOTHING: Final = Do.NOTHING
_SETTLE: Final = Do.SETTLE


class Host(Protocol):
    """What a connection needs of its server or client."""

    limits: Limits
    logger: logging.Logger
    timer: CoarseTimer

    def _connection_opened(self, protocol: ConnectionProtocol) -> None: ...

    def _connection_closed(self, protocol: ConnectionProtocol) -> None: ...


class Opening(Protocol):
    """Handles the transport's callbacks until the connection is open."""

    def connection_made(self, transport: asyncio.BaseTransport, protocol: ConnectionProtocol, /) -> None: ...

    def data_received(self, data: bytes, /) -> None: ...

    def connection_lost(self, exc: Exception | None, /) -> None: ...


_turns = PerLoop(lambda loop: Turn(loop, memoryview(bytearray(_RECEIVE_SIZE))))
turn_of: Callable[[asyncio.AbstractEventLoop], Turn] = _turns.of
"""Return what the connections of a loop share: the receive buffer, and the list of those with frames to write."""


class ConnectionProtocol(Channel, asyncio.BufferedProtocol):
    """One connection on asyncio.

    Args:
        turn: what the connections of its event loop share, by `turn_of`.
        opening: what handles the transport's callbacks until `open` is called; None if it is called at once. One
            protocol for both halves of a connection's life saves the time of making and setting another.

    Attributes:
        session: how the connection behaves in time. It and the attributes below exist from `open` on.
        host: the server or client that it belongs to.
        ws: what the handler holds.
        listener: the `Listener` that is called, in the callback form; else, and after the end, None.
        reader: the byte-stream view, if the connection was opened for it; else None.
        task: the one that runs the handler; the server sets it.
        due: when the timer calls `on_deadline`; the timer sets it.
    """

    __slots__ = (
        "_end",
        "_fragments",
        "_outbox",
        "_room",
        "_scheduled",
        "cut",
        "due",
        "host",
        "listener",
        "reader",
        "session",
        "task",
        "ws",
    )

    def __init__(self, turn: Turn, opening: Opening | None = None) -> None:
        self.begin(turn, opening)
        self.listener: Listener | None = None
        self.cut: bool = False  # the program has ended the sending side of the transport by itself

    def open(
        self,
        host: Host,
        side: Side,
        ws: WebSocket,
        transport: asyncio.Transport,
        compression: PerMessageDeflate | Chain | None = None,
        head: bytes | None = None,
    ) -> None:
        """Go on as an open connection.

        Args:
            host: the server or client that it belongs to.
            side: which end of the connection this is.
            ws: what the handler holds.
            transport: the asyncio transport, on which this protocol is or will be set.
            compression: what permessage-deflate negotiated, or a `Chain` of extensions, or None.
            head: the response that ends the opening handshake, to be sent first; None if it is not for this side.
        """
        limits = host.limits
        session = Session(
            side,
            limits,
            monotonic(),
            compression=compression,
            buffer=self.turn.buffer,
            connection_type=ws.connection_type,
        )
        self.attach(
            session.connection,
            transport,
            limits.read_limit,
            limits.max_buffered,
            limits.write_limit,
        )
        self.session: Session = session
        self.host: Host = host
        self.ws: WebSocket = ws
        self.due: float = 0.0
        self.reader: Reader | None = None
        self.task: asyncio.Task[Any] | None = None
        self._scheduled: float | None = None  # the session's deadline that the timer knows
        # Made when they are needed; an idle connection has none of them.
        self._outbox: Outbox | None = None
        self._room: Room | None = None
        self._fragments: Fragments | None = None
        self._end: Waiters | None = None
        self.derive()
        transport.set_write_buffer_limits(limits.write_limit)
        if head is not None:
            self.write_head(head)
        if isinstance(compression, Chain):
            compression = compression.compression
        if compression is not None:
            if limits.compression is not None and limits.compression.executor_threshold is not None:
                self.thread_size: int = limits.compression.executor_threshold
            if compression.parameters.idle is not None:
                sweeper = host.timer.sweeper(compression.parameters.idle)
                compression.watched = sweeper.busy
                sweeper.enter()
        host._connection_opened(self)
        self._scheduled = session.deadline
        if limits.ping_interval is not None:  # the only deadline of a connection that has just opened
            host.timer.set(self, limits.ping_interval)
        ws._open(self)

    def use_listener(self, listener: Listener) -> None:
        """Call a listener for what happens, instead of queueing messages for `recv`."""
        self.consume(listener.on_message)
        self.listener = listener
        listener.on_open()

    def handler_done(self, task: asyncio.Task[Any]) -> None:
        """Called by the event loop when the task that runs the handler has ended; only servers have one."""
        # By way of the connection: a `partial` of the server's method would be kept by each task, of 190 bytes.
        self.host._handler_done(self, task)  # type: ignore[attr-defined]

    # --- The session ------------------------------------------------------------------------------------------

    def derive(self) -> None:
        """Derive the hot path's flags from state, transport, outbox and compression; called when one changes."""
        outbox = self._outbox
        self.derive_flags(self.cut or (outbox is not None and outbox.busy))

    def sending_ended(self) -> None:
        """Note that the sending side of the transport was ended; the transport calls it."""
        if self.connection is not None and self.connection.state is _OPEN:
            # Not by this connection: what is sent from now on would be lost.
            self.cut = True
            self.derive()

    def check_sending(self) -> None:
        """Drop the connection if the program has ended the sending side of its transport, since it sends now.

        Raises:
            ConnectionClosed: it has.
        """
        if self.cut and self.connection.state is _OPEN:
            self.abort(CloseCause.LOCAL, RuntimeError("Cannot call write() after write_eof()"))
            raise self.connection.closed_error()

    def obey(self, do: Do) -> None:
        """Do what the session says."""
        if do is _FLUSH:
            self.written()
        elif do is _SETTLE:
            self._end_grace()
        elif do is _DROP:
            if self.transport is not None:
                self.transport.abort()
        elif do is not _NOTHING:
            self._drained(do)
        self._schedule()

    def _schedule(self) -> None:
        """Have the timer call `on_deadline` when the session wants it."""
        deadline = self.session.deadline
        if deadline is self._scheduled or self.transport is None:
            return
        self._scheduled = deadline
        if deadline is None:
            self.host.timer.clear(self)
        else:
            self.host.timer.set(self, max(0.0, deadline - monotonic()))

    def on_deadline(self) -> None:
        """Called by the timer when the session's deadline has come."""
        session, transport = self.session, self.transport
        self._scheduled = None
        if transport is None:
            return
        if self.connection.state is _OPEN and transport.is_closing():
            self.abort(CloseCause.LOST)
            return
        session.received = self.bytes_received
        self._count_unsent()
        # Silence is not the peer's fault while this side has paused reading, unless it paused because the peer does not
        # take what is sent.
        session.deaf = bool(self.paused & ~PAUSED_WRITING) and not self.write_paused
        do = session.on_time(monotonic())
        if do is _DROP:
            self.flush()  # a Close frame that says why, if the peer still takes it
        self.obey(do)
        if session.moving and self.paused & PAUSED_WRITING:
            session.moving = False
            self.room.read_on()

    def _count_unsent(self) -> None:
        """Tell the session what was sent, and what of it the peer has not taken."""
        transport = self.transport
        if transport is not None:
            self.session.sent = self.bytes_sent
            self.session.unsent = unsent_by(transport)

    def handle_event(self, event: Event) -> None:
        """Do what an event of the decoder other than a message asks for."""
        if isinstance(event, Close) and self._outbox is not None and self._outbox.keep(event):
            self.session.keep_back(monotonic())
            self._schedule()
            return
        if self.write_paused:
            self._count_unsent()
        self.obey(self.session.handle(event, monotonic()))

    def is_terminal(self, event: Event) -> bool:
        """Tell whether an event ends what the peer may send, so that the messages before it are answered first."""
        # A listener has answered already, and while this side closes nothing can be answered.
        return self.listener is None and self.connection.state is _OPEN and isinstance(event, (Close, PeerError))

    def settle_later(self) -> None:
        """Keep a Close frame or a failure back until the messages before it are answered, but not for long."""
        # A handler that took the latest message a while ago, and did not ask for more, only sends: no answer is coming.
        unread = self.held or self.reader is not None
        if self.session.keep_back(monotonic(), 0.0 if unread else self.owed_for()) is _SETTLE:
            self.settle()
        self._schedule()

    def _settle_all(self) -> None:
        """Handle what was kept back, even while a thread compresses a message, which is then not sent."""
        self.settle()
        if self._outbox is not None:
            self._outbox.hand_in()

    def _end_grace(self) -> None:
        """Stop waiting for the consumer, which has neither answered nor taken the messages."""
        self._settle_all()
        if self.paused & PAUSED_HELD and self.connection.state is _CLOSING:
            # The peer's Close frame comes after messages for which there is no room.
            self.receiving = False
            self.unpause(PAUSED_HELD)

    def start_close(self, code: int | None, reason: str, cause: CloseCause) -> None:
        """Start the closing handshake; without effect once the connection is closing.

        While a thread compresses a message, it starts behind that one: see `Outbox.put_off`.

        Raises:
            ValueError, TypeError: those of `encode_close`.
        """
        # A Close frame that was held back is handled first: then we are closing already, and this call does nothing.
        self.settle()
        if self.gated and self.connection.state is _OPEN:
            encode_close(code, reason)  # raises now, if it does
            if self.outbox.put_off(partial(self._close_now, code, reason, cause, since=monotonic())):
                return
        self._close_now(code, reason, cause)

    def _close_now(self, code: int | None, reason: str, cause: CloseCause, *, since: float | None = None) -> None:
        """Start the closing handshake now; a message that a thread still compresses is lost."""
        self.settle_gathered()
        do = self.session.close(monotonic(), code, reason, cause, since=since)
        if do is _NOTHING:
            return
        self.derive()
        self.unpause(PAUSED_WRITING)
        if self.paused & PAUSED_HELD:
            self.session.keep_back(monotonic())
        self.obey(do)

    def _drained(self, do: Do) -> None:
        """Wake all waiting tasks, as no frames follow either way; end the transport if that is this side's duty."""
        self.derive()
        if do is _END:
            self._end_transport()
        else:
            self.written()
        if self.reader is not None:
            self.reader.end()
        self.wake_receiver()

    def _end_transport(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not self.connection.rcvd_then_sent:
            self.flush()
        elif self.flush_last():
            # RFC 6455, 5.5.1: nothing follows the peer's Close frame.
            transport.close()
            if not transport.get_write_buffer_size():
                self.session.drop_at = None  # it ends in the next turn, whatever the peer does
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
        self.session.unsent = transport.get_write_buffer_size()
        self.session.sending_ended(monotonic())

    def abort(self, cause: CloseCause | None, exc: BaseException | None = None) -> None:
        """End the transport at once; the cause is None if it is known already, `exc` is what has failed."""
        do = self.session.abort(cause, exc)
        self.derive()
        self.obey(do)

    async def wait_closed(self) -> None:
        """Wait for the end of the connection."""
        if self.transport is None:
            return
        if self._end is None:
            self._end = Waiters()
        await self._end.wait()

    # --- Errors -----------------------------------------------------------------------------------------------

    def consumer_failed(self, exc: BaseException) -> None:
        """Close with 1011 because a listener's method, or a handler, raised; log it once."""
        if self.connection.state is not _OPEN and is_only(exc, (ConnectionClosed, asyncio.IncompleteReadError)):
            return
        if not isinstance(exc, ENDS_PROGRAM):
            tell(self.host.logger.error, "handler for subprotocol %r raised", self.ws.subprotocol, exc_info=exc)
        self.start_close(CloseCode.INTERNAL_ERROR, "", CloseCause.HANDLER_ERROR)
        self.discard()

    def transport_failed(self, exc: BaseException) -> None:
        """Drop the connection because its transport, or the code behind it, raised, which neither may do."""
        self.abort(CloseCause.LOST, exc)
        tell(self.host.logger.debug, "connection dropped: %r", exc)

    # --- Messages in pieces -------------------------------------------------------------------------------------

    @property
    def fragments(self) -> Fragments:
        """What becomes of messages that come in pieces; made on first use."""
        if self._fragments is None:
            self._fragments = Fragments(self)
        return self._fragments

    def handle_fragment(self, event: Fragment) -> object | None:
        """Return the part of a piece of a message that is for the queue, or None."""
        return self.fragments.add(event)

    # --- Sending ------------------------------------------------------------------------------------------------

    @property
    def outbox(self) -> Outbox:
        """Orders the tasks whose sending takes several steps, or has to wait; made on first use."""
        if self._outbox is None:
            self._outbox = Outbox(self)
        return self._outbox

    @property
    def room(self) -> Room:
        """Tells the listener that it may send again; made on first use."""
        if self._room is None:
            self._room = Room(self)
        return self._room

    @property
    def gated(self) -> bool:
        """Whether a call of `send` is at work on a message in several steps; `Outbox.turn` waits for its end."""
        return self._outbox is not None and self._outbox.busy

    @property
    def is_sending(self) -> bool:
        """Whether a message that takes several steps is under way, so that no other may come in between."""
        outbox = self._outbox  # as `gated`, of which each message to a peer that is behind would need a call
        return (outbox is not None and outbox.busy) or self.connection.in_message

    def send_rare(self, data: str | BytesLike) -> None:
        """Send a message at once in the cases that the hot path leaves: compression, another message, or not open."""
        self.check_sending()
        if self.gated and not self.connection.in_message:
            # A thread may be compressing it.
            raise ConcurrencyError("send_nowait() was called while send() is at work on a message in several steps")
        self.send_message(data, None, None)

    def send_message(self, message: str | BytesLike, text: bool | None, compress: bool | None) -> None:
        """Encode a message and see to it that it goes out."""
        self.settle_gathered()
        self.connection.send_message(message, text=text, compress=compress)
        self.count_sent()
        self.written()
        if self.connection.compression is not None and size_of(message) >= _LARGE_PACKED:
            self.turn_full = True  # little may have come out of it, but it took its time

    def may_buffer(self, message: str | BytesLike, held: int = 0) -> bool:
        """Apply the policy of `send_nowait` to a message that might exceed `max_buffered`; False drops it.

        Args:
            message: the message.
            held: how many bytes are unsent besides those that the transport has been given.

        Raises:
            BufferFull: the policy is "error".
            ConnectionClosed: the connection is closed, or the policy is "close" and it was closed now.
        """
        if self.connection.state is not _OPEN:
            raise self.connection.closed_error()
        self.check_sending()
        limits = self.host.limits
        limit = limits.max_buffered
        unsent = self.buffered + held
        if limit is None or unsent + (size := size_of(message)) <= limit:
            return True
        if limits.overflow == "close":
            self._close_now(CloseCode.TRY_AGAIN_LATER, "too much is unsent", CloseCause.OVERFLOW)
            raise self.connection.closed_error()
        if self.listener is not None:
            self.room.owe()
        if limits.overflow == "drop":
            return False
        raise BufferFull(f"{unsent} bytes are unsent, {size} more would pass the limit of {limit}")

    # --- What the transport calls, beside `get_buffer` and `buffer_updated` ------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop when TCP, and TLS, are set up."""
        assert self.opening is not None  # a client's is set on transports that are made
        self.opening.connection_made(transport, self)

    def pause_writing(self) -> None:
        """Called by the transport when more than `write_limit` is unsent."""
        self.write_paused: bool = True
        if self.opening is not None:
            return
        self.session.congest(monotonic())
        self._schedule()
        if self.listener is not None and self.connection.state is _OPEN:
            self.pause(PAUSED_WRITING)

    def resume_writing(self) -> None:
        """Called by the transport when less than a quarter of `write_limit` is unsent."""
        self.write_paused = False
        if self.opening is not None:
            return
        self.obey(self.session.congest(monotonic(), congested=False))
        if self._outbox is not None:
            self._outbox.drained()
        if self.listener is not None:
            self.unpause(PAUSED_WRITING)
            self.room.returned()

    def transport_reading(self, wanted: bool) -> None:
        """Stop or start the transport's reading."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.connection.state is _CLOSING:
            # The peer's Close frame comes after messages that the consumer has not taken.
            if wanted:
                self.session.settled()
            else:
                self.session.keep_back(monotonic())
            self._schedule()
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def eof_received(self) -> bool:
        """Called by the transport when the peer has ended its sending side; False closes the transport."""
        if self.opening is not None:
            return False
        self.flush()  # or the answers to this turn's messages would be dropped
        self.session.receive_end(monotonic())
        self._schedule()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport when it has ended."""
        if self.opening is not None:
            opening = self.opening
            self.opening: Opening | None = None
            opening.connection_lost(exc)
            return
        connection = self.connection
        ws = self.ws
        ws._keep_addresses()
        try:
            self.take_rest()
            self._settle_all()
        finally:  # what ends the program may come out of a listener
            self.session.receive_eof(exc)
            self.detach()
            self.host.timer.clear(self)  # what was kept back may just have set it again
            self.derive()
            compression: PerMessageDeflate | None = connection.compression  # type: ignore[assignment]
            if compression is not None:
                compression.close()
                if compression.parameters.idle is not None:
                    self.host.timer.sweeper(compression.parameters.idle).leave()
            if self._outbox is not None:
                self._outbox.end(connection.closed_error())
                self._outbox = None  # it refers to this: the connection is freed as soon as the program lets go of it
            if self.reader is not None:
                self.reader.end()
            self.host._connection_closed(self)
            try:
                self.wake_receiver()  # which may resume the task at once
            finally:
                if self._end is not None:
                    self._end.release()
        listener = self.listener
        if listener is not None:
            self.listener = None
            code, reason = connection.close_rcvd or NO_CLOSE
            try:
                listener.on_close(code, reason)
            except ENDS_PROGRAM:
                raise
            except BaseException as exc_:
                tell(self.host.logger.error, "on_close for subprotocol %r raised", ws.subprotocol, exc_info=exc_)
