"""The common code of the shells: the properties of every connection, and how a shell obeys its `Session`.

`Facts` are the properties of every `WebSocket`, on asyncio, in threads and on trio. A `Shell` is the common part of
connections in threads and on trio, between two waits: take in received bytes, keep a Close frame back until the
messages before it are answered, and do what the session says. Only waiting, and moving bytes, is left to subclasses.
(asyncio's shell does the same in `asyncio.protocol`, around a channel in Cython.)
"""

from __future__ import annotations

import http
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, Final

from .assembly import Decoded
from .closing import encode_close
from .codes import CloseCause, CloseCode
from .connection import Compression, Connection, Side, State
from .events import Close, Event, Fragment
from .exceptions import ConnectionClosed, InvalidState, PeerError
from .extensions import Chain
from .handshake import Request, Response, text_response
from .session import Do, Limits, Marks, Session
from .transport.unacknowledged import unacknowledged

__all__ = ["COUNTED", "Facts", "Pieces", "Shell"]

COUNTED: Final = (
    "messages_received",
    "messages_sent",
    "bytes_received",
    "bytes_sent",
    "pings_received",
    "pings_sent",
)
"""The counters of each connection; a server has their sums."""


class Facts:
    """The properties of a connection; a subclass says where its session is."""

    __slots__ = ()

    _id: uuid.UUID | None

    def _known_session(self) -> Session | None:
        """Return the session; None before the connection is open."""
        raise NotImplementedError  # pragma: no cover - each subclass has its own

    @property
    def state(self) -> State:
        """A `State`: CONNECTING, in a server's hooks, OPEN, CLOSING, DRAINING or CLOSED."""
        session = self._known_session()
        return State.CONNECTING if session is None else session.connection.state

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1005 without one, 1006 without a Close frame; None while it is open."""
        session = self._known_session()
        return None if session is None else session.connection.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent, ``""`` without one; None while the connection is open."""
        session = self._known_session()
        return None if session is None else session.connection.close_reason

    @property
    def close_cause(self) -> CloseCause | None:
        """Who or what closed the connection; None while it is open."""
        session = self._known_session()
        return None if session is None else session.connection.cause

    @property
    def close_exc(self) -> ConnectionClosed | None:
        """What `recv` and `send` raise from now on, as a new exception; None while the connection is open."""
        session = self._known_session()
        if session is None or session.connection.state < State.DRAINING:
            return None
        return session.connection.closed_error()

    @property
    def latency(self) -> float:
        """Seconds of the latest ping's round trip, a keepalive's or one by `ping`; 0 before the first."""
        session = self._known_session()
        return 0.0 if session is None else session.latency

    @property
    def id(self) -> uuid.UUID:
        """A random identifier of the connection, for logs; made when it is first asked for."""
        if self._id is None:
            self._id = uuid.uuid4()  # type: ignore[misc] # a slot of the subclass
        return self._id

    def respond(self, status: http.HTTPStatus | int, text: str) -> Response:
        """Make a plain text response for `process_request` to return instead of None."""
        return text_response(int(status), text)


