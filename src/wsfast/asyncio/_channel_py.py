"""The hot path between an asyncio transport and a handler, in plain Python: the readable specification.

It moves the messages of an open connection: received bytes to the decoder, messages to their consumer, frames into the
encoder, and the encoder's bytes to the transport. Everything rare (control frames, closing, timers, compression) is
left to `protocol.py`, whose class derives from `Channel` and adds the methods named in the docstring of `Channel`.
`_channel.pyx` is its fast twin, with the same names and the same behaviour.

Corking: frames that are sent while a batch of received data is handled gather in the encoder and are written once, when
the batch is done. Frames sent at another time are written at the end of the loop's turn. Either way, they are written
at once when 64 KiB have gathered.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from ..codes import Opcode
from ..connection import State
from ..events import BytesLike, Event, Fragment
from ..exceptions import (
    ENDS_PROGRAM,
    ONE_RECEIVER,
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidState,
)
from ..session import Marks
from ..transport.loops import OtherThread, may_nest
from ..transport.sockets import SocketTransport

if TYPE_CHECKING:
    from ..connection import Connection

__all__ = ["Channel", "Endpoint", "EventEndpoint", "Turn"]

CORK_SIZE: Final = 65536
"""Bytes gathered that are written without waiting for the end of the turn."""
TURN_SIZE: Final = 131072
"""Bytes written in one turn after which a sending task lets others run; more than one message of 64 KiB."""
MANY_FRAGMENTS: Final = 1024
"""So many fragments into a message, each read ends its turn."""
TURN_SENDS: Final = 2048
"""Messages after which a task that sends without end lets others run, however small the messages are."""
TURN_PACKED: Final = 256
"""`TURN_SENDS` for messages that may be compressed, which takes longer."""
LARGE_PACKED: Final = 65536
"""Bytes of a message whose compression fills a turn."""
LARGE: Final = 32768
"""Messages of so many bytes are written by themselves, not copied into one write with others."""
SLICE: Final = 0.005
"""Seconds that the end of one turn may take before others get one."""
SLICE_WRITES: Final = 32
"""Connections written to at the end of a turn, between two looks at the clock."""

OTHER_THREAD: Final = (
    "a connection can be used by its own event loop only, in the thread of that: from elsewhere, use "
    "asyncio.run_coroutine_threadsafe() for a coroutine such as send(), and loop.call_soon_threadsafe() for a call"
)

# Why reading is paused:
PAUSED_HELD: Final = 1  # the consumer is behind
PAUSED_PENDING: Final = 2  # the decoder has more events than one turn may handle


class Turn:
    """What the connections of one event loop share: those with frames to write, and the receive buffer.

    Args:
        loop: the event loop.
        buffer: the memory that every connection receives into.

    Attributes:
        gathering: how many indexes of topics have messages for the end of this turn.
    """

    __slots__ = ("_dirty", "_thread", "buffer", "gathering", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.buffer: memoryview = buffer
        self.gathering: int = 0
        self._dirty: list[Channel] = []
        self._thread = threading.get_ident()

    def check_thread(self) -> None:
        """Raise RuntimeError in any thread but the event loop's, and while another loop runs in that."""
        running = asyncio._get_running_loop()
        if running is not self.loop:
            if running is not None or threading.get_ident() != self._thread:
                raise OtherThread(OTHER_THREAD)
        else:
            self._thread = threading.get_ident()  # a loop may run in one thread after another

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def _add(self, channel: Channel) -> None:
        if not self._dirty:
            self.loop.call_soon(self._run)
        self._dirty.append(channel)

    def _run(self) -> None:
        dirty, self._dirty = self._dirty, []
        end = perf_counter() + SLICE if len(dirty) > SLICE_WRITES else None
        for i, channel in enumerate(dirty, 1):
            if channel._dirty:
                try:
                    channel.flush()
                except Exception as exc:
                    channel.transport_failed(exc)
                except BaseException:
                    # It ends the loop. Where that runs again, to stop in order, the others are written.
                    self._put_off(dirty[i:])
                    raise
            if end is not None and not i % SLICE_WRITES and i < len(dirty) and perf_counter() > end:
                self._put_off(dirty[i:])  # others get a turn first
                break

    def _put_off(self, rest: list[Channel]) -> None:
        if rest:
            self._dirty[:0] = rest
            self.loop.call_soon(self._run)


