"""The state machine of one side of an open connection (RFC 6455, 5 to 8), sans-IO.

Bytes in, events out, bytes to send. No asyncio, no sockets, no clock: the shell that moves the bytes hands in what
arrived, tells when the transport has ended, and asks what to send and whether to end the transport. The module can be
used without the rest of wsfast. The opening handshake comes before; it is in `handshake`.

The rules, all in `TABLE`:

* OPEN        both sides may send messages.
* CLOSING     this side sent a Close frame and awaits the peer's; messages that are under way are delivered (7.1.1).
* DRAINING    no more frames either way: both Close frames were exchanged, or the peer broke the protocol and was
              told so. The server's side ends the transport (7.1.1), as does a side that failed the connection (7.1.7).
* CLOSED      the transport has ended.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from .closing import cause_of_close, cause_of_failure, encode_close, ended_well, shorten_reason
from .codec import Decoder, Encoder
from .codes import NO_CLOSE, CloseCause, CloseCode, Opcode
from .events import BytesLike, Close, Event, Fragment, Ping, Pong
from .exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidState, PeerError
from .extensions import Chain
from .octets import copied

__all__ = ["Action", "Compression", "Connection", "Input", "Prepared", "Side", "State"]

Prepared: TypeAlias = tuple[Opcode, bytes, bool]
"""A message ready to be encoded: its opcode, its payload, and whether that is compressed."""


class Side(Enum):
    """Which end of a connection this is."""

    SERVER = "server"
    """It takes masked frames, sends them unmasked, and ends the transport (RFC 6455, 5.1 and 7.1.1)."""
    CLIENT = "client"
    """It sends masked frames, and takes unmasked ones."""


class State(IntEnum):
    """The states of a connection, in the order they are lived."""

    CONNECTING = 0
    """The opening handshake is not finished; no `Connection` is ever in it."""
    OPEN = 1
    """Both sides may send messages."""
    CLOSING = 2
    """This side sent a Close frame and waits for the peer's; messages are still received (RFC 6455, 7.1.1)."""
    DRAINING = 3
    """No more frames either way; the transport is about to end."""
    CLOSED = 4
    """The transport has ended."""


class Input(Enum):
    """What can happen to a connection: the first six come from the peer, the others from this program."""

    # Enum's own is Python code, and each event looks its input up.
    __hash__: Callable[[Any], int] = object.__hash__  # type: ignore[assignment]

    MESSAGE = "message"
    PING = "ping"
    PONG = "pong"
    CLOSE = "close"
    FAILURE = "failure"
    EOF = "eof"
    SEND = "send"
    CLOSE_CALL = "close call"


class Action(Enum):
    """What a connection does in answer to an `Input`."""

    __hash__: Callable[[Any], int] = object.__hash__  # type: ignore[assignment]

    DELIVER = "hand it to the application"
    ANSWER = "answer with a pong, and hand it to the application"
    ECHO = "answer with a Close frame that has the same code"
    REPORT = "send a Close frame that says what the peer did wrong"
    FINISH = "note that the peer answered this side's Close frame"
    FAIL = "note that the peer did something wrong, after this side's Close frame"
    LOSE = "note that the transport ended without a closing handshake"
    END = "note that the transport ended after the last frame"
    WRITE = "encode the frame"
    START_CLOSE = "send a Close frame"
    REFUSE = "raise ConnectionClosed"
    DROP = "nothing"


