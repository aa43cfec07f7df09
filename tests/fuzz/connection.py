"""Fuzzing of `Connection`: calls of the program and bytes of the peer, in any order.

What it sends must be a proper stream of frames with nothing after a Close frame, its state must follow the rules of
RFC 6455, and only documented exceptions may be raised. Between two `Connection`s, what is sent must arrive.
"""

from __future__ import annotations

from typing import Any

from wsfast import _codec_py
from wsfast.connection import Connection, Side, State
from wsfast.deflate.negotiate import Deflate
from wsfast.events import Close, Ping, Pong
from wsfast.exceptions import ConnectionClosed, InvalidState, PeerError

from .decoder import build
from .deflate import pair
from .source import Cuts, Source

CODES = (None, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 2999, 3000, 4999, 5000, -1, 65536)
REASONS = ("", "bye", "\u20ac" * 41, "x" * 123, "x" * 124)
MESSAGES = (
    "",
    b"",
    "text",
    b"binary",
    "\u20ac\U0001f600",
    b"\xff\xfe",
    b"\xe2\x82",
    b"\xac",
    "x" * 126,
    b"y" * 70000,
    "\u00e9" * 1000,
)
PINGS = (b"", b"p", b"q" * 125, b"r" * 126)


class Watched:
    """A connection, with what is known of it from outside.

    Args:
        connection: the connection.
        inflate: what undoes its compression, or None.
    """

    def __init__(self, connection: Connection, inflate: Any = None) -> None:
        self.connection = connection
        self.sent: list[Any] = []  # messages that were accepted
        self.parts: list[bytes] = []  # of an unfinished one
        self.text = False  # whether that is text
        self.events: list[Any] = []  # that were returned
        # A peer's view: it takes all that is proper.
        self.reader = _codec_py.Decoder(masked=connection.side is Side.CLIENT, max_size=None, inflate=inflate)
        self.seen: list[Any] = []
        self.closed = False  # a Close frame was seen by the peer
        self.state = State.OPEN
        self.congested = False  # at any time

    def check(self) -> bytes:
        """Look at what there is to send, and at the state; return what there is to send."""
        connection = self.connection
        if len(connection.encoder) != 0 and self.closed:
            raise AssertionError("something is sent after a Close frame")
        data = connection.encoder.take()
        for event in self.reader.feed(data):
            if isinstance(event, PeerError):
                raise AssertionError(f"what is sent is wrong: {event!r}")
            if self.closed:
                raise AssertionError(f"{event!r} is sent after a Close frame")
            self.closed = isinstance(event, Close)
            self.seen.append(event)
        if self.reader.held and self.closed:
            raise AssertionError("something is sent after a Close frame")
        if connection.state < self.state:
            raise AssertionError(f"{connection.state!r} after {self.state!r}")
        self.state = connection.state
        if self.closed != (connection.close_sent is not None):
            raise AssertionError(f"close_sent is {connection.close_sent!r}")
        if self.closed and connection.close_sent != self.seen[-1]:
            raise AssertionError(f"close_sent is {connection.close_sent!r}, sent {self.seen[-1]!r}")
        if (connection.state is State.OPEN) != (connection.cause is None):
            raise AssertionError(f"{connection.state!r} with cause {connection.cause!r}")
        if connection.failure is not None and connection.close_rcvd is not None:
            raise AssertionError("a failure and a Close frame")
        if connection.should_end_transport and connection.state is not State.DRAINING:
            raise AssertionError("the transport is to be ended too early or too late")
        if connection.state > State.OPEN:
            error = connection.closed_error()
            str(error)
        return data

    def receive(self, data: bytes) -> None:
        """Take in bytes."""
        before = self.connection.state
        had_close = self.connection.close_rcvd is not None
        events = self.connection.receive_data(data)
        if events and before >= State.DRAINING:
            raise AssertionError(f"{events!r} after the end")
        # RFC 6455, 7.1.1: messages that were under way are for the application.
        if before is State.CLOSING and any(isinstance(event, Ping) for event in events):
            raise AssertionError(f"{events!r} after this side's Close frame")
        for at, event in enumerate(events):
            if isinstance(event, (Close, PeerError)) and (at + 1 != len(events) or had_close):
                raise AssertionError(f"{events!r}: something after the end")
        self.events += events

    def act(self, source: Source) -> None:
        """Make one call of the program's, as the input says."""
        connection = self.connection
        kind = source.byte()
        state = connection.state
        fragmented = connection.in_message
        text = source.choice((None, None, True, False)) if kind & 64 else None
        compress = source.choice((None, True, False)) if kind & 128 else None
        try:
            match kind & 15:
                case 0 | 1 | 2:
                    message: Any = source.choice(MESSAGES)
                    connection.send_message(message, text=text, compress=compress)
                    self.sent.append(_as_sent(message, text))
                case 3 | 4 | 5:
                    message = source.choice(MESSAGES)
                    fin = bool(kind & 16)
                    connection.send_fragment(message, fin, text=text, compress=compress)
                    if not self.parts:
                        self.text = text is not False if isinstance(message, str) else bool(text)
                    self.parts.append(message.encode() if isinstance(message, str) else message)
                    if fin:
                        whole = b"".join(self.parts)
                        self.sent.append(whole.decode() if self.text else whole)
                        self.parts = []
                case 6:
                    connection.send_ping(source.choice(PINGS))
                case 7:
                    connection.send_pong(source.choice(PINGS))
                case 8:
                    connection.close(source.choice(CODES), source.choice(REASONS))
                case 9:
                    connection.receive_eof()
                case 10:
                    connection.congested = not connection.congested
                    self.congested = True
                case 11:
                    connection.answer_ping()
                case _:
                    return
        except ConnectionClosed:
            if state is State.OPEN:
                raise
        except InvalidState:
            if not fragmented:
                raise
        except UnicodeError:
            if not text and not (fragmented and self.text):
                raise
        except ValueError:
            if kind & 15 not in (6, 7, 8):
                raise
        else:
            if state is not State.OPEN and kind & 15 < 8:
                raise AssertionError(f"sent in {state!r}")
        if connection.state is not state and kind & 15 not in (8, 9):
            raise AssertionError(f"{state!r} became {connection.state!r}")