class Channel:
    """One open connection's way between its transport and the consumer of its messages.

    A subclass must implement these hooks, which run only on uncommon events: `handle_event`, `handle_fragment`,
    `is_terminal`, `settle_later`, `consumer_failed`, `transport_failed`, `transport_reading`, `send_rare` and
    `may_buffer`; and `move`, if it sets `moves`.

    Attributes:
        opening: what takes the bytes of the opening handshake, by `data_received`; None once the connection is open.
        connection: the sans-IO state machine, whose decoder and encoder are used here.
        transport: the asyncio transport, None once it has ended.
        turn: what the loop's connections share.
        member: its subscriptions to topics, with `settle` and `leave`; None if it has none.
        on_message: called with each message; None to queue them for `recv`.
        owes: True from when a message is taken until the next is asked for: a reply may still come.
        receiving: whether messages are still delivered.
        sendable: whether a message may be encoded straight away: the connection is open, without compression, and no
            other message is being sent in steps.
        packs: like `sendable`, for a connection that negotiated compression.
        moves: after so many more reads `move` is called, which gives the connection another transport; 0: never.
        thread_size: a message of at least so many bytes is compressed in a thread by `send`.
        streaming: whether the consumer takes a message in pieces.
        turn_full: whether so much was sent in this turn that other connections should have one.
        write_paused: whether the transport has more unsent than `write_limit`.
        ended: whether no message will come after those that are queued.
        paused: the reasons why reading is paused, as bits.
        high_water, low_water: the first two of `use_marks`.
        held: the bytes that the queued messages count for.
        messages_received, messages_sent, bytes_received, bytes_sent: totals.
    """

    __slots__ = (
        "_at",
        "_corked",
        "_decoder",
        "_dirty",
        "_easy",
        "_encoder",
        "_events",
        "_marks",
        "_max_buffered",
        "_queue",
        "_receiver",
        "_taken_at",
        "_terminal",
        "_turn_start",
        "bytes_received",
        "bytes_sent",
        "connection",
        "ended",
        "held",
        "high_water",
        "low_water",
        "member",
        "messages_received",
        "messages_sent",
        "moves",
        "on_message",
        "opening",
        "owes",
        "packs",
        "paused",
        "receiving",
        "sendable",
        "streaming",
        "thread_size",
        "transport",
        "turn",
        "turn_full",
        "write_paused",
    )

    if TYPE_CHECKING:

        def handle_event(self, event: Any) -> None: ...
        def handle_fragment(self, event: Fragment) -> Any: ...
        def is_terminal(self, event: Any) -> bool: ...
        def settle_later(self) -> None: ...
        def consumer_failed(self, exc: BaseException) -> None: ...
        def transport_failed(self, exc: BaseException) -> None: ...
        def transport_reading(self, wanted: bool) -> None: ...
        def send_rare(self, data: Any) -> None: ...
        def may_buffer(self, message: Any) -> bool: ...
        def move(self) -> None: ...

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def begin(self, turn: Turn, opening: Any) -> None:
        """Set the channel up for the opening handshake; called once, before anything else.

        Args:
            turn, opening: the attributes.
        """
        self.turn: Turn = turn
        self.opening: Any = opening
        self.member: Any = None
        self.connection: Connection = cast("Connection", None)  # until `attach`, as all that follow
        self.transport: asyncio.Transport | None = None
        self.on_message: Callable[[Any], object] | None = None
        self.write_paused: bool = False
        self.turn_full: bool = False
        self.owes: bool = False
        self._taken_at: float = 0.0
        self.receiving: bool = False
        self.sendable: bool = False
        self.packs: bool = False
        self.streaming: bool = False
        self.ended: bool = False
        self.high_water: int = 0
        self.low_water: int = 0
        self.thread_size: int = 0
        self.moves: int = 0
        self.paused: int = 0
        self.held: int = 0
        self.messages_received: int = 0
        self.messages_sent: int = 0
        self.bytes_received: int = 0
        self.bytes_sent: int = 0

    def attach(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        read_limit: int,
        max_buffered: int | None,
        write_limit: int,
    ) -> None:
        """Set the channel up for messages; called once.

        Args:
            connection, transport: the attributes.
            read_limit: bytes held above which reading is paused, until a quarter is left.
            max_buffered, write_limit: those of `Limits`.
        """
        self.opening = None
        self.connection = connection
        self.use_transport(transport)
        self._decoder = connection.decoder
        self._encoder = connection.encoder
        self._queue: deque[Any] = deque()
        self._receiver: asyncio.Future[None] | None = None
        self._terminal: Event | None = None
        self._corked = False
        self._dirty = False
        self._events: list[Any] = []  # that are being delivered, `_at` of which were
        self._at = 0
        self.use_marks(Marks.of(read_limit))
        # So many characters, of up to four bytes each, stay below `max_buffered` however much the transport has unsent.
        self._easy = sys.maxsize if max_buffered is None else max(0, (max_buffered - write_limit) // 4)
        self._max_buffered = sys.maxsize if max_buffered is None else max_buffered
        self.receiving = True
        self.thread_size = sys.maxsize
        self._turn_start = 0  # of this turn, in bytes sent

    def use_marks(self, marks: Marks) -> None:
        """Pause reading at other marks than those of `attach`; to be called before there is a message."""
        self._marks = marks
        self.high_water, self.low_water = marks.high, marks.low

    def use_transport(self, transport: asyncio.Transport) -> None:
        """Use a transport from now on: the first one, or another once nothing is unsent on the one before."""
        self.transport = transport

    def derive_flags(self, gated: bool) -> None:
        """Derive what may be sent and received from state, transport and compression.

        Args:
            gated: whether a call of `send` is at work on a message in several steps.
        """
        state, compression = self.connection.state, self.connection.compression
        free = state is State.OPEN and not gated and not self.connection.in_message
        free = free and self.connection.outgoing is self._encoder  # else extensions are in front of it
        self.sendable = free and compression is None
        self.packs = free and compression is not None
        self.ended = state is State.DRAINING or self.transport is None
        # A consumer that is gone does not come back: see `discard`.
        self.receiving = self.receiving and not self.ended

    def consume(self, on_message: Callable[[Any], object]) -> None:
        """Hand each message to a callable instead of queueing it for `recv`."""
        self.on_message = on_message

    # --- Receiving ----------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the transport memory to receive into."""
        if self.opening is not None:
            return self.turn.buffer
        return self._decoder.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what the transport received."""
        if self.opening is not None:
            self.opening.data_received(bytes(self.turn.buffer[:nbytes]))
            return
        self.count_read()
        self.bytes_received += nbytes
        self._deliver(self._decoder.buffer_updated(nbytes))

    def count_read(self) -> None:
        """Count a read of the transport, before what it has read is handled: see `moves`."""
        if self.moves:
            self.moves -= 1
            if not self.moves:
                self.move()

    def feed(self, data: bytes) -> None:
        """Take in bytes that were received in another way."""
        self.bytes_received += len(data)
        self._deliver(self._decoder.feed(data))

    def show_held(self) -> None:
        """Deliver, in streaming mode, what has come of a message already: its sender may wait for a reaction."""
        decoder = self._decoder
        # Another's transport may be receiving into the memory that the decoder lent; then wait for its next read.
        if decoder.held and not decoder.pending and (isinstance(self.transport, SocketTransport) or not decoder._lent):
            self._deliver(decoder.feed(b""))

    def take_rest(self) -> None:
        """Deliver what `max_events` left in the decoder, all of it: the transport has ended."""
        self._deliver_rest()
        while self._decoder.pending:
            self._deliver(self._decoder.feed(b""))

    def _deliver_rest(self) -> None:
        """Go on delivering a batch while a listener of it runs the loop within itself."""
        if self._at < len(self._events):
            self._deliver([])

    def _deliver(self, events: list[Any]) -> None:
        # A listener that runs the loop within itself waits for answers to what it has sent, and for the next message:
        # let the loop write the one and deliver the other.
        nests = may_nest(type(self.turn.loop))
        if nests and self.on_message is not None:
            self.turn.loop.call_soon(self._deliver_rest)
        self._corked = not nests
        self.turn_full = False
        self._turn_start = self.bytes_sent
        if self._at < len(self._events):
            events = self._events[self._at :] + events
        self._events, self._at = events, 0
        try:
            while self._at < len(self._events):
                event = self._events[self._at]
                self._at += 1
                kind = type(event)
                if kind is bytes or kind is str or kind is Fragment:
                    if self.receiving:
                        self._deliver_message(event)
                elif self.is_terminal(event):
                    # The messages before this event are answered first: see `idle`.
                    self._terminal = event
                else:
                    self.handle_event(event)
            if self._terminal is not None or self._queue:
                self.wake_receiver()
            if self._terminal is not None and events:
                if self.receiving and (self._queue or self.owes):
                    self.settle_later()
                else:
                    self.settle()
        finally:
            self._corked = False
            self._events = []
            self.flush()
        if self.held > self.high_water and self.receiving and not self.paused & PAUSED_HELD:
            self.pause(PAUSED_HELD)
        if self._decoder.pending or (self._decoder._fragments > MANY_FRAGMENTS and not events):
            # In one callback, uvloop reads up to 32 times unless it is paused: a third of a million empty fragments.
            self.pause(PAUSED_PENDING)
            if self.paused == PAUSED_PENDING:
                self.turn.loop.call_soon(self._continue)

    def _deliver_message(self, event: Any) -> None:
        if type(event) is not Fragment or event.final:
            self.messages_received += 1
        if self.on_message is None:
            message = self.handle_fragment(event) if type(event) is Fragment else event
            if message is not None:
                self.put_back(message)
            return
        try:
            self.on_message(event)
        except BaseException as exc:
            self.consumer_failed(exc)
            # A listener that asks a cancelled Future for its result raises CancelledError: a fault, not a cancellation.
            if isinstance(exc, ENDS_PROGRAM):
                raise

    def _continue(self) -> None:
        """Handle the next batch of events of one read; other connections had a turn in between."""
        if self.paused != PAUSED_PENDING:
            return
        if self._decoder.pending:
            try:
                self._deliver(self._decoder.feed(b""))
            except BaseException as exc:
                # In the transport's callback this would end the transport; here it would leave reading paused for ever.
                self.transport_failed(exc)
                raise
        if not self._decoder.pending:
            self.unpause(PAUSED_PENDING)

    def idle(self) -> None:
        """Note that the consumer has nothing left to answer and asks for more."""
        self.owes = False
        self.settle()

    def owed_for(self) -> float:
        """Return how many seconds ago the latest message was taken from the queue, to some milliseconds."""
        return monotonic() - self._taken_at

    def settle(self) -> None:
        """Handle the Close frame, or the failure, that was kept back until the messages before it were answered."""
        event, self._terminal = self._terminal, None
        if event is not None:
            self.handle_event(event)

    def put_back(self, event: Any) -> None:
        """Put a message, or a piece of one, at the end of the queue."""
        self._queue.append(event)
        self.held += self._marks.weight(event)

    def take_queue(self) -> list[Any]:
        """Return what is in the queue, and empty it."""
        rest = list(self._queue)
        self._queue.clear()
        self.held = 0
        return rest

    def _pop(self) -> Any:
        message = self._queue.popleft()
        self.held -= self._marks.weight(message)
        self.owes = True
        self._taken_at = monotonic()
        if self.paused & PAUSED_HELD and self.held <= self.low_water:
            self.unpause(PAUSED_HELD)
        return message

    def discard(self) -> None:
        """Forget the messages that nobody will consume, and drop what is still to come."""
        self.receiving = False
        self._queue.clear()
        self.held = 0
        self.owes = False
        self.unpause(PAUSED_HELD)
        self.settle()

    async def _receive(self, decode: bool | None, pieces: bool = False) -> Any:
        """Wait for the next message, or the next piece of one, and return it.

        Raises:
            ConcurrencyError: another task waits already, or takes a message in pieces.
            ConnectionClosed: the connection is closed and no message is left.
        """
        self.turn.check_thread()
        if self._receiver is not None:
            raise ConcurrencyError(ONE_RECEIVER.format("recv_streaming" if pieces else "recv"))
        if self.streaming and not pieces:
            raise ConcurrencyError(ONE_RECEIVER.format("recv"))
        while not self._queue:
            if not self.ended:
                self.idle()
            if self.ended:
                raise self.connection.closed_error()
            self._receiver = self.turn.loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        message = self._pop()
        if decode is False and type(message) is str:
            return message.encode()
        if decode and type(message) is bytes:
            return message.decode()
        return message

    def wake_receiver(self) -> None:
        """Let a task that waits in `recv` see that there is a message, or that none will come."""
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def pause(self, reason: int) -> None:
        """Stop reading for one more reason; without effect if that reason is set already."""
        if not self.paused:
            self.transport_reading(False)
        self.paused |= reason

    def unpause(self, reason: int) -> None:
        """Take back a reason to stop reading; read on if it was the last."""
        if not self.paused & reason:
            return
        self.paused &= ~reason
        if not self.paused:
            self.transport_reading(True)
        elif self.paused == PAUSED_PENDING:
            self.turn.loop.call_soon(self._continue)

    # --- Sending ------------------------------------------------------------------------------------------

    def settle_gathered(self) -> None:
        """Put what was published to this connection's topics into the encoder, ahead of what is sent next."""
        if self.turn.gathering and self.member is not None:
            self.member.settle()

    def send_gathered(self, frames: bytes, count: int, cork: bool = False) -> bool:
        """Send `count` whole messages whose frames were made for many connections, as one write.

        Args:
            frames: one or more frames, each a whole message.
            count: how many.
            cork: wait for the end of the turn.

        Returns:
            False, with nothing sent, unless this is the plain case: the connection is open, does not compress or mask,
            has little unsent and no message in fragments under way.
        """
        if not self.sendable or self._encoder._mask or not self.has_room(len(frames)):
            return False
        self.messages_sent += count
        if cork or self._corked or len(self._encoder):
            self._encoder.encoded(frames)
            if cork or self._corked:
                self.written()
            else:
                self.flush()
        else:
            self._put(frames)
        return True

    def send_behind(self, frames: bytes, count: int) -> bool:
        """Send as `send_gathered` does, by the end of the turn, and also to a peer that is behind.

        Returns:
            False, with nothing sent, if this is not the plain case for another reason, or `max_buffered` would be
            exceeded.
        """
        if not self.sendable or self._encoder._mask or not self._may_wait(len(frames)):
            return False
        self.messages_sent += count
        self._encoder.encoded(frames)
        self.written()
        return True

    def _may_wait(self, n: int) -> bool:
        """Tell whether so many bytes more may wait for the peer to take them."""
        return self.transport is not None and self.buffered <= self._max_buffered - n

    def write(self, data: str | BytesLike) -> None:
        """Encode a message and see to it that it goes out."""
        self.settle_gathered()
        if not self.sendable:
            if self.packs and (type(data) is str or type(data) is bytes):
                self._pack(data, None, sys.maxsize)
            else:
                self.send_rare(data)
            return
        self._encoder.message(data)
        self.messages_sent += 1
        self.written()

    def _pack(self, data: str | bytes, compress: bool | None, limit: int) -> bool:
        """Send a message, compressed or not, where compression was agreed on.

        Args:
            data: the message.
            compress: True or False to compress it or not; None leaves it to `PerMessageDeflate.should_compress`.
            limit: bytes from which on a message is not compressed here.

        Returns:
            False, with nothing sent, if the message would have to be compressed and is not below `limit`.
        """
        opcode, payload = (Opcode.TEXT, data.encode()) if isinstance(data, str) else (Opcode.BINARY, data)
        self.settle_gathered()
        if len(payload) >= limit and compress is not False:
            return False
        if len(payload) >= LARGE_PACKED:
            self.turn_full = True  # little may come out of it, but it takes its time
        compression: Any = self.connection.compression
        packed = compression.should_compress(len(payload)) if compress is None else compress
        if packed:
            payload = compression.compress(payload)
        self._encoder.frame(opcode, payload, rsv1=bool(packed))
        self.messages_sent += 1
        self.written()
        return True

    def has_room(self, n: int) -> bool:
        """Tell whether a message of `n` bytes may be sent without waiting; False if that is not certain."""
        return (self.sendable or self.packs) and not self.write_paused and len(self._encoder) + n <= self._easy

    def write_encoded(self, frame: bytes) -> None:
        """Send a whole message whose one frame was encoded for many connections at once, by the end of the turn."""
        self.settle_gathered()
        self.messages_sent += 1
        if len(frame) < LARGE or self._corked or self._dirty:
            self._encoder.encoded(frame)
            self.written()
        else:
            self._put(frame)

    def count_sent(self) -> None:
        """Count a message that was put into the encoder by other means than this class."""
        self.messages_sent += 1

    def written(self) -> None:
        """Note that frames were put into the encoder, so that they go out by the end of the turn."""
        if len(self._encoder) >= CORK_SIZE:
            self.flush()
            if self.bytes_sent - self._turn_start >= TURN_SIZE:
                self.turn_full = True
        elif not self._corked and not self._dirty:
            self._dirty = True
            self.turn._add(self)

    def next_turn(self) -> Awaitable[None]:
        """Return an awaitable that lets others run, and then gives this connection a new turn."""
        self.turn_full = False
        self._turn_start = self.bytes_sent
        return asyncio.sleep(0)

    def flush(self) -> None:
        """Write what the encoder holds now."""
        self._dirty = False
        if not len(self._encoder):
            return
        self._put(self._encoder.take())

    def write_gathered(self) -> None:
        """Write what was gathered for the end of the turn; called before others write to the transport, or end it."""
        if self.connection is not None:
            self.flush()

    def flush_last(self) -> bool:
        """Write what the encoder holds; nothing follows it either way.

        Returns:
            True if it is certain that everything the peer sent was read; then the transport is to be closed now. In
            Cython, what was written goes out with the end of the stream, in one segment. False if it is not certain.
        """
        self.flush()
        return False

    def write_head(self, head: bytes) -> None:
        """Send the response to the opening handshake, before anything else; the totals do not count it."""
        self._put(head)
        self.bytes_sent = 0

    def _put(self, data: bytes) -> None:
        transport = self.transport
        # The program may have ended the sending side by itself.
        if transport is not None and not transport.is_closing() and not getattr(transport, "eof_written", False):
            self.bytes_sent += len(data)
            transport.write(data)

    @property
    def buffered(self) -> int:
        """Bytes that were sent by the program and not yet taken by the operating system."""
        if self.transport is None:
            return 0
        return len(self._encoder) + self.transport.get_write_buffer_size()

    def detach(self) -> None:
        """Note that the transport has ended, and forget the consumer; messages that were received stay queued."""
        if self.member is not None:
            self.member.leave()
        self.transport = None
        self.on_message = None
        self.write_paused = False


class Iteration:
    """What ``async for`` steps through."""

    __slots__ = ("_endpoint",)

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __aiter__(self) -> Iteration:
        return self

    async def __anext__(self) -> str | bytes:
        return await self._endpoint.__anext__()

    async def aclose(self) -> None:
        """Do nothing: what was received stays for the next call. `contextlib.aclosing` calls it."""


class Endpoint:
    """The fast part of `WebSocket`: receiving and sending whole messages."""

    __slots__ = ("_channel",)

    _channel: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an endpoint whose opening handshake is not finished."""
        self = super().__new__(cls)
        self._channel = None
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def _open(self, channel: Channel) -> None:
        self._channel = channel

    def _opened(self) -> Any:
        if self._channel is None:
            raise InvalidState("the opening handshake is not finished")
        return self._channel

    def _send_encoded(self, frame: bytes) -> bool:
        """Send a frame that was made for many connections of servers; return False if it does not fit this one."""
        channel = self._channel
        if channel is None:
            return False
        channel.turn.check_thread()
        if not channel.sendable or channel._encoder._mask:
            return False
        if not channel.has_room(len(frame)) and not channel._may_wait(len(frame)):
            return False
        channel.write_encoded(frame)
        return True

    def __aiter__(self) -> Iteration:
        """Iterate over messages until the connection is closed."""
        return Iteration(self)

    async def __anext__(self) -> str | bytes:
        try:
            return await self._opened()._receive(None)  # type: ignore[no-any-return]
        except ConnectionClosedOK:
            raise StopAsyncIteration from None

    def _receive(self, decode: bool | None) -> Awaitable[Any]:
        """Return the awaitable of the next message; see `WebSocket.recv`."""
        return self._opened()._receive(decode)  # type: ignore[no-any-return]

    def _recv_piece(self) -> Awaitable[Any]:
        return self._opened()._receive(None, pieces=True)  # type: ignore[no-any-return]

    def _send_first(self, message: Any, text: bool | None, compress: bool | None) -> Awaitable[None] | None:
        """Send a message if that takes one step, and return None; else return an awaitable that does the rest."""
        channel = self._opened()
        channel.turn.check_thread()
        if text is not None or not (type(message) is str or type(message) is bytes):
            return self._send(message, text, compress)
        turn_sends = TURN_SENDS
        if channel.sendable:
            channel.write(message)
        elif channel.packs and channel._pack(message, compress, channel.thread_size):
            turn_sends = TURN_PACKED
        else:
            return self._send(message, text, compress)
        if channel.write_paused:
            return self._drain()
        if channel.turn_full or not channel.messages_sent % turn_sends:
            return channel.next_turn()  # type: ignore[no-any-return]
        return None

    def send_nowait(self, message: str | BytesLike) -> bool:
        """Send a message without waiting; it goes out by the end of the loop's turn.

        Args:
            message: `str` for a text message, bytes-like for a binary one.

        Returns:
            Whether it was sent: False only where more than `max_buffered` would be unsent and `overflow` is ``"drop"``.

        Raises:
            BufferFull: more than `max_buffered` bytes would be unsent and `overflow` is ``"error"``.
            ConnectionClosed: the connection is closed, or was closed now because `overflow` is ``"close"``.
            InvalidState: a message in fragments is unfinished.
            TypeError: `message` is of another type.
            RuntimeError: this is another thread than the event loop's.
        """
        channel = self._opened()
        channel.turn.check_thread()
        plain = type(message) is str or type(message) is bytes  # the length of others is not in bytes
        if not (plain and channel.has_room(len(message))) and not channel.may_buffer(message):
            return False
        channel.write(message)
        return True

    if TYPE_CHECKING:

        def _send(self, message: Any, text: bool | None, compress: bool | None) -> Awaitable[None]: ...
        def _drain(self) -> Awaitable[None]: ...


class EventEndpoint:
    """The fast part of an ASGI application's `receive` and `send`: messages as events.

    A subclass must implement these methods, which run only on uncommon events: `receive_rare`, `send_rare`,
    `last_event` and `drained`.

    Attributes:
        greeted: whether the application was given "websocket.connect".
    """

    __slots__ = ("_channel", "greeted")

    _channel: Channel | None
    greeted: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an endpoint whose connection is not open."""
        if cls is EventEndpoint:
            raise TypeError("cannot create 'EventEndpoint' instances: it is a base class")
        self = super().__new__(cls)
        self._channel = None
        self.greeted = False
        return self

    def join(self, channel: Channel | None) -> None:
        """Exchange events over an open connection from now on; None when it has ended."""
        self._channel = channel

    async def receive(self) -> dict[str, Any]:
        """Receive an event: ASGI's ``receive``. Cancelling it loses nothing."""
        channel = self._channel
        if channel is None or not self.greeted:
            return await self.receive_rare()
        try:
            message = await channel._receive(None)
        except ConnectionClosed:
            return self.last_event()
        return {"type": "websocket.receive", "text" if type(message) is str else "bytes": message}

    async def send(self, event: Any) -> None:
        """Send an event: ASGI's ``send``.

        Raises:
            ClientDisconnected: the connection has ended; it is an `OSError`.
            RuntimeError: such an event is not allowed now.
            TypeError, ValueError: the event is malformed.
        """
        rest = self._send_first(event)
        if rest is not None:
            await rest

    def _send_first(self, event: Any) -> Awaitable[None] | None:
        """Send a message if that takes one step, and return None; else return an awaitable that does the rest."""
        channel = self._channel
        if channel is None:
            return self.send_rare(event)
        channel.turn.check_thread()
        if type(event) is not dict or channel.write_paused:
            return self.send_rare(event)
        if event.get("type") != "websocket.send" or event.get("compress") is not None:
            return self.send_rare(event)
        data, text = event.get("bytes"), event.get("text")
        if data is None:
            if type(text) is not str:
                return self.send_rare(event)
            data = text
        elif text is not None or type(data) is not bytes:
            return self.send_rare(event)
        turn_sends = TURN_SENDS
        if channel.sendable:
            channel.write(data)
        elif channel.packs and channel._pack(data, None, channel.thread_size):
            turn_sends = TURN_PACKED
        else:
            return self.send_rare(event)
        if channel.write_paused:
            return self.drained()
        if channel.turn_full or not channel.messages_sent % turn_sends:
            return channel.next_turn()
        return None

    if TYPE_CHECKING:

        def receive_rare(self) -> Coroutine[Any, Any, dict[str, Any]]: ...
        def send_rare(self, event: Any) -> Coroutine[Any, Any, None]: ...
        def last_event(self) -> dict[str, Any]: ...
        def drained(self) -> Coroutine[Any, Any, None]: ...