_S, _I, _A = State, Input, Action
TABLE: Final[dict[State, dict[Input, tuple[State, Action]]]] = {
    _S.OPEN: {
        _I.MESSAGE: (_S.OPEN, _A.DELIVER),
        _I.PING: (_S.OPEN, _A.ANSWER),
        _I.PONG: (_S.OPEN, _A.DELIVER),
        _I.CLOSE: (_S.DRAINING, _A.ECHO),
        _I.FAILURE: (_S.DRAINING, _A.REPORT),
        _I.EOF: (_S.CLOSED, _A.LOSE),
        _I.SEND: (_S.OPEN, _A.WRITE),
        _I.CLOSE_CALL: (_S.CLOSING, _A.START_CLOSE),
    },
    _S.CLOSING: {
        _I.MESSAGE: (_S.CLOSING, _A.DELIVER),
        _I.PING: (_S.CLOSING, _A.DROP),
        _I.PONG: (_S.CLOSING, _A.DELIVER),
        _I.CLOSE: (_S.DRAINING, _A.FINISH),
        _I.FAILURE: (_S.DRAINING, _A.FAIL),
        _I.EOF: (_S.CLOSED, _A.LOSE),
        _I.SEND: (_S.CLOSING, _A.REFUSE),
        _I.CLOSE_CALL: (_S.CLOSING, _A.DROP),
    },
    _S.DRAINING: {
        _I.MESSAGE: (_S.DRAINING, _A.DROP),
        _I.PING: (_S.DRAINING, _A.DROP),
        _I.PONG: (_S.DRAINING, _A.DROP),
        _I.CLOSE: (_S.DRAINING, _A.DROP),
        _I.FAILURE: (_S.DRAINING, _A.DROP),
        _I.EOF: (_S.CLOSED, _A.END),
        _I.SEND: (_S.DRAINING, _A.REFUSE),
        _I.CLOSE_CALL: (_S.DRAINING, _A.DROP),
    },
    _S.CLOSED: {
        _I.MESSAGE: (_S.CLOSED, _A.DROP),
        _I.PING: (_S.CLOSED, _A.DROP),
        _I.PONG: (_S.CLOSED, _A.DROP),
        _I.CLOSE: (_S.CLOSED, _A.DROP),
        _I.FAILURE: (_S.CLOSED, _A.DROP),
        _I.EOF: (_S.CLOSED, _A.DROP),
        _I.SEND: (_S.CLOSED, _A.REFUSE),
        _I.CLOSE_CALL: (_S.CLOSED, _A.DROP),
    },
}
"""Every state, every input: the next state, and what is done. It is the same for both sides."""

_FOR_APPLICATION: Final = frozenset({_A.DELIVER, _A.ANSWER, _A.ECHO, _A.FINISH, _A.REPORT, _A.FAIL})
_INPUT_OF: Final[dict[type, Input]] = {
    str: Input.MESSAGE,
    bytes: Input.MESSAGE,
    Fragment: Input.MESSAGE,
    Ping: Input.PING,
    Pong: Input.PONG,
    Close: Input.CLOSE,
}


# As globals: to get a member from its class takes CPython 3.11 some 900 instructions.
_CLOSING: Final = State.CLOSING
_DRAINING: Final = State.DRAINING
_OPEN: Final = State.OPEN
_CLIENT: Final = Side.CLIENT
_SERVER: Final = Side.SERVER
_CLOSE_CALL: Final = Input.CLOSE_CALL
_EOF: Final = Input.EOF
_FAILURE: Final = Input.FAILURE
_SEND: Final = Input.SEND
_BINARY: Final = Opcode.BINARY
_CLOSE: Final = Opcode.CLOSE
_CONT: Final = Opcode.CONT
_PING: Final = Opcode.PING
_PONG: Final = Opcode.PONG
_TEXT: Final = Opcode.TEXT


class Compression(Protocol):
    """What a connection needs of an extension that compresses messages (RFC 7692)."""

    def decompress(self, data: bytes, fin: bool, limit: int, /) -> bytes:
        """Inflate the next piece of a message; see `events.Inflate`."""
        ...

    def close(self) -> None:
        """Release the memory of a connection that has ended."""
        ...

    def compress(self, data: bytes, /) -> bytes:
        """Compress a whole message."""
        ...

    def compress_fragment(self, data: bytes, fin: bool, /) -> bytes:
        """Compress the next fragment of a message."""
        ...

    def should_compress(self, nbytes: int, /) -> bool:
        """Tell whether a message of this size is worth compressing."""
        ...