def _as_sent(message: Any, text: bool | None) -> Any:
    """Return what of a message arrives."""
    if isinstance(message, str):
        return message.encode() if text is False else message
    return message.decode() if text else message


def messages(events: list[Any]) -> list[Any]:
    """Return the messages among events."""
    return [event for event in events if isinstance(event, (str, bytes))]


def run_alone(source: Source, flags: int) -> None:
    """Let one connection talk to a peer that sends anything."""
    extensions: Any = pair(Deflate(threshold=0), Deflate(threshold=0))
    server, client = extensions
    is_server = bool(flags & 2)
    ours, theirs = (server, client) if is_server else (client, server)
    compressed = bool(flags & 4)
    watched = Watched(
        Connection(
            Side.SERVER if is_server else Side.CLIENT,
            max_size=1000 if flags & 8 else 1 << 20,
            max_fragments=3 if flags & 16 else None,
            compression=ours if compressed else None,
        ),
        theirs.decompress if compressed else None,
    )
    for _ in range(60):
        if not source:
            break
        kind = source.byte()
        if kind & 1:
            watched.act(source)
        elif kind & 2:
            piece = Source(source.take(kind >> 2))
            watched.receive(build(piece, is_server))
        else:
            watched.receive(source.take(kind >> 3))
        watched.check()
    if messages(watched.seen) != watched.sent:
        raise AssertionError(f"sent {watched.sent!r:.500}, seen {watched.seen!r:.500}")
    pings = [event.payload for event in watched.events if isinstance(event, Ping)]
    pongs = [event.payload for event in watched.seen if isinstance(event, Pong)]
    if not pongs and pings and watched.connection.state is State.OPEN and not watched.congested and flags & 32:
        raise AssertionError(f"no answer to {pings!r}")


def run_pair(source: Source, flags: int) -> None:
    """Let two connections talk to each other."""
    extensions: Any = pair(Deflate(threshold=0), Deflate(threshold=0))
    server, client = extensions
    compressed = bool(flags & 4)
    ends = (
        Watched(
            Connection(Side.SERVER, compression=server if compressed else None, max_size=None),
        ),
        Watched(
            Connection(Side.CLIENT, compression=client if compressed else None, max_size=None),
        ),
    )
    # Each is the other's reader: the wire in between is kept here.
    wires = [bytearray(), bytearray()]
    cuts = Cuts(source.byte())
    for _ in range(80):
        if not source:
            break
        kind = source.byte()
        at = kind & 1
        if kind & 2:
            ends[at].act(source)
        else:
            _pass(ends, wires, at, cuts.next())
        wires[at] += ends[at].connection.encoder.take()
    for _ in range(3):
        for at in (0, 1):
            wires[at] += ends[at].connection.encoder.take()
            _pass(ends, wires, at, 1 << 30)
    for at in (0, 1):
        sender, receiver = ends[at], ends[1 - at]
        came, sent = messages(receiver.events), sender.sent
        closing = receiver.connection.close_sent is not None or receiver.connection.state is State.CLOSED
        if came != sent[: len(came)] or (len(came) < len(sent) and not closing):
            raise AssertionError(f"sent {sent!r:.500}, came {came!r:.500}")
        if receiver.connection.failure is not None:
            raise AssertionError(f"{receiver.connection.failure!r}")
    one, other = (end.connection for end in ends)
    if State.CLOSED not in (one.state, other.state) and one.state is not other.state:
        raise AssertionError(f"{one.state!r}, {other.state!r}")


def _pass(ends: tuple[Watched, Watched], wires: list[bytearray], at: int, size: int) -> None:
    data = bytes(wires[at][:size])
    del wires[at][:size]
    if data:
        ends[1 - at].receive(data)


def run(data: bytes) -> None:
    """Check one input."""
    source = Source(data)
    flags = source.byte()
    if flags & 1:
        run_pair(source, flags)
    else:
        run_alone(source, flags)
