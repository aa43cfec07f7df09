"""How an open connection behaves in time (RFC 6455, 5.5 and 7): keepalive, the closing handshake, the end. Sans-IO.

`connection` says what a frame means. A `Session` adds the clock, which it never reads: every call that depends on time
is given `now`, in seconds of any clock that only goes forward. A shell (asyncio, threads, trio, a loop of your own)
does three things:

* it hands in what happens, and obeys the `Do` that the call returns;
* it calls `on_time` when `deadline` has come, and looks at `deadline` again after each call;
* it sets how many bytes were received, sent and not taken (`received`, `sent`, `unsent`), before it calls `on_time`.

Rules, each in one place:

* A ping goes out every `ping_interval`. Whatever is heard, or taken from what was unsent, is a sign of life. Without
  one for `ping_timeout` from a ping on, the peer is lost. While this program does not read (`deaf`), nothing is held
  against the peer.
* From this side's call of `close` on, the peer has `close_timeout` to answer the Close frame and to end the transport;
  nothing that it sends meanwhile extends that time.
* A Close frame or a failure that came behind messages may be kept back until the handler has answered them, for `GRACE`
  at most from when it took the latest: a handler that only sends makes no close wait.
* A peer that does not keep up with reading (`congest`) is sent one pong at a time, for its latest ping: one that reads
  slowly but steadily sees that this side lives, and pongs cannot pile up for one that reads nothing.
* The side that ends the transport ends its sending side first and reads on for `LINGER`: to close a socket with unread
  bytes would reset it, and a reset can destroy the Close frame on its way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from .codes import CloseCause, CloseCode
from .connection import Connection, Side, State
from .events import BytesLike, Event, Fragment, Ping, Pong
from .exceptions import ConcurrencyError, InvalidState
from .octets import copied

if TYPE_CHECKING:
    from .connection import Compression
    from .deflate import Deflate
    from .extensions import Chain

__all__ = [
    "GRACE",
    "LINGER",
    "LONGEST",
    "MAX_EVENTS",
    "MAX_PINGS",
    "OVERHEAD",
    "Do",
    "Limits",
    "Marks",
    "OnPong",
    "Overflow",
    "Session",
]

GRACE: Final = 1.0
"""Seconds that the consumer of messages has, from when it takes the latest one, to answer those that came before a
Close frame or a failure, and, while this side closes, to take those that came before the peer's Close frame."""
LINGER: Final = 2.0
"""Seconds for which the peer may go on sending after this side has ended its sending side, before it is dropped."""
LONGEST: Final = 1e9
"""Longer times, of some 30 years, count as this one: systems and event loops cannot take any number of seconds."""
MAX_EVENTS: Final = 256
"""Messages, pings and pongs of one connection that are handled before others have a turn."""
MAX_PINGS: Final = 64
"""Pings that may be unanswered."""

Overflow: TypeAlias = Literal["error", "drop", "close"]
OnPong: TypeAlias = Callable[[float | None], object]
"""Called with the seconds of a ping's round trip, or with None if the connection has ended before the pong."""

_LOOK: Final = 0.5
"""Seconds between two looks at what a congested peer has taken."""
_BREATH: Final = 0.05
"""The least number of seconds between two keepalive pings: an interval of 0 must not keep a processor busy."""
OVERHEAD: Final = 64
"""Bytes that a held message counts for beyond its own size, unless a channel counts otherwise."""