class Connection:
    """One side of a WebSocket connection after its opening handshake.

    Args:
        side: which end this is: it decides who masks frames and who ends the transport.
        max_size: the most bytes of a received message, after decompression; None for no limit. Default: 1 MiB.
        max_fragments: the most frames of a received message; None, the default, for no limit.
        max_events: the most events that one call returns; None, the default, for no limit (see `Decoder`).
        compression: what permessage-deflate negotiated, or a `Chain` where extensions of a program's own were agreed
            on, or None. Default: None.
        buffer: memory to receive into (see `Decoder`). Default: None.

    Attributes:
        decoder, encoder: the codec of each direction. `encoder.take()` are the bytes to send.
        outgoing: what takes frames to send: the encoder itself, or the `Chain` in front of it.
        state: a `State`.
        close_rcvd, close_sent: the `Close` frames so far, or None.
        rcvd_then_sent: True if the peer's Close frame came first, None before both were exchanged.
        cause: a `CloseCause` once the connection has begun to close, else None.
        failure: the `PeerError` that the peer caused, or None.
        lost: what ended the transport before both Close frames were exchanged, an `OSError` mostly, or None.
        congested: set it while the peer does not take what was sent: pings are then not answered one by one;
            `answer_ping` answers the latest once this is cleared (RFC 6455, 5.5.3).

    Raises:
        ValueError, TypeError: those of `Decoder`.
    """

    __slots__ = (
        "_fragmented",
        "_owed_pong",
        "_utf8",
        "cause",
        "close_rcvd",
        "close_sent",
        "compression",
        "congested",
        "decoder",
        "encoder",
        "failure",
        "lost",
        "outgoing",
        "rcvd_then_sent",
        "side",
        "state",
    )

    def __init__(
        self,
        side: Side,
        *,
        max_size: int | None = 1048576,
        max_fragments: int | None = None,
        max_events: int | None = None,
        compression: Compression | Chain | None = None,
        buffer: memoryview | None = None,
    ) -> None:
        self.side: Side = side
        chain: Chain | None = None
        if isinstance(compression, Chain):
            chain = compression
            compression = chain.compression
        self.decoder: Decoder = Decoder(
            masked=side is _SERVER,
            max_size=max_size,
            max_fragments=max_fragments,
            max_events=max_events,
            inflate=None if compression is None else compression.decompress,
            extensions=chain,
            buffer=buffer,
        )
        self.encoder: Encoder = Encoder(mask=side is _CLIENT)
        self.outgoing: Encoder | Chain = self.encoder
        if chain is not None:
            chain.join(self.encoder, side is _CLIENT, max_size)
            self.outgoing = chain
        self.state: State = _OPEN
        self.compression: Compression | None = compression
        self.close_rcvd: Close | None = None
        self.close_sent: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.cause: CloseCause | None = None
        self.failure: PeerError | None = None
        self.lost: BaseException | None = None
        self.congested: bool = False
        self._owed_pong: bytes | None = None
        self._utf8: codecs.IncrementalDecoder | None = None  # what checks a text message that is sent in fragments
        self._fragmented = 0  # 0, or 1 in a plain, 2 in a compressed message of ours that is unfinished

    # --- What the peer does -----------------------------------------------------------------------------

    def receive_data(self, data: BytesLike) -> list[Event]:
        """Take in received bytes and return the events for the application, in order.

        Answers, to pings and to Close frames, are in the encoder afterwards.

        Raises:
            TypeError: `data` is not bytes-like.
        """
        return [event for event in self.decoder.feed(data) if self.handle(event)]

    def receive_eof(self, exc: BaseException | None = None) -> None:
        """Record that the transport has ended. It may be called more than once.

        Args:
            exc: what ended it, for `lost`; None, the default, if the peer ended it, or the reason is not
                known.
        """
        if exc is not None:
            self.lose(exc)
        self._step(_EOF, None)

    def lose(self, exc: BaseException) -> None:
        """Note in `lost` what ended the transport: the first exception, if Close frames were not exchanged before."""
        if self.lost is None and self.state < _DRAINING:
            self.lost = exc.with_traceback(None)  # the frames of a traceback keep their variables alive

    def handle(self, event: Event) -> bool:
        """Do what an event of the decoder asks for; return whether it is for the application.

        `receive_data` calls it for each event. A program that gives bytes to `decoder` itself does so.
        """
        kind = _INPUT_OF.get(type(event), _FAILURE)
        return self._step(kind, event) in _FOR_APPLICATION

    def answer_ping(self) -> None:
        """Answer the latest ping that came while `congested` was set, if there is one and the state allows it."""
        payload, self._owed_pong = self._owed_pong, None
        if payload is not None and self.state is _OPEN:
            self.outgoing.frame(_PONG, payload)

    # --- What this program does -------------------------------------------------------------------------

    def send_message(self, data: str | BytesLike, *, text: bool | None = None, compress: bool | None = None) -> None:
        """Encode a whole message.

        Args:
            data: `str` for a text message, bytes-like for a binary one.
            text: True sends bytes-like, which must be UTF-8, as text; False sends `str` as binary. Default: by type.
            compress: whether to compress it; None, the default, leaves that to `compression`; where that is None, no
                message is compressed.

        Raises:
            ConnectionClosed: the connection is not open.
            InvalidState: a message in fragments is unfinished.
            TypeError: `data` is neither `str` nor bytes-like.
            UnicodeError: `data` is not text.
            ExtensionError: an extension failed on it; it was not sent.
        """
        self.send_prepared(self.prepare_message(data, text, compress))

    def prepare_message(
        self, data: str | BytesLike, text: bool | None = None, compress: bool | None = None
    ) -> Prepared:
        """Do the costly part of `send_message`; only this may be called from another thread.

        What is returned must be given to `send_prepared` before anything else is prepared or sent. Arguments and
        errors are those of `send_message`.
        """
        if self.state is not _OPEN:
            raise self.closed_error()
        if self._fragmented:
            raise InvalidState("a message in fragments is unfinished")
        opcode, payload = _as_payload(data, text)
        compression = self.compression
        if compression is not None and (compression.should_compress(len(payload)) if compress is None else compress):
            return opcode, compression.compress(payload), True
        return opcode, payload, False

    def send_prepared(self, prepared: Prepared) -> None:
        """Encode what `prepare_message` returned; errors are those of `send_message`."""
        self._step(_SEND, None)
        opcode, payload, compressed = prepared
        self.outgoing.frame(opcode, payload, rsv1=compressed)

    @property
    def in_message(self) -> bool:
        """Whether a message of this side is sent in fragments and unfinished."""
        return self._fragmented != 0

    def send_fragment(
        self, data: str | BytesLike, fin: bool, *, text: bool | None = None, compress: bool | None = None
    ) -> None:
        """Encode the next fragment of a message (RFC 6455, 5.4).

        The type and the compression of a message are those of its first fragment.

        Args:
            data: as for `send_message`. A character may be split between two fragments of bytes.
            fin: whether it is the last one.
            text, compress: those of `send_message`.

        Raises:
            ConnectionClosed, TypeError, UnicodeError, ExtensionError: as `send_message`.
        """
        self._step(_SEND, None)
        first = not self._fragmented
        opcode, payload = _as_payload(data, text, check=False)
        if first:
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if opcode is _TEXT else None
        if self._utf8 is not None and (not isinstance(data, str) or self._utf8.getstate()[0]):
            self._utf8.decode(payload, fin)  # a fragment may end within a character
        compression = self.compression
        if first:
            squeeze = compression is not None and (
                # The length of the message is known only if this is all of it.
                compression.should_compress(len(payload) if fin else sys.maxsize) if compress is None else compress
            )
            self._fragmented = 2 if squeeze else 1
        if self._fragmented == 2 and compression is not None:
            payload = compression.compress(payload) if first and fin else compression.compress_fragment(payload, fin)
        held = len(self.encoder)
        try:
            self.outgoing.frame(opcode if first else _CONT, payload, fin=fin, rsv1=first and self._fragmented == 2)
        except BaseException:
            # An extension may fail before the frame is in the encoder, and Ctrl-C come after.
            if first and len(self.encoder) == held:
                self._fragmented = 0
            raise
        if fin:
            self._fragmented = 0

    def send_ping(self, payload: BytesLike = b"") -> None:
        """Encode a Ping frame with at most 125 bytes (RFC 6455, 5.5.2).

        Raises:
            ConnectionClosed: the connection is not open.
            ValueError: the payload is too long.
        """
        self._step(_SEND, None)
        self.outgoing.frame(_PING, payload)

    def send_pong(self, payload: BytesLike = b"") -> None:
        """Encode an unsolicited Pong frame; errors are those of `send_ping`."""
        self._step(_SEND, None)
        self.outgoing.frame(_PONG, payload)

    def close(
        self, code: int | None = CloseCode.NORMAL_CLOSURE, reason: str = "", cause: CloseCause = CloseCause.LOCAL
    ) -> None:
        """Start the closing handshake (RFC 6455, 7.1.2); without effect once the connection is closing.

        Args:
            code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; None or 1005 for a Close frame without a body. Default:
                1000.
            reason: at most 123 bytes in UTF-8. Default: none.
            cause: what `cause` will say. Default: `CloseCause.LOCAL`.

        Raises:
            ValueError: another code, or a reason that is too long, whatever the state.
            TypeError: `code` is no integer, or `reason` no `str`.
        """
        body = encode_close(code, reason)
        if self._step(_CLOSE_CALL, None) is Action.START_CLOSE:
            self.cause = cause
            self._send_close(body)

    def abandon(self, cause: CloseCause) -> None:
        """Record why this side ends the transport without waiting any longer, unless a cause is known already."""
        if self.cause is None or self.state is _CLOSING:
            self.cause = cause

    @property
    def should_end_transport(self) -> bool:
        """Whether this side is to end the transport now, after what is in the encoder was sent."""
        return self.state is _DRAINING and (self.side is _SERVER or self.failure is not None)

    @property
    def closed_ok(self) -> bool:
        """Whether it ended well: Close frames with 1000 or 1001, or without a code, both ways."""
        return ended_well(self.close_rcvd, self.close_sent)

    @property
    def close_code(self) -> int | None:
        """The peer's close code, 1005 without one, 1006 without a Close frame (RFC 6455, 7.1.5); None while open."""
        return None if self.state < _DRAINING else (self.close_rcvd or NO_CLOSE).code

    @property
    def close_reason(self) -> str | None:
        """The reason of the peer's Close frame, ``""`` without one (RFC 6455, 7.1.6); None while open."""
        return None if self.state < _DRAINING else (self.close_rcvd or NO_CLOSE).reason

    def closed_error(self) -> ConnectionClosed:
        """Make the exception that tells how the connection ended."""
        made = ConnectionClosedOK if self.closed_ok else ConnectionClosedError
        error = made(self.close_rcvd, self.close_sent, self.rcvd_then_sent, self.cause or CloseCause.LOST)
        error.__cause__ = self.failure or self.lost
        return error

    # --- The machine ------------------------------------------------------------------------------------

    def _step(self, kind: Input, event: object) -> Action:
        self.state, action, do = _STEPS[self.state][kind]
        if do is not None:
            do(self, event)
        return action

    def _answer(self, event: Ping) -> None:
        # RFC 6455, 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response, unless it
        # already received a Close frame." 5.5.3: with earlier ones unanswered it "MAY elect to send a Pong frame for
        # only the most recently processed Ping frame".
        if self.congested:
            self._owed_pong = event.payload
        else:
            self.outgoing.frame(_PONG, event.payload)

    def _echo(self, event: Close) -> None:
        # RFC 6455, 5.5.1: "If an endpoint receives a Close frame and did not previously send a Close frame, the
        # endpoint MUST send a Close frame in response." It "typically echos the status code it received"; the reason
        # goes with it.
        self.close_rcvd = self.close_sent = event
        self.rcvd_then_sent = True
        self.cause = cause_of_close(event)
        self.outgoing.frame(_CLOSE, encode_close(event.code, event.reason))

    def _finish(self, event: Close) -> None:
        self.close_rcvd = event
        self.rcvd_then_sent = False

    def _report(self, event: PeerError) -> None:
        # RFC 6455, 7.1.7: "the endpoint SHOULD send a Close frame with an appropriate status code".
        self.failure = event.with_traceback(None)  # whose frames would keep what they hold
        self.cause = cause_of_failure(event)
        self._send_close(encode_close(event.code, shorten_reason(event.reason)))

    def _fail(self, event: PeerError) -> None:
        # RFC 6455, 7.1.7: it "MUST NOT continue to attempt to process data (including a responding Close frame) from
        # the remote endpoint". Its own Close frame was sent before, so the transport is ended.
        self.failure = event.with_traceback(None)  # whose frames would keep what they hold

    def _refuse(self, event: None) -> NoReturn:
        raise self.closed_error()

    def _lose(self, event: None) -> None:
        if self.cause is None:
            self.cause = CloseCause.LOST

    def _send_close(self, body: bytes) -> None:
        # A message of ours that is unfinished stays so: RFC 6455, 5.4 lets control frames in between.
        self.outgoing.frame(_CLOSE, body)
        self.close_sent = Close(int.from_bytes(body[:2], "big"), body[2:].decode()) if body else Close(1005)


