"""`State`, `Side`, and `Protocol`: the sans-IO state machine, and the view of a connection as ``ws.protocol``."""

from __future__ import annotations

import enum
import logging
import uuid
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from wsfast import connection, events
from wsfast.closing import ended_well
from wsfast.codes import CloseCause
from wsfast.exceptions import PeerError
from wsfast.http import shown

from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    PayloadTooBig,
    ProtocolError,
)
from .failures import reworded
from .frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Close, CloseCode, Frame, Opcode
from .http11 import Request, Response
from .imports import lend
from .streams import StreamReader
from .typing import LoggerLike, Origin, Subprotocol

if TYPE_CHECKING:
    from wsfast.events import BytesLike

    from .datastructures import Headers
    from .extensions.base import Extension

Event = Request | Response | Frame
"""What `Protocol.events_received` returns."""

__all__ = ["SEND_EOF", "Protocol", "Side", "State"]


class Side(enum.IntEnum):
    """Which end of a connection this is."""

    SERVER, CLIENT = range(2)


class State(enum.IntEnum):
    """The states of a connection."""

    CONNECTING, OPEN, CLOSING, CLOSED = range(4)


SERVER, CLIENT = Side.SERVER, Side.CLIENT
CONNECTING, OPEN, CLOSING, CLOSED = State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED
SEND_EOF = b""

# No more frames come once it is DRAINING: to who asks it is closed, as it is in websockets by the time `recv` raises.
STATES = {
    connection.State.CONNECTING: CONNECTING,
    connection.State.OPEN: OPEN,
    connection.State.CLOSING: CLOSING,
    connection.State.DRAINING: CLOSED,
    connection.State.CLOSED: CLOSED,
}


def log_headers(logger: LoggerLike, direction: str, headers: Headers) -> None:
    """Log headers, without the values of those that may hold a credential.

    Args:
        logger: where to.
        direction: ">" for what is sent, "<" for what came.
        headers: what is told.
    """
    for name, value in shown(headers.raw_items()):
        logger.debug("%s %s: %s", direction, name, value)


class Machine(connection.Connection):
    """The state machine, with the exceptions of `websockets`."""

    __slots__ = ()

    close_rcvd: events.Close | None
    rcvd_then_sent: bool | None

    def handle(self, event: events.Event) -> bool:
        """Do what an event of the decoder asks for; return whether it is for the application."""
        if isinstance(event, events.Close) and self.decoder.in_message and self.state is connection.State.OPEN:
            wanted = super().handle(ProtocolError("incomplete fragmented message"))
            self.close_rcvd, self.rcvd_then_sent = event, True
            return wanted
        wanted = super().handle(reworded(event) if isinstance(event, PeerError) else event)
        if self.in_message and self.rcvd_then_sent is False:
            # To close within a message of one's own is to fail the connection. RFC 6455, 7.1.7: an endpoint "MUST NOT
            # continue to attempt to process data (including a responding Close frame) from the remote endpoint".
            self.close_rcvd = self.rcvd_then_sent = None
        return wanted

    def closed_error(self) -> ConnectionClosed:
        """Make the exception that tells how the connection ended."""
        rcvd = None if self.close_rcvd is None else Close(*self.close_rcvd)
        sent = None if self.close_sent is None else Close(*self.close_sent)
        ordered = None if rcvd is None or sent is None else self.rcvd_then_sent
        made = ConnectionClosedOK if self.closed_ok else ConnectionClosedError
        native = super().closed_error()
        error = made(rcvd, sent, ordered, native.cause)
        cause = native.__cause__
        # What `reworded` made has the exception of websockets' as its cause; so has a failure of an extension.
        error.__cause__ = cause.__cause__ or cause if isinstance(cause, PeerError) else cause
        if rcvd is None and error.__cause__ is None:
            if native.cause is CloseCause.LOST or sent is None:
                error.__cause__ = EOFError("unexpected end of stream")
            elif native.cause is CloseCause.KEEPALIVE:
                error.__cause__ = TimeoutError("timed out while closing connection")
        return error