class Shell(Facts):
    """One connection without asyncio; `sync.websocket` and `trio.websocket` document what is public.

    Args:
        limits: of the connection.
        request: the opening handshake's.
        logger: where the connection logs to.
        addresses: the peer's and this side's, as far as they are known.
    """

    connection_type: ClassVar[type[Connection]] = Connection
    """The sans-IO state machine that a connection is made with."""

    # RFC 6455, 5.4: a message that was begun can neither be finished nor taken back.
    _unfinished: Final = CloseCode.INTERNAL_ERROR, "a message was not finished", CloseCause.LOCAL

    _session: Session
    _connection: Connection

    def __init__(
        self,
        limits: Limits,
        request: Request,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        addresses: tuple[Any, Any],
    ) -> None:
        self.request: Request = request
        self.response: Response | None = None
        self.subprotocol: str | None = None
        self.username: str | None = None
        self.logger: logging.Logger | logging.LoggerAdapter[Any] = logger
        self._id: uuid.UUID | None = None
        self._limits = limits
        self._marks = Marks.of(limits.read_limit)
        peer, self._local_address = addresses
        # The address of a Unix socket does not identify the peer, and is mostly empty.
        self._remote_address = None if isinstance(peer, (str, bytes)) else peer
        self._opened = False  # what `_begin` makes is there
        self._paused = False  # reading is, while the consumer is behind
        self._owing_since: float | None = None  # when a message was taken, if the next was not asked for
        self._kept: Event | None = None  # a Close frame or a failure behind messages that are not answered yet
        self._discarding = False  # what comes before the peer's Close frame is dropped
        self._over = False  # the transport has ended, or is to
        self._close_at: float | None = None  # when a close that waits behind what was sent before is done at the latest
        self._messages_received = 0
        self._messages_sent = 0

    def _begin(
        self, side: Side, response: Response, subprotocol: str | None, compression: Compression | Chain | None
    ) -> None:
        """Go on as an open connection.

        Args:
            side: which end this is.
            response: the one that ended the opening handshake.
            subprotocol: the name that was agreed on, or None.
            compression: what permessage-deflate negotiated, or a `Chain` of extensions, or None.
        """
        self.response = response
        self.subprotocol = subprotocol
        self._session = Session(
            side, self._limits, self._now(), compression=compression, connection_type=self.connection_type
        )
        self._connection = self._session.connection
        self._opened = True

    def __getattr__(self, name: str) -> Any:
        # Called for missing attributes only: those that `_open` sets, if a hook uses what needs an open connection.
        if name in ("_session", "_connection", "_thread"):
            raise InvalidState("the opening handshake is not finished")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> Any:
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: it is a connection")

    def __repr__(self) -> str:
        package = ".".join(type(self).__module__.split(".")[:2])
        return f"<{package}.WebSocket {self.state.name} {self.remote_address}>"

    # --- What it is ---------------------------------------------------------------------------------------

    def _known_session(self) -> Session | None:
        return self._session if self._opened else None

    @property
    def remote_address(self) -> Any:
        """The peer's address as `socket.getpeername` gives it; None on a Unix socket, or where it is not known."""
        return self._remote_address

    @property
    def local_address(self) -> Any:
        """This side's address as `socket.getsockname` gives it, or None."""
        return self._local_address

    @property
    def counters(self) -> dict[str, int]:
        """Messages, bytes (of frames, before TLS) and pings, received and sent so far, as a new dict."""
        if not self._opened:
            return dict.fromkeys(COUNTED, 0)
        session = self._session
        return {
            "messages_received": self._messages_received,
            "messages_sent": self._messages_sent,
            "bytes_received": session.received,
            "bytes_sent": self._bytes_sent(),
            "pings_received": session.pings_received,
            "pings_sent": session.pings_sent,
        }

    def _come_from(self, client: Any, here: Any = None) -> None:
        """Note the addresses that a proxy tells; `here`, if it is not None, is where the client connected to."""
        self._remote_address = client
        if here is not None:
            self._local_address = here

    # --- What each shell does for itself --------------------------------------------------------------------

    def _now(self) -> float:
        raise NotImplementedError  # pragma: no cover

    def _bytes_sent(self) -> int:
        raise NotImplementedError  # pragma: no cover

    def _count_unsent(self) -> None:
        """Tell the session what was sent, and what of it the transport has not taken."""
        raise NotImplementedError  # pragma: no cover

    def _socket(self) -> Any:
        """Return the socket, if there is one."""
        raise NotImplementedError  # pragma: no cover

    def _hold(self, size: int) -> int:
        """Count what is about to be put into the queue; return the bytes that are in it then."""
        raise NotImplementedError  # pragma: no cover

    def _put(self, message: str | bytes | Fragment) -> None:
        """Put something into the queue."""
        raise NotImplementedError  # pragma: no cover

    def _is_behind(self) -> bool:
        """Tell whether messages are not taken yet, or one that goes out is being compressed."""
        raise NotImplementedError  # pragma: no cover

    def _read_on(self) -> None:
        """Arrange that the transport is read again."""
        raise NotImplementedError  # pragma: no cover

    def _flush(self) -> None:
        """Arrange that what the encoder holds is sent."""
        raise NotImplementedError  # pragma: no cover

    def _drained(self, do: Do) -> None:
        """No frames follow either way: wake who waits, and end the transport if that is this side's duty."""
        raise NotImplementedError  # pragma: no cover

    def _put_off(self, close: Callable[[], None], at: float | None) -> bool:
        """Have a close done behind those who called `send` before; False if there are none.

        Where one waits already, this one is without effect. A message in fragments of which some may have been sent is
        not waited for: its next piece may never come.

        Args:
            close: does it.
            at: when it is done at the latest, for `_close_at`; None for no limit.
        """
        raise NotImplementedError  # pragma: no cover

    def _close_late(self) -> None:
        """Go on with the waiting close: it has waited long enough."""
        raise NotImplementedError  # pragma: no cover

    def _end(self) -> None:
        """End the transport, and wake everybody."""
        raise NotImplementedError  # pragma: no cover

    def _reschedule(self) -> None:
        """Look at the session's deadline again."""

    # --- The session ------------------------------------------------------------------------------------------

    def _is_answered(self) -> bool:
        """Tell whether the program has taken all that came, and asked for more."""
        return self._owing_since is None and not self._is_behind()

    def _obey(self, do: Do) -> None:
        """Do what the session says."""
        if do is Do.SETTLE:
            # The program is waited for no longer: it has neither answered nor taken what came.
            self._obey(self._hand_in())
            if self._paused and self._connection.state is State.CLOSING:
                # The peer's Close frame comes after messages for which there is no room.
                self._discarding = True
                self._unpause()
        elif do is not Do.NOTHING:
            self._flush()
            if do is Do.DROP:
                self._end()
            elif do is not Do.FLUSH:
                self._drained(do)
        self._reschedule()

    def _unpause(self) -> None:
        """Read on."""
        # In this order: if Ctrl-C comes to a thread between the two, the next call does it again.
        self._read_on()
        self._paused = False
        if self._connection.state is State.CLOSING:
            self._session.settled()
            self._reschedule()

    def _take_in(self, data: bytes | bytearray) -> Do:
        """Decode what came; return what is to be done about it."""
        session, connection = self._session, self._connection
        session.received += len(data)
        self._count_unsent()
        now = self._now()
        do = Do.NOTHING
        for event in connection.decoder.feed(data):
            if isinstance(event, (str, bytes, Fragment)):
                self._deliver(event, now)
            elif connection.state is State.OPEN and isinstance(event, (Close, PeerError)):
                # Before it is looked at whether all is answered: who receives does both in the other order.
                self._kept = event
                since = self._owing_since
                had = 0.0 if since is None or self._is_behind() else now - since
                if session.keep_back(now, had) is Do.SETTLE or self._is_answered():
                    do = max(do, self._hand_in())
            else:
                do = max(do, session.handle(event, now))
        return do

    def _deliver(self, message: str | bytes | Fragment, now: float) -> None:
        if not isinstance(message, Fragment) or message.final:
            self._messages_received += 1
        if self._discarding:
            return
        held = self._hold(self._marks.weight(message))
        if held > self._marks.high and not self._paused:
            self._paused = True
            if self._connection.state is State.CLOSING:
                self._session.keep_back(now)
        self._put(message)

    def _hand_in(self) -> Do:
        """Hand in what was kept back, if anything was."""
        event, self._kept = self._kept, None
        if event is None:
            return Do.NOTHING
        self._session.settled()
        return self._session.handle(event, self._now())

    def _start_close(self, code: int, reason: str, cause: CloseCause, *, at_once: bool = False) -> None:
        """Start the closing handshake, unless it was started or the connection has ended.

        It starts behind the messages for which `send` was called before, but waits for them for half of
        `close_timeout` at most, so that the peer has the other half.

        Args:
            code, reason: what the Close frame says.
            cause: why.
            at_once: whatever others are sending.

        Raises:
            ValueError, TypeError: those of `encode_close`.
        """
        # What the peer sent last comes first, though it was kept back: then the connection is closing already.
        self._obey(self._hand_in())
        if not at_once and self._connection.state is State.OPEN:
            encode_close(code, reason)  # raises now, if it does
            now, timeout = self._now(), self._limits.close_timeout
            close = partial(self._close_now, code, reason, cause, since=now)
            if self._put_off(close, None if timeout is None else now + timeout / 2):
                return
        self._close_now(code, reason, cause)

    def _close_now(self, code: int, reason: str, cause: CloseCause, *, since: float | None = None) -> None:
        """Start the closing handshake, whatever others are sending."""
        now = self._now()
        do = self._session.close(now, code, reason, cause, since=since)
        if do is Do.NOTHING:
            return
        if self._paused:
            self._session.keep_back(now)
        self._obey(do)

    def _deadline(self) -> float | None:
        """Return when `_tell_time` is to be called, or None."""
        deadline, close_at = self._session.deadline, self._close_at
        return deadline if close_at is None else close_at if deadline is None else min(deadline, close_at)

    def _discard(self) -> None:
        """Drop what comes before the peer's Close frame: nobody takes it any more."""
        self._discarding = True
        if self._paused:
            self._unpause()

    def _tell_time(self) -> Do:
        """Ask the session what is due."""
        if self._close_at is not None and self._now() >= self._close_at:
            self._close_late()
        session = self._session
        self._count_unsent()
        session.unsent += unacknowledged(self._socket())
        # If it is the peer that keeps this program from going on, silence is its own.
        session.deaf = self._paused and not session.congested
        return session.on_time(self._now())