_Do: TypeAlias = "Callable[[Connection, object], None]"
_DO: Final[dict[Action, _Do]] = {
    Action.ANSWER: Connection._answer,  # type: ignore[dict-item]
    Action.ECHO: Connection._echo,  # type: ignore[dict-item]
    Action.FINISH: Connection._finish,  # type: ignore[dict-item]
    Action.FAIL: Connection._fail,  # type: ignore[dict-item]
    Action.REPORT: Connection._report,  # type: ignore[dict-item]
    Action.LOSE: Connection._lose,  # type: ignore[dict-item]
    Action.REFUSE: Connection._refuse,  # type: ignore[dict-item]
}
# `TABLE`, with the function that performs each action, or None.
_STEPS: Final = {
    state: {kind: (following, action, _DO.get(action)) for kind, (following, action) in row.items()}
    for state, row in TABLE.items()
}


def _as_payload(data: str | BytesLike, text: bool | None, *, check: bool = True) -> tuple[Opcode, bytes]:
    """Choose the opcode of a message, and make its payload `bytes`."""
    if isinstance(data, str):
        return (_BINARY if text is False else _TEXT), data.encode()
    try:
        payload = copied(data)
    except TypeError:
        raise TypeError(f"expected str or a bytes-like object, got {type(data).__name__}") from None
    if text:
        if check:
            payload.decode()
        return _TEXT, payload
    return _BINARY, payload