class Protocol:
    """The sans-IO state machine of a connection, and what a connection of this package tells of itself.

    Standing alone it takes bytes and returns frames: `receive_data` and `events_received` one way, the ``send_``
    methods and `data_to_send` the other. As the `protocol` of a connection it holds what that is made with, and tells
    what becomes of it; the bytes are wsfast's then, and the methods that move them raise `RuntimeError`.

    Args:
        side: which end it is.
        state: the state to begin in.
        max_size: the most bytes of a message, or that and the most of a fragment; None for no limit.
        logger: default: ``logging.getLogger("websockets.server")``, or ``.client``.
    """

    # Of a protocol that stands alone, until they change; those of a connection have no use for them.
    eof_sent: bool = False
    handshake_exc: Exception | None = None
    parser_exc: Exception | None = None
    _origin: Origin | None = None
    current_size: int | None = None
    expect_continuation_frame: bool = False
    _close_rcvd: Close | None = None
    _close_sent: Close | None = None
    _rcvd_then_sent: bool | None = None
    _subprotocol: Subprotocol | None = None
    _id: uuid.UUID | None = None
    _websocket: Any = None  # the connection, if it is one's
    _extensions: list[Extension] | None = None

    reader: StreamReader
    events: list[Event]
    writes: list[bytes]
    parser: Generator[None]

    def __init__(
        self,
        side: Side,
        *,
        state: State = OPEN,
        max_size: tuple[int | None, int | None] | int | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        self.side = side
        self.max_size = max_size
        self.logger: Any = logging.getLogger(f"websockets.{side.name.lower()}") if logger is None else logger
        self.debug: bool = self.logger.isEnabledFor(logging.DEBUG)
        self.state = state

    def __getattr__(self, name: str) -> Any:
        # A connection's never come here.
        if name not in ("reader", "events", "writes", "parser"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if self._websocket is not None:
            raise RuntimeError("this protocol belongs to a connection, which moves the bytes by itself")
        self.reader = StreamReader()
        self.events = []
        self.writes = []
        self.parser = self.parse()
        next(self.parser)
        return getattr(self, name)

    # --- What it is, alone or as a connection's -----------------------------------------------------------

    @property
    def id(self) -> uuid.UUID:
        """A random identifier."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def max_message_size(self) -> int | None:
        """The most bytes of a message."""
        return self.max_size[0] if isinstance(self.max_size, tuple) else self.max_size

    @property
    def max_fragment_size(self) -> int | None:
        """The most bytes of a fragment."""
        return self.max_size[1] if isinstance(self.max_size, tuple) else None

    @property
    def _machine(self) -> connection.Connection | None:
        return None if self._websocket is None else self._websocket._machine

    @property
    def state(self) -> State:
        """The connection's state."""
        machine = self._machine
        return self._state if machine is None else STATES[machine.state]

    @state.setter
    def state(self, state: State) -> None:
        if self.debug:
            self.logger.debug("= connection is %s", state.name)
        self._state = state

    @property
    def subprotocol(self) -> Subprotocol | None:
        """The subprotocol that was agreed on."""
        if self._websocket is None:
            return self._subprotocol
        name: str | None = self._websocket.subprotocol
        return None if name is None else Subprotocol(name)

    @subprotocol.setter
    def subprotocol(self, name: Subprotocol | None) -> None:
        self._subprotocol = name

    @property
    def extensions(self) -> list[Extension]:
        """The extensions that were agreed on."""
        if self._extensions is None:
            machine = self._machine
            compression: Any = None if machine is None else machine.compression
            if compression is not None:
                from .extensions.permessage_deflate import PerMessageDeflate

                return [PerMessageDeflate.of(compression)]
            self._extensions = []
        return self._extensions

    @extensions.setter
    def extensions(self, extensions: list[Extension]) -> None:
        self._extensions = extensions

    @property
    def origin(self) -> Origin | None:
        """The value of Origin, if there is one."""
        request = None if self._websocket is None else self._websocket.request
        return self._origin if request is None else request.headers.get("Origin")

    @origin.setter
    def origin(self, origin: Origin | None) -> None:
        self._origin = origin

    @property
    def close_rcvd(self) -> Close | None:
        """What the peer's Close frame said."""
        machine = self._machine
        if machine is None:
            return self._close_rcvd
        return None if machine.close_rcvd is None else Close(*machine.close_rcvd)

    @close_rcvd.setter
    def close_rcvd(self, close: Close | None) -> None:
        self._close_rcvd = close

    @property
    def close_sent(self) -> Close | None:
        """What this side's Close frame said."""
        machine = self._machine
        if machine is None:
            return self._close_sent
        return None if machine.close_sent is None else Close(*machine.close_sent)

    @close_sent.setter
    def close_sent(self, close: Close | None) -> None:
        self._close_sent = close

    @property
    def close_rcvd_then_sent(self) -> bool | None:
        """Which came first; None before there were both."""
        machine = self._machine
        return self._rcvd_then_sent if machine is None else machine.rcvd_then_sent

    @close_rcvd_then_sent.setter
    def close_rcvd_then_sent(self, order: bool | None) -> None:
        self._rcvd_then_sent = order

    @property
    def close_code(self) -> int | None:
        """The close code that the peer sent, 1006 without a Close frame; None while the connection is open."""
        if self.state is not CLOSED:
            return None
        rcvd = self.close_rcvd
        return CloseCode.ABNORMAL_CLOSURE if rcvd is None else rcvd.code

    @property
    def close_reason(self) -> str | None:
        """The close reason that the peer sent; None while the connection is open."""
        if self.state is not CLOSED:
            return None
        rcvd = self.close_rcvd
        return "" if rcvd is None else rcvd.reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """What `recv` and `send` raise once the connection is closed."""
        assert self.state is CLOSED, "connection isn't closed yet"
        machine = self._machine
        if machine is not None:
            error = machine.closed_error()
            assert isinstance(error, ConnectionClosed)
            return error
        rcvd, sent = self._close_rcvd, self._close_sent
        made = (ConnectionClosedOK if ended_well(rcvd, sent) else ConnectionClosedError)(
            rcvd, sent, self._rcvd_then_sent
        )
        made.__cause__ = self.parser_exc
        return made

    # --- Receiving ----------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take in what came; then ask for `data_to_send` and `events_received`.

        Raises:
            EOFError: the end came before.
        """
        self.reader.feed_data(data)
        next(self.parser)

    def receive_eof(self) -> None:
        """Take in the end of what comes; then ask for `data_to_send`. Calling it again does nothing."""
        if not self.reader.eof:
            self.reader.feed_eof()
            next(self.parser)

    def events_received(self) -> list[Event]:
        """Return what came since the last call: frames and, first of all, the request or the response."""
        events, self.events = self.events, []
        return events

    def parse(self) -> Generator[None]:
        """Read frames; a generator that pauses where bytes are missing, and at the end."""
        try:
            while not (yield from self.reader.at_eof()):
                frame = yield from Frame.parse(
                    self.reader.read_exact,
                    mask=self.side is SERVER,
                    max_size=self._room(),
                    extensions=self.extensions,
                )
                if self.debug:
                    self.logger.debug("< %s", frame)
                self.recv_frame(frame)
            if self.debug:
                self.logger.debug("< EOF")
            raise EOFError("unexpected end of stream")
        except Exception as exc:
            self._fail_by(exc)
        yield

    def _room(self) -> int | None:
        """Return how many bytes the next frame may have."""
        most = self.max_message_size
        left = None if most is None else most - (self.current_size or 0)
        fragment = self.max_fragment_size
        return fragment if left is None else left if fragment is None else min(left, fragment)

    def _fail_by(self, exc: Exception) -> None:
        if isinstance(exc, ProtocolError):
            self.fail(CloseCode.PROTOCOL_ERROR, str(exc))
        elif isinstance(exc, EOFError):
            self.fail(CloseCode.ABNORMAL_CLOSURE, str(exc))
        elif isinstance(exc, UnicodeDecodeError):
            self.fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")
        elif isinstance(exc, PayloadTooBig):
            exc.set_current_size(self.current_size)
            self.fail(CloseCode.MESSAGE_TOO_BIG, str(exc))
        else:
            self.logger.error("parser failed", exc_info=exc)
            self.fail(CloseCode.INTERNAL_ERROR)
        self.parser_exc = exc

    def discard(self) -> Generator[None]:
        """Drop what still comes, in the place of `parse`, up to the end of the connection."""
        while not (yield from self.reader.at_eof()):
            self.reader.discard()
        # RFC 6455, 7.1.1: the server ends the TCP connection first; a client answers that.
        if self.side is CLIENT and self.state is not CONNECTING:
            self.send_eof()
        self.state = CLOSED
        if self.side is SERVER:
            self.logger.info("connection closed")
        yield

    def _begin_discard(self) -> None:
        self.parser = self.discard()
        next(self.parser)

    def recv_frame(self, frame: Frame) -> None:
        """Take in a frame.

        Raises:
            ProtocolError: it must not come now, or it is a Close frame that is wrong.
        """
        if frame.opcode is TEXT or frame.opcode is BINARY:
            # RFC 6455, 5.4: "The fragments of one message MUST NOT be interleaved between the fragments of another
            # message".
            if self.current_size is not None:
                raise ProtocolError("expected a continuation frame")
            if not frame.fin:
                self.current_size = len(frame.data)
        elif frame.opcode is CONT:
            if self.current_size is None:
                raise ProtocolError("unexpected continuation frame")
            self.current_size = None if frame.fin else self.current_size + len(frame.data)
        elif frame.opcode is PING:
            # RFC 6455, 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response".
            self.send_frame(Frame(PONG, frame.data))
        elif frame.opcode is CLOSE:
            self._recv_close(frame)
        self.events.append(frame)

    def _recv_close(self, frame: Frame) -> None:
        self.close_rcvd = Close.parse(frame.data)
        if self.state is CLOSING:
            self.close_rcvd_then_sent = False
        if self.current_size is not None:
            raise ProtocolError("incomplete fragmented message")
        if self.state is OPEN:
            # RFC 6455, 5.5.1: "the endpoint MUST send a Close frame in response", which "typically echos the status
            # code it received".
            self.send_frame(Frame(CLOSE, frame.data))
            self.close_sent = self.close_rcvd
            self.close_rcvd_then_sent = True
            self.state = CLOSING
        if self.side is SERVER:
            self.send_eof()
        self._begin_discard()

    # --- Sending ------------------------------------------------------------------------------------------

    def data_to_send(self) -> list[bytes]:
        """Return what is to be written since the last call; `SEND_EOF` stands for the end of the sending side."""
        writes, self.writes = self.writes, []
        return writes

    def close_expected(self) -> bool:
        """Tell whether the connection should end soon, so that it may be waited for with a limit."""
        return self.state is CLOSING or (self.state is CONNECTING and self.eof_sent)

    def _check_state(self, *states: State) -> None:
        if self.state not in states:
            raise InvalidState(f"connection is {self.state.name.lower()}")

    def _send_data(self, opcode: Opcode, data: BytesLike, fin: bool) -> None:
        self._check_state(OPEN)
        self.expect_continuation_frame = not fin
        self.send_frame(Frame(opcode, data, fin))

    def send_continuation(self, data: BytesLike, fin: bool) -> None:
        """Send a further fragment of a message.

        Args:
            data: its payload.
            fin: whether it is the last one.

        Raises:
            ProtocolError: no message was begun.
            InvalidState: the connection is not open.
        """
        if not self.expect_continuation_frame:
            raise ProtocolError("unexpected continuation frame")
        self._send_data(CONT, data, fin)

    def send_text(self, data: BytesLike, fin: bool = True) -> None:
        """Send a text message, or the first fragment of one.

        Args:
            data: UTF-8.
            fin: whether it is the whole message.

        Raises:
            ProtocolError: another message was begun.
            InvalidState: the connection is not open.
        """
        if self.expect_continuation_frame:
            raise ProtocolError("expected a continuation frame")
        self._send_data(TEXT, data, fin)

    def send_binary(self, data: BytesLike, fin: bool = True) -> None:
        """Send a binary message, or the first fragment of one; see `send_text`."""
        if self.expect_continuation_frame:
            raise ProtocolError("expected a continuation frame")
        self._send_data(BINARY, data, fin)

    def send_close(self, code: CloseCode | int | None = None, reason: str = "") -> None:
        """Send a Close frame.

        Args:
            code: the close code; None for none.
            reason: the close reason.

        Raises:
            ProtocolError: the code must not be sent, or there is a reason without a code.
            InvalidState: the connection is not open.
        """
        self._check_state(OPEN)
        if code is None and reason:
            raise ProtocolError("cannot send a reason without a code")
        close = Close(CloseCode.NO_STATUS_RCVD, "") if code is None else Close(code, reason)
        self.send_frame(Frame(CLOSE, b"" if code is None else close.serialize()))
        self.close_sent = close
        self.state = CLOSING

    def send_ping(self, data: BytesLike) -> None:
        """Send a Ping frame.

        Raises:
            InvalidState: the connection is closed, or not open yet.
        """
        self._check_state(OPEN, CLOSING)
        self.send_frame(Frame(PING, data))

    def send_pong(self, data: BytesLike) -> None:
        """Send a Pong frame.

        Raises:
            InvalidState: the connection is closed, or not open yet.
        """
        self._check_state(OPEN, CLOSING)
        self.send_frame(Frame(PONG, data))

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Fail the connection (RFC 6455, 7.1.7): send a Close frame if one may be sent, and take nothing more.

        On a connection's protocol, that begins to close the connection, or with 1006 ends it at once.

        Args:
            code: the close code; with 1006 no frame is sent.
            reason: the close reason.

        Raises:
            ProtocolError: the code must not be sent.
        """
        if self._machine is not None:
            if code == CloseCode.ABNORMAL_CLOSURE:
                self._websocket.abort()
            else:
                Close(code, reason).check()
                self._websocket._fail(code, reason)
            return
        if self.state is OPEN and code != CloseCode.ABNORMAL_CLOSURE:
            close = Close(code, reason)
            self.send_frame(Frame(CLOSE, close.serialize()))
            self.close_sent = close
            if self.close_rcvd is not None:
                self.close_rcvd_then_sent = True
            self.state = CLOSING
        if self.side is SERVER and not self.eof_sent:
            self.send_eof()
        self._begin_discard()

    def send_frame(self, frame: Frame) -> None:
        """Put a frame among what is to be written."""
        if self.debug:
            self.logger.debug("> %s", frame)
        self.writes.append(frame.serialize(mask=self.side is CLIENT, extensions=self.extensions))

    def send_eof(self) -> None:
        """Put the end of the sending side behind what is to be written."""
        assert not self.eof_sent
        self.eof_sent = True
        if self.debug:
            self.logger.debug("> EOF")
        self.writes.append(SEND_EOF)


lend(globals())