class Pieces(AsyncIterator["str | bytes"]):
    """One message, piece by piece, on asyncio or trio: the iterator of `recv_streaming`.

    An asynchronous generator would not do: one that is given up is finished only some turns later.

    Args:
        begin: called before the first piece is waited for; raises if another receives.
        receive: waits for a piece.
        end: called once at the end; its argument tells whether the rest of the message is to be dropped.
        decode: as of `recv_streaming`.
    """

    __slots__ = ("_begin", "_begun", "_decode", "_done", "_end", "_receive")

    def __init__(
        self,
        begin: Callable[[], object],
        receive: Callable[[], Awaitable[str | bytes | Fragment]],
        end: Callable[[bool], object],
        decode: bool | None,
    ) -> None:
        self._begin = begin
        self._receive = receive
        self._end = end
        self._decode = Decoded(decode)
        self._begun = False  # a piece was taken
        self._done = False

    async def __anext__(self) -> str | bytes:
        if self._done:
            raise StopAsyncIteration
        if not self._begun:
            self._begin()
        final = False
        try:
            piece = await self._receive()
            self._begun = True
            data, final = (piece.data, piece.final) if isinstance(piece, Fragment) else (piece, True)
            decoded = self._decode(data, final)
        except BaseException:
            self._finish(skip=self._begun and not final)
            raise
        if final:
            self._finish(skip=False)
        return decoded

    def _finish(self, *, skip: bool) -> None:
        self._done = True
        self._end(skip)

    def __del__(self) -> None:
        if self._begun and not self._done:
            self._finish(skip=True)

    async def aclose(self) -> None:
        """Give up the iteration: the rest of the message is dropped."""
        if self._begun and not self._done:
            self._finish(skip=True)
        self._done = True