class Marks(NamedTuple):
    """The amounts of held data at which reading is paused because the consumer is behind, and resumed."""

    high: int
    """Above it, reading is paused."""
    low: int
    """At it and below, reading is resumed."""
    overhead: int = OVERHEAD
    """Bytes that a message counts for beyond its own size."""
    most: int = 0x7FFFFFFF
    """The most that a message counts for; with 1, messages are counted instead of bytes."""

    @classmethod
    def of(cls, read_limit: int) -> Marks:
        """Return those for a `read_limit`: reading is resumed at a quarter of it."""
        return cls(read_limit, read_limit // 4)

    def weight(self, message: str | bytes | Fragment) -> int:
        """Return what a received message counts for while it is held.

        A character of text counts for one byte: counting its bytes would take a pass over the text.
        """
        return min(len(message.data if isinstance(message, Fragment) else message) + self.overhead, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits and times of a connection, in bytes and seconds; `Server` and `connect` document them.

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
    extensions: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("max_size", "max_fragments", "read_limit", "write_limit", "max_buffered"):
            value = getattr(self, name)
            if value is None and name.startswith("max"):
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be int{' or None' * name.startswith('max')}, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
            # The most that C holds; a limit that high is never reached.
            object.__setattr__(self, name, min(value, 0x7FFFFFFF if name == "write_limit" else sys.maxsize))
        for name in ("open_timeout", "ping_interval", "ping_timeout", "close_timeout"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number of seconds or None, got {type(value).__name__}")
            # An opening handshake needs some time. For the others, 0 means "at once", as in websockets.
            if not (0 < value < inf if name == "open_timeout" else 0 <= value < inf):
                kind = "a positive number" if name == "open_timeout" else "a number"
                raise ValueError(f"{name} must be {kind} of seconds or None, got {value}")
            if value > LONGEST:
                object.__setattr__(self, name, LONGEST)
        if self.overflow not in ("error", "drop", "close"):
            raise ValueError(f"overflow must be 'error', 'drop' or 'close', got {self.overflow!r}")


class Do(IntEnum):
    """What the shell must do after a call of a `Session`; all but NOTHING and DROP include FLUSH."""

    NOTHING = 0
    """Nothing."""
    FLUSH = 1
    """Send what `connection.encoder` holds."""
    SETTLE = 2
    """The consumer had its time. Hand in what was kept back (`keep_back`); drop what it has not taken, and read on."""
    DRAINED = 3
    """No more frames follow either way, and the peer is to end the transport: tell the consumer of the end, read on."""
    END = 4
    """As DRAINED, but this side ends the transport: end the sending side, call `sending_ended`, read on and drop it."""
    DROP = 5
    """End the transport at once, after one attempt to send what the encoder holds."""


# As globals: to get a member from its class takes CPython 3.11 some 900 instructions.
_CLOSING: Final = State.CLOSING
_DRAINING: Final = State.DRAINING
_OPEN: Final = State.OPEN
_DRAINED: Final = Do.DRAINED
_DROP: Final = Do.DROP
_END: Final = Do.END
_FLUSH: Final = Do.FLUSH
_NOTHING: Final = Do.NOTHING
_SETTLE: Final = Do.SETTLE


class _Congestion:
    """What is known of a peer that takes less than it is sent."""

    __slots__ = ("look_at", "pong_end", "taken")

    def __init__(self, now: float) -> None:
        self.look_at = now + _LOOK
        self.pong_end = 0  # `sent` at the end of the latest pong that waits for the peer
        self.taken = 0  # at the latest look


class Session:
    """One side of a WebSocket connection after its opening handshake, with a clock that is passed in.

    Args:
        side: which end of the connection this is.
        limits: sizes and times; those that the opening handshake or the shell obeys are ignored here.
        now: the time at which the opening handshake was finished.
        compression: what permessage-deflate negotiated, or a `Chain` of extensions, or None.
        buffer: memory to receive into; see `Decoder`.
        connection_type: the class of `connection`, if that is to be a subclass of `Connection`.

    Attributes:
        connection: the `Connection`: state, codec, and how it ended.
        limits: the argument.
        received: bytes received so far. `receive_data` counts; a shell that feeds the decoder itself sets it.
        sent: bytes handed to the transport so far, for the shell to set.
        unsent: those of them that the peer, or the operating system, has not taken, for the shell to set.
        moving: whether a congested peer took something between the latest two looks at it.
        deaf: whether this program has stopped reading because its consumer is behind, for the shell to set.
        drop_at: when the transport is dropped, whatever comes; None for never.
        latency: seconds of the latest ping's round trip; 0 before the first.
        pings_received, pings_sent: Ping frames so far.
    """

    __slots__ = (
        "_answer_by",
        "_congestion",
        "_grace_until",
        "_heard",
        "_ping_at",
        "_pings",
        "_taken",
        "connection",
        "deaf",
        "drop_at",
        "latency",
        "limits",
        "moving",
        "pings_received",
        "pings_sent",
        "received",
        "sent",
        "unsent",
    )

    def __init__(
        self,
        side: Side,
        limits: Limits,
        now: float,
        *,
        compression: Compression | Chain | None = None,
        buffer: memoryview | None = None,
        connection_type: type[Connection] = Connection,
    ) -> None:
        self.connection: Connection = connection_type(
            side,
            max_size=limits.max_size,
            max_fragments=limits.max_fragments,
            max_events=MAX_EVENTS,
            compression=compression,
            buffer=buffer,
        )
        self.limits: Limits = limits
        self.received: int = 0
        self.sent: int = 0
        self.unsent: int = 0
        self.deaf: bool = False
        self.latency: float = 0.0
        self.pings_received: int = 0
        self.pings_sent: int = 0
        self._pings: dict[bytes, tuple[OnPong | None, float]] | None = None
        self._ping_at = None if limits.ping_interval is None else now + limits.ping_interval
        self._answer_by: float | None = None
        self._grace_until: float | None = None
        self.drop_at: float | None = None
        self._heard = self._taken = 0
        self._congestion: _Congestion | None = None
        self.moving: bool = False

    # --- Time -------------------------------------------------------------------------------------------

    def change_limits(self, limits: Limits, now: float) -> None:
        """Go on with other limits; the next keepalive ping comes an interval from now.

        Args:
            limits: the new ones.
            now: the time, in seconds.
        """
        self.limits = limits
        self._ping_at = None if limits.ping_interval is None else now + max(limits.ping_interval, _BREATH)

    @property
    def deadline(self) -> float | None:
        """When to call `on_time`; None for never. It may change with every other call."""
        first = self._ping_at
        if self._answer_by is None and self._grace_until is None and self.drop_at is None and self._congestion is None:
            return first
        look_at = None if self._congestion is None else self._congestion.look_at
        for when in (self._answer_by, self._grace_until, self.drop_at, look_at):
            if when is not None and (first is None or when < first):
                first = when
        return first

    def on_time(self, now: float) -> Do:
        """Do what is due: nothing if this is called too early, and each thing once if it is called late."""
        if self.drop_at is not None and now >= self.drop_at:
            self.drop_at = None
            connection = self.connection
            unanswered = connection.state is _CLOSING and connection.cause is CloseCause.LOCAL
            if not connection.should_end_transport and connection.lost is None:
                connection.lost = TimeoutError("timed out while closing connection")
            connection.abandon(CloseCause.TIMEOUT if unanswered else connection.cause or CloseCause.LOST)
            return _DROP
        if self._grace_until is not None and now >= self._grace_until:
            self._grace_until = None
            return _SETTLE
        if self._congestion is not None and now >= self._congestion.look_at:
            do = self._look(self._congestion, now)
            if do is not _NOTHING:
                return do
        due = self._ping_at is not None and now >= self._ping_at
        if due or (self._answer_by is not None and now >= self._answer_by):
            return self._keep_alive(now, ping=due)
        return _NOTHING

    def _keep_alive(self, now: float, *, ping: bool) -> Do:
        connection, limits = self.connection, self.limits
        taken = self.sent - self.unsent
        if self.received != self._heard or self.deaf or (self.unsent and taken > self._taken):
            self._answer_by = None
        self._heard, self._taken = self.received, taken
        if self._answer_by is not None and now >= self._answer_by:
            # RFC 6455, 7.1.7, asks for no Close frame to a peer that is gone; a live one learns the reason.
            self._stop_pings()
            connection.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", CloseCause.KEEPALIVE)
            return _DROP
        if not ping:
            return _NOTHING
        if limits.ping_interval is None:  # it was set since then
            self._ping_at = None
            return _NOTHING
        self._ping_at = now + max(limits.ping_interval, _BREATH)
        if limits.ping_timeout is not None and self._answer_by is None:
            self._answer_by = now + limits.ping_timeout
        if self._congestion is not None:
            return _NOTHING  # a ping would wait behind what the peer does not take
        payload = self._unused_payload()
        if self._pings is None or len(self._pings) < MAX_PINGS:
            self._note_ping(payload, None, now)
        connection.send_ping(payload)
        self.pings_sent += 1
        return _FLUSH

    # --- A peer that is behind ---------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the peer is behind, as `congest` was told."""
        return self._congestion is not None

    def congest(self, now: float, congested: bool = True) -> Do:
        """Note that more is unsent than should be, or that little is.

        Meanwhile `sent` and `unsent` are to be right whenever an event is handed in.
        """
        if congested:
            if self._congestion is None:
                self._congestion = _Congestion(now)
                self.moving = False
            return _NOTHING
        self._congestion = None
        return self._answer_ping()

    def _look(self, congestion: _Congestion, now: float) -> Do:
        if self.connection.state >= _DRAINING:
            self._congestion = None
            return _NOTHING
        taken = self.sent - self.unsent
        self.moving = taken > congestion.taken
        congestion.taken = taken
        congestion.look_at = now + _LOOK
        if taken < congestion.pong_end:
            return _NOTHING
        do = self._answer_ping()
        if do is not _NOTHING:
            congestion.pong_end = self.sent + len(self.connection.encoder)
        return do

    def _answer_ping(self) -> Do:
        connection = self.connection
        connection.congested = False
        connection.answer_ping()
        return _FLUSH if len(connection.encoder) else _NOTHING

    def _take_ping(self, event: Ping) -> bool:
        """Answer it, or keep it as the latest one while the pong before waits for the peer."""
        connection, congestion = self.connection, self._congestion
        self.pings_received += 1
        # RFC 6455, 5.5.3: who "has not yet sent Pong frame(s) in response to previous Ping frame(s) [...] MAY elect to
        # send a Pong frame for only the most recently processed Ping frame".
        connection.congested = congestion is not None and congestion.pong_end > self.sent - self.unsent
        wanted = connection.handle(event)
        if congestion is not None and not connection.congested:
            congestion.pong_end = self.sent + len(connection.encoder)
        return wanted

    def _stop_pings(self) -> None:
        self._ping_at = self._answer_by = None

    # --- What the peer does -----------------------------------------------------------------------------

    def receive_data(self, data: BytesLike, now: float) -> tuple[list[Event], Do]:
        """Take in received bytes; return the events for the application, in order, and what to do.

        At most `MAX_EVENTS` are handled at once: call it with ``b""`` while `connection.decoder.pending`.
        """
        self.received += len(data)
        events: list[Event] = []
        do = _NOTHING
        for event in self.connection.decoder.feed(data):
            wanted, then = self._handle(event, now)
            do = max(do, then)
            if wanted:
                events.append(event)
        return events, do

    def handle(self, event: Event, now: float) -> Do:
        """Do what one event asks for, where the shell feeds the decoder itself; messages need not be handed in."""
        return self._handle(event, now)[1]

    def _handle(self, event: Event, now: float) -> tuple[bool, Do]:
        connection = self.connection
        before = connection.state
        if isinstance(event, Ping):
            wanted = self._take_ping(event)
        else:
            if isinstance(event, Pong):
                self._take_pong(event.payload, now)
            wanted = connection.handle(event)
        if connection.state is _DRAINING and before is not _DRAINING:
            return wanted, self._drained(now)
        return wanted, _FLUSH if len(connection.encoder) else _NOTHING

    def _drained(self, now: float) -> Do:
        """No frames follow either way: whose duty is it to end the transport (RFC 6455, 7.1.1)?"""
        self._stop_pings()
        self._grace_until = None
        if self.limits.close_timeout is not None:
            # Where this side has sent its Close frame first, `close_timeout` has run since then, for the whole closing.
            self._drop_by(now + self.limits.close_timeout)
        return _END if self.connection.should_end_transport else _DRAINED

    def sending_ended(self, now: float) -> None:
        """Record that the shell has ended the sending side, as `Do.END` asks; `unsent` bytes may still wait."""
        if not self.unsent:
            timeout = self.limits.close_timeout
            self._drop_by(now + (LINGER if timeout is None else min(timeout, LINGER)))

    def receive_end(self, now: float) -> Do:
        """Note that the peer has ended its sending side, and that this side will end the transport once all is sent."""
        if self.connection.state is _OPEN:
            self._stop_pings()
            # A peer that reads nothing would delay that for ever.
            self.drop_at = now + (self.limits.close_timeout or LINGER)
        return _FLUSH

    def receive_eof(self, exc: BaseException | None = None) -> None:
        """Record that the transport has ended, and by what if that is known. It may be called more than once."""
        self.connection.receive_eof(exc)
        self._stop_pings()
        self._grace_until = self.drop_at = self._congestion = None
        pings, self._pings = self._pings, None
        if pings is not None:
            for on_pong, _ in pings.values():
                if on_pong is not None:
                    on_pong(None)

    # --- The consumer of messages -----------------------------------------------------------------------

    def keep_back(self, now: float, had: float = 0.0) -> Do:
        """Wait for the consumer, but not for long: `Do.SETTLE` comes after `GRACE`, unless `settled` comes before.

        Args:
            now: the time.
            had: seconds that the consumer has had already to answer the latest message.

        Returns:
            `Do.SETTLE` if that was long enough; else `Do.NOTHING`.
        """
        if self._grace_until is None and self.connection.state < _DRAINING:
            if had >= GRACE:
                return _SETTLE
            self._grace_until = now - had + GRACE
        return _NOTHING

    def settled(self) -> None:
        """End the wait for the consumer."""
        self._grace_until = None

    # --- What this program does -------------------------------------------------------------------------

    def ping(self, now: float, data: str | BytesLike | None = None, on_pong: OnPong | None = None) -> Do:
        """Send a Ping frame (RFC 6455, 5.5.2).

        Args:
            now: the time.
            data: at most 125 bytes; None for four random ones.
            on_pong: called once: with the seconds of the round trip, or with None when the connection has ended first.

        Raises:
            ConnectionClosed: the connection is not open.
            ConcurrencyError: a ping with the same data is unanswered.
            InvalidState: `MAX_PINGS` pings are unanswered.
            ValueError, TypeError: `data` is too long, or neither `str` nor bytes-like.
        """
        if data is None:
            payload = self._unused_payload()
        else:
            try:
                payload = data.encode() if isinstance(data, str) else copied(data)
            except TypeError:
                raise TypeError(f"expected str or a bytes-like object, got {type(data).__name__}") from None
        if self._pings is not None:
            if payload in self._pings:
                raise ConcurrencyError("already waiting for a pong with the same data")
            if len(self._pings) >= MAX_PINGS:
                raise InvalidState(f"{MAX_PINGS} pings are unanswered")
        self.connection.send_ping(payload)
        self.pings_sent += 1
        self._note_ping(payload, on_pong, now)
        return _FLUSH

    def _unused_payload(self) -> bytes:
        payload = os.urandom(4)
        while self._pings is not None and payload in self._pings:
            payload = os.urandom(4)
        return payload

    def _note_ping(self, payload: bytes, on_pong: OnPong | None, now: float) -> None:
        if self._pings is None:
            self._pings = {}  # an idle connection has none
        self._pings[payload] = on_pong, now

    def _take_pong(self, payload: bytes, now: float) -> None:
        if self._pings is None or payload not in self._pings:
            return
        # RFC 6455, 5.5.3: a peer "MAY elect to send a Pong frame for only the most recently processed Ping frame", so
        # that it answers the earlier ones, too.
        while self._pings is not None and payload in self._pings:  # `on_pong` may have ended the session
            on_pong, sent = self._pings.pop(next(iter(self._pings)))
            self.latency = now - sent
            if on_pong is not None:
                on_pong(self.latency)
        if not self._pings:
            self._pings = None

    def close(self, now: float, code: int | None, reason: str, cause: CloseCause, *, since: float | None = None) -> Do:
        """Start the closing handshake (RFC 6455, 7.1.2); without effect once the connection is closing.

        Messages that are under way are still for the consumer, until the peer's Close frame.

        Args:
            now: the time.
            code, reason: what the Close frame says.
            cause: why.
            since: when the program asked for it, from where on `close_timeout` runs; None for `now`.

        Raises:
            ValueError, TypeError: those of `encode_close`, whatever the state.
        """
        connection = self.connection
        was_open = connection.state is _OPEN
        connection.close(code, reason, cause)
        if not was_open:
            return _NOTHING
        self._stop_pings()
        self._grace_until = None
        if self.limits.close_timeout is not None:
            self._drop_by((now if since is None else since) + self.limits.close_timeout)
        return _FLUSH

    def abort(self, cause: CloseCause | None = None, exc: BaseException | None = None) -> Do:
        """End the connection without a closing handshake; it is CLOSED from now on.

        Args:
            cause: why; None where that is known already.
            exc: what has failed, if anything has.
        """
        if cause is not None:
            self.connection.abandon(cause)
        self.receive_eof(exc)
        return _DROP

    def _drop_by(self, when: float) -> None:
        if self.drop_at is None or when < self.drop_at:
            self.drop_at = when
