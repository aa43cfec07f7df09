"""The state machine by itself: every state, every input, both sides, without input or output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from vectors import ACCEPTED_CLOSE_CODES, BINARY, CLOSE, CONT, PING, PONG, RFC_KEY, TEXT, frame, xor

from wsfast.closing import CLOSE_CODE_EXPLANATIONS, cause_of_failure, encode_close
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import TABLE, Action, Connection, Input, Side, State
from wsfast.events import Close, Fragment, Ping, Pong
from wsfast.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ExtensionError,
    InvalidPayload,
    InvalidState,
    PayloadTooBig,
    ProtocolError,
)

LIVED = [State.OPEN, State.CLOSING, State.DRAINING, State.CLOSED]
SIDES = list(Side)


def from_peer(side: Side, opcode: int, payload: bytes = b"", **options: Any) -> bytes:
    """Build a frame as the peer of a side sends it."""
    return frame(opcode, payload, key=RFC_KEY if side is Side.SERVER else None, **options)


def sent(connection: Connection) -> list[tuple[int, bytes]]:
    """Take what a connection wants to send: the first byte and the payload of each frame."""
    data = connection.encoder.take()
    masked = connection.side is Side.CLIENT
    frames = []
    while data:
        assert bool(data[1] & 0x80) is masked, "RFC 6455, 5.1: a client masks, a server does not"
        length, at = data[1] & 0x7F, 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        key = b""
        if masked:
            key, at = data[at : at + 4], at + 4
        payload = data[at : at + length]
        frames.append((data[0], xor(payload, key) if masked else payload))
        data = data[at + length :]
    return frames


def made(side: Side, state: State, **options: Any) -> Connection:
    """Make a connection, and lead it to a state by what happens in life."""
    connection = Connection(side, **options)
    if state is State.CLOSING:
        connection.close(1000, "bye")
    elif state is State.DRAINING:
        connection.receive_data(from_peer(side, CLOSE, b"\x03\xe9gone"))
    elif state is State.CLOSED:
        connection.receive_eof()
    connection.encoder.take()
    assert connection.state is state
    return connection


FRAMES: dict[Input, tuple[int, bytes, dict[str, Any]]] = {
    Input.MESSAGE: (TEXT, b"hi", {}),
    Input.PING: (PING, b"p", {}),
    Input.PONG: (PONG, b"p", {}),
    Input.CLOSE: (CLOSE, b"\x0b\xb8why", {}),
    Input.FAILURE: (TEXT, b"\xff", {}),
}
EVENTS: dict[Input, Any] = {
    Input.MESSAGE: "hi",
    Input.PING: Ping(b"p"),
    Input.PONG: Pong(b"p"),
    Input.CLOSE: Close(3000, "why"),
}

# --- The table ------------------------------------------------------------------------------------------


def test_the_table_is_complete() -> None:
    assert list(TABLE) == LIVED
    for state, row in TABLE.items():
        assert set(row) == set(Input), state


@pytest.mark.parametrize("state", LIVED)
def test_states_are_never_lived_backwards(state: State) -> None:
    for kind, (after, _) in TABLE[state].items():
        assert after >= state, kind


def test_every_action_is_used_and_sending_is_refused_unless_open() -> None:
    assert {action for row in TABLE.values() for _, action in row.values()} == set(Action)
    for state in LIVED:
        refused = TABLE[state][Input.SEND][1] is Action.REFUSE
        assert refused is (state is not State.OPEN)


# What each cell does, written a second time by its effects: state after, events, frames sent.
Expected = tuple[State, bool, list[tuple[int, bytes]]]
RECEIVED: dict[tuple[State, Input], Expected] = {
    (State.OPEN, Input.MESSAGE): (State.OPEN, True, []),
    (State.OPEN, Input.PING): (State.OPEN, True, [(0x8A, b"p")]),
    (State.OPEN, Input.PONG): (State.OPEN, True, []),
    (State.OPEN, Input.CLOSE): (State.DRAINING, True, [(0x88, b"\x0b\xb8" + EVENTS[Input.CLOSE].reason.encode())]),
    (State.OPEN, Input.FAILURE): (
        State.DRAINING,
        True,
        [(0x88, b"\x03\xeftext message is not UTF-8 at byte 0")],
    ),
    (State.CLOSING, Input.MESSAGE): (State.CLOSING, True, []),
    (State.CLOSING, Input.PING): (State.CLOSING, False, []),
    (State.CLOSING, Input.PONG): (State.CLOSING, True, []),
    (State.CLOSING, Input.CLOSE): (State.DRAINING, True, []),
    (State.CLOSING, Input.FAILURE): (State.DRAINING, True, []),
    **{(state, kind): (state, False, []) for state in (State.DRAINING, State.CLOSED) for kind in FRAMES},
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("state", "kind"), RECEIVED, ids=lambda value: value.name)
def test_every_state_and_every_frame(state: State, kind: Input, side: Side) -> None:
    after, delivered, frames = RECEIVED[state, kind]
    connection = made(side, state)
    opcode, payload, options = FRAMES[kind]
    events = connection.receive_data(from_peer(side, opcode, payload, **options))
    assert connection.state is after
    assert sent(connection) == frames
    if not delivered:
        assert events == []
    elif kind is Input.FAILURE:
        assert [type(event) for event in events] == [InvalidPayload]
    else:
        assert events == [EVENTS[kind]]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", LIVED)
def test_every_state_and_the_end_of_the_transport(state: State, side: Side) -> None:
    connection = made(side, state)
    cause = connection.cause
    connection.receive_eof()
    assert connection.state is State.CLOSED
    assert connection.cause is (cause or CloseCause.LOST)
    assert sent(connection) == []
    before = connection.closed_error().args
    connection.receive_eof()  # told again
    assert connection.closed_error().args == before


SENDERS: list[Callable[[Connection], None]] = [
    lambda connection: connection.send_message("hi"),
    lambda connection: connection.send_message(b"hi"),
    lambda connection: connection.send_fragment("hi", True),
    lambda connection: connection.send_fragment("hi", False),
    lambda connection: connection.send_ping(b"hi"),
    lambda connection: connection.send_pong(b"hi"),
]
SENT = [0x81, 0x82, 0x81, 0x01, 0x89, 0x8A]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", LIVED)
@pytest.mark.parametrize(("send", "first"), list(zip(SENDERS, SENT, strict=True)))
def test_every_state_and_sending(state: State, side: Side, send: Callable[[Connection], None], first: int) -> None:
    """RFC 6455, 5.5.1: "The application MUST NOT send any more data frames after sending a Close frame." """
    connection = made(side, state)
    if state is State.OPEN:
        send(connection)
        assert sent(connection) == [(first, b"hi")]
        return
    with pytest.raises(ConnectionClosed) as caught:
        send(connection)
    assert connection.state is state
    assert sent(connection) == []
    assert caught.value.args == connection.closed_error().args


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", LIVED)
def test_every_state_and_closing(state: State, side: Side) -> None:
    connection = made(side, state)
    before = (connection.close_sent, connection.cause)
    connection.close(4000, "enough", CloseCause.STOP)
    if state is State.OPEN:
        assert connection.state is State.CLOSING
        assert sent(connection) == [(0x88, b"\x0f\xa0enough")]
        assert (connection.close_sent, connection.cause) == (Close(4000, "enough"), CloseCause.STOP)
    else:
        assert connection.state is state
        assert sent(connection) == []
        assert (connection.close_sent, connection.cause) == before


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", LIVED)
def test_a_wrong_close_is_refused_in_every_state(state: State, side: Side) -> None:
    connection = made(side, state)
    with pytest.raises(ValueError, match="code must be"):
        connection.close(1006)
    assert connection.state is state


# --- Closing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("code", [*sorted(ACCEPTED_CLOSE_CODES)[:12], 3000, 4999])
def test_code_and_reason_of_a_close_are_echoed(side: Side, code: int) -> None:
    """RFC 6455, 5.5.1: "the endpoint MUST send a Close frame in response"."""
    connection = Connection(side)
    events = connection.receive_data(from_peer(side, CLOSE, code.to_bytes(2, "big") + b"so"))
    assert events == [Close(code, "so")]
    assert sent(connection) == [(0x88, code.to_bytes(2, "big") + b"so")]
    assert connection.close_rcvd == connection.close_sent == Close(code, "so")
    assert connection.rcvd_then_sent is True
    assert connection.cause is (CloseCause.REJECTED if code in (1002, 1003, 1007, 1009, 1010) else CloseCause.PEER)


@pytest.mark.parametrize("side", SIDES)
def test_a_close_without_a_body_is_echoed_without_one(side: Side) -> None:
    """RFC 6455, 5.5.1; 1005 is never sent (7.4.1)."""
    connection = Connection(side)
    assert connection.receive_data(from_peer(side, CLOSE)) == [Close(1005)]
    assert sent(connection) == [(0x88, b"")]
    assert connection.close_sent == Close(1005)
    assert isinstance(connection.closed_error(), ConnectionClosedOK)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("code", [None, 1005])
def test_closing_without_a_code(side: Side, code: int | None) -> None:
    """RFC 6455, 7.4.1: 1005 "MUST NOT be set as a status code in a Close control frame"."""
    connection = Connection(side)
    connection.close(code)
    assert sent(connection) == [(0x88, b"")]
    assert connection.close_sent == Close(1005)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x03", 1002),
        *((wrong.to_bytes(2, "big"), 1002) for wrong in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xe8" + "é".encode()[:1], 1007),
    ],
)
def test_a_wrong_close_fails_the_connection(side: Side, body: bytes, code: int) -> None:
    """RFC 6455, 5.5.1 and 7.4.1: a body of one byte, codes that no frame may have, a reason that is not UTF-8 (8.1)."""
    connection = Connection(side)
    [failure] = connection.receive_data(from_peer(side, CLOSE, body))
    [(first, answer)] = sent(connection)
    assert (first, answer[:2]) == (0x88, code.to_bytes(2, "big"))
    assert connection.failure is failure
    assert connection.close_rcvd is None
    assert connection.cause is CloseCause.PROTOCOL_ERROR
    error = connection.closed_error()
    assert error.code == 1006
    assert error.__cause__ is failure


@pytest.mark.parametrize("side", SIDES)
def test_our_close_answered(side: Side) -> None:
    connection = Connection(side)
    connection.close(1001, "moving")
    connection.encoder.take()
    assert connection.receive_data(from_peer(side, CLOSE, b"\x03\xe9")) == [Close(1001)]
    assert connection.rcvd_then_sent is False
    assert connection.cause is CloseCause.LOCAL
    error = connection.closed_error()
    assert isinstance(error, ConnectionClosedOK)
    assert error.args == (Close(1001), Close(1001, "moving"), False, CloseCause.LOCAL)


@pytest.mark.parametrize("side", SIDES)
def test_data_after_close_is_dropped_and_what_came_before_is_not(side: Side) -> None:
    """RFC 6455, 1.4 and 5.5.1: after a Close frame, "a peer does not send any further data"."""
    connection = Connection(side)
    data = from_peer(side, TEXT, b"1") + from_peer(side, CLOSE, b"\x03\xe8") + from_peer(side, TEXT, b"2")
    assert connection.receive_data(data + b"no frame at all") == ["1", Close(1000)]
    assert connection.receive_data(b"\xff\xff\xff") == []
    assert sent(connection) == [(0x88, b"\x03\xe8")]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("rcvd", [1000, 1001, 1005, 1002, 1008, 3000])
@pytest.mark.parametrize("gave", [1000, 1001, 1005, 1011, 4000])
def test_what_ends_well(side: Side, rcvd: int, gave: int) -> None:
    connection = Connection(side)
    connection.close(gave)
    connection.receive_data(from_peer(side, CLOSE, b"" if rcvd == 1005 else rcvd.to_bytes(2, "big")))
    well = rcvd in (1000, 1001, 1005) and gave in (1000, 1001, 1005)
    assert type(connection.closed_error()) is (ConnectionClosedOK if well else ConnectionClosedError)
    assert connection.closed_ok is well
    assert connection.closed_error().code == rcvd


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", LIVED)
def test_lost_is_1006_and_an_error(side: Side, state: State) -> None:
    connection = made(side, state)
    connection.receive_eof()
    error = connection.closed_error()
    if state is State.DRAINING:
        assert isinstance(error, ConnectionClosedOK)
        assert (error.code, error.reason) == (1001, "gone")
    else:
        assert isinstance(error, ConnectionClosedError)
        assert (error.code, error.reason) == (1006, "")


@pytest.mark.parametrize("side", SIDES)
def test_who_ends_the_transport(side: Side) -> None:
    """RFC 6455, 7.1.1: TCP "SHOULD be closed first by the server"; who fails the connection ends it (7.1.7)."""
    closed_by_peer = made(side, State.DRAINING)
    assert closed_by_peer.should_end_transport is (side is Side.SERVER)  # RFC 6455, 7.1.1
    ours = made(side, State.CLOSING)
    assert not ours.should_end_transport
    ours.receive_data(from_peer(side, CLOSE, b"\x03\xe8"))
    assert ours.should_end_transport is (side is Side.SERVER)
    failed = Connection(side)
    failed.receive_data(from_peer(side, TEXT, b"\xff"))
    assert failed.should_end_transport  # 7.1.7
    failed_while_closing = made(side, State.CLOSING)
    failed_while_closing.receive_data(from_peer(side, TEXT, b"\xff"))
    assert failed_while_closing.should_end_transport
    assert not Connection(side).should_end_transport
    assert not made(side, State.CLOSED).should_end_transport


@pytest.mark.parametrize("state", LIVED)
def test_abandon_names_a_cause_where_none_is_known(state: State) -> None:
    connection = made(Side.SERVER, state)
    before = connection.cause
    connection.abandon(CloseCause.TIMEOUT)
    assert connection.cause is (CloseCause.TIMEOUT if state in (State.OPEN, State.CLOSING) else before)


def test_a_failure_names_its_code() -> None:
    for data, kind, code in [
        (frame(TEXT, b"x"), ProtocolError, 1002),  # not masked
        (frame(3, key=RFC_KEY), ProtocolError, 1002),
        (frame(TEXT, b"\xc0", key=RFC_KEY), InvalidPayload, 1007),
        (frame(TEXT, bytes(11), key=RFC_KEY), PayloadTooBig, 1009),
    ]:
        connection = Connection(Side.SERVER, max_size=10)
        [failure] = connection.receive_data(data)
        assert type(failure) is kind
        assert connection.close_sent == Close(code, str(failure))


def test_a_long_reason_of_a_failure_is_cut_at_a_character() -> None:
    connection = Connection(Side.SERVER)
    connection.handle(ProtocolError("é" * 100))
    [(_, body)] = sent(connection)
    assert body == b"\x03\xea" + ("é" * 61).encode()


@pytest.mark.parametrize(
    ("code", "reason", "body"),
    [
        (None, "", b""),
        (1005, "", b""),
        (1000, "", b"\x03\xe8"),
        (CloseCode.GOING_AWAY, "é", b"\x03\xe9\xc3\xa9"),
        (4999, "x" * 123, b"\x13\x87" + b"x" * 123),
    ],
)
def test_encode_close(code: int | None, reason: str, body: bytes) -> None:
    assert encode_close(code, reason) == body


@pytest.mark.parametrize(
    ("code", "reason", "kind", "match"),
    [
        *((code, "", ValueError, f"got {code}") for code in (-1, 0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536)),
        (None, "x", ValueError, "needs a close code"),
        (1000, "x" * 124, ValueError, "at most 123 bytes in UTF-8, got 124"),
        (1000, "é" * 62, ValueError, "got 124"),
        (1000, "\ud800", UnicodeEncodeError, "surrogates"),
        ("1000", "", TypeError, "code must be int, got str"),
        (1000.0, "", TypeError, "code must be int, got float"),
        (1000, b"x", TypeError, "reason must be str, got bytes"),
    ],
)
def test_encode_close_refuses(code: Any, reason: Any, kind: type[Exception], match: str) -> None:
    """RFC 6455, 7.4.1: codes that "MUST NOT be set"; 5.5: a body of at most 125 bytes."""
    with pytest.raises(kind, match=match):
        encode_close(code, reason)


def test_what_may_be_sent_is_what_may_be_received() -> None:
    allowed = set()
    for code in range(5100):
        with suppress(ValueError):
            encode_close(code)
            allowed.add(code)
    assert allowed == ACCEPTED_CLOSE_CODES | {1005}


def test_close_check() -> None:
    """1005 stands for a frame without a code: it is no code to send."""
    allowed = set()
    for code in range(-1, 5100):
        with suppress(ValueError):
            Close(code).check()
            allowed.add(code)
    assert allowed == ACCEPTED_CLOSE_CODES
    with pytest.raises(ValueError, match="code must be 1000-1003, 1007-1014 or 3000-4999, got 1006"):
        Close(CloseCode.ABNORMAL_CLOSURE, "x").check()


def test_why_this_side_fails_a_connection() -> None:
    """Whose fault it is: a limit of this program's is no rule that the peer broke."""
    assert cause_of_failure(PayloadTooBig("")) is CloseCause.TOO_BIG
    assert cause_of_failure(ExtensionError("")) is CloseCause.HANDLER_ERROR
    assert cause_of_failure(InvalidPayload("")) is CloseCause.PROTOCOL_ERROR
    assert cause_of_failure(ProtocolError("")) is CloseCause.PROTOCOL_ERROR


def test_each_close_code_is_explained() -> None:
    assert list(CLOSE_CODE_EXPLANATIONS) == list(CloseCode)


# --- Pings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_pings_to_a_congested_peer_are_answered_once(side: Side) -> None:
    """RFC 6455, 5.5.3: it "MAY elect to send a Pong frame for only the most recently processed Ping frame"."""
    connection = Connection(side)
    connection.congested = True
    for number in range(10):
        connection.receive_data(from_peer(side, PING, b"%d" % number))
    assert sent(connection) == []
    connection.congested = False
    connection.answer_ping()
    assert sent(connection) == [(0x8A, b"9")]
    connection.answer_ping()
    assert sent(connection) == []


def test_an_owed_pong_is_not_sent_after_a_close() -> None:
    """RFC 6455, 5.5.2: a Ping "MUST" be answered, "unless it already received a Close frame"."""
    connection = Connection(Side.SERVER)
    connection.congested = True
    connection.receive_data(from_peer(Side.SERVER, PING))
    connection.close()
    connection.encoder.take()
    connection.answer_ping()
    assert sent(connection) == []


@pytest.mark.parametrize("send", [Connection.send_ping, Connection.send_pong])
def test_control_frames_have_at_most_125_bytes(send: Callable[[Connection, bytes], None]) -> None:
    """RFC 6455, 5.5: "All control frames MUST have a payload length of 125 bytes or less"."""
    connection = Connection(Side.SERVER)
    send(connection, bytes(125))
    with pytest.raises(ValueError, match="at most 125 bytes, got 126"):
        send(connection, bytes(126))
    assert [len(payload) for _, payload in sent(connection)] == [125]


# --- Messages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("data", "text", "frames"),
    [
        ("é", None, [(0x81, "é".encode())]),
        ("é", True, [(0x81, "é".encode())]),
        ("é", False, [(0x82, "é".encode())]),
        (b"\xff", None, [(0x82, b"\xff")]),
        (b"\xff", False, [(0x82, b"\xff")]),
        (b"\xc3\xa9", True, [(0x81, b"\xc3\xa9")]),
        (bytearray(b"ab"), None, [(0x82, b"ab")]),
        (memoryview(b"abcd")[::2], None, [(0x82, b"ac")]),
        ("", None, [(0x81, b"")]),
        (b"", None, [(0x82, b"")]),
    ],
)
def test_send_message(side: Side, data: Any, text: bool | None, frames: list[tuple[int, bytes]]) -> None:
    connection = Connection(side)
    connection.send_message(data, text=text)
    assert sent(connection) == frames


@pytest.mark.parametrize(
    ("data", "text", "kind"),
    [(1, None, TypeError), (None, None, TypeError), (["x"], None, TypeError), (b"\xff", True, UnicodeDecodeError)],
)
def test_what_is_no_message_leaves_no_trace(data: Any, text: bool | None, kind: type[Exception]) -> None:
    connection = Connection(Side.SERVER)
    with pytest.raises(kind):
        connection.send_message(data, text=text)
    with pytest.raises(kind):
        connection.send_fragment(data, True, text=text)
    assert not connection.in_message
    connection.send_message("fine")
    assert sent(connection) == [(0x81, b"fine")]


def test_fragments_of_ours() -> None:
    connection = Connection(Side.SERVER)
    connection.send_fragment("a", False)
    assert connection.in_message
    connection.send_ping()
    with pytest.raises(InvalidState, match="unfinished"):
        connection.send_message("x")
    connection.send_fragment("", False)
    connection.send_fragment("b", True)
    assert not connection.in_message
    assert sent(connection) == [(0x01, b"a"), (0x89, b""), (0x00, b""), (0x80, b"b")]


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_at_a_first_fragment(after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a message is begun is what the encoder holds, wherever Ctrl-C came."""
    connection = made(Side.CLIENT, State.OPEN)

    class Outgoing:
        def frame(self, *args: Any, **options: Any) -> None:
            if after:
                connection.encoder.frame(*args, **options)
            raise KeyboardInterrupt

    monkeypatch.setattr(connection, "outgoing", Outgoing())
    with pytest.raises(KeyboardInterrupt):
        connection.send_fragment("x", False)
    assert connection.in_message == after


def test_fragments_of_text_may_end_within_a_character() -> None:
    connection = Connection(Side.SERVER)
    for octet in "é€".encode():
        connection.send_fragment(bytes([octet]), False, text=True)
    connection.send_fragment(b"", True, text=True)
    assert b"".join(payload for _, payload in sent(connection)) == "é€".encode()
    connection.send_fragment(b"\xc3", False, text=True)
    with pytest.raises(UnicodeDecodeError):
        connection.send_fragment(b"", True, text=True)
    with pytest.raises(UnicodeDecodeError):
        connection.send_fragment(b"(", False, text=True)


def test_fragments_of_the_peer() -> None:
    connection = Connection(Side.SERVER)
    data = from_peer(Side.SERVER, TEXT, b"a", fin=False) + from_peer(Side.SERVER, PING)
    assert connection.receive_data(data) == [Ping(b"")]
    assert connection.receive_data(from_peer(Side.SERVER, CONT, b"b")) == ["ab"]
    connection.decoder.streaming = True
    assert connection.receive_data(from_peer(Side.SERVER, BINARY, b"c", fin=False)) == [Fragment(b"c", False)]


def test_a_close_may_stand_between_fragments_of_ours() -> None:
    """RFC 6455, 5.4: "Control frames MAY be injected in the middle of a fragmented message." """
    connection = Connection(Side.SERVER)
    connection.send_fragment(b"a", False)
    connection.close()
    assert sent(connection) == [(0x02, b"a"), (0x88, b"\x03\xe8")]
    with pytest.raises(ConnectionClosed):
        connection.send_fragment(b"b", True)


def test_prepared_messages_are_refused_if_the_connection_closed_meanwhile() -> None:
    connection = Connection(Side.SERVER)
    prepared = connection.prepare_message("x")
    connection.close()
    connection.encoder.take()
    with pytest.raises(ConnectionClosed):
        connection.send_prepared(prepared)
    with pytest.raises(ConnectionClosed):
        connection.prepare_message("x")
    assert sent(connection) == []


class Squeeze:
    """A compression that can be seen: it reverses the bytes, and notes what comes in fragments."""

    def __init__(self) -> None:
        self.fragments: list[tuple[bytes, bool]] = []

    def decompress(self, data: bytes, fin: bool, limit: int) -> bytes:
        return data[::-1]

    def compress(self, data: bytes) -> bytes:
        return data[::-1]

    def compress_fragment(self, data: bytes, fin: bool) -> bytes:
        self.fragments.append((data, fin))
        return data[::-1]

    def should_compress(self, nbytes: int) -> bool:
        return nbytes >= 3

    def close(self) -> None: ...


def test_compression_marks_the_first_frame() -> None:
    connection = Connection(Side.SERVER, compression=Squeeze())
    connection.send_message("ab")
    connection.send_message("abc")
    connection.send_message("abc", compress=False)
    connection.send_message("ab", compress=True)
    connection.send_fragment("ab", False)
    connection.send_fragment("cd", True)
    connection.send_fragment("ab", False, compress=False)
    connection.send_fragment("cd", True)
    assert sent(connection) == [
        (0x81, b"ab"),
        (0xC1, b"cba"),
        (0x81, b"abc"),
        (0xC1, b"ba"),
        (0x41, b"ba"),
        (0x80, b"dc"),
        (0x01, b"ab"),
        (0x80, b"cd"),
    ]
    assert connection.receive_data(from_peer(Side.SERVER, TEXT, b"cba", rsv=4)) == ["abc"]


def test_a_message_that_is_one_fragment_is_compressed_as_a_whole() -> None:
    squeeze = Squeeze()
    connection = Connection(Side.SERVER, compression=squeeze)
    connection.send_fragment("whole", True)
    assert squeeze.fragments == []
    connection.send_fragment("ab", False)
    connection.send_fragment("cd", False)
    connection.send_fragment("ef", True)
    assert squeeze.fragments == [(b"ab", False), (b"cd", False), (b"ef", True)]
    assert sent(connection) == [(0xC1, b"elohw"), (0x41, b"ba"), (0x00, b"dc"), (0x80, b"fe")]


def test_a_fragment_of_str_does_not_end_a_character_begun_in_bytes() -> None:
    connection = Connection(Side.SERVER)
    connection.send_fragment("é".encode()[:1], False, text=True)
    with pytest.raises(UnicodeDecodeError):
        connection.send_fragment("a", True)


def test_there_may_be_no_ping_to_answer() -> None:
    connection = Connection(Side.SERVER)
    connection.answer_ping()
    assert sent(connection) == []


@pytest.mark.parametrize(("body", "code", "reason"), [(b"", 1005, ""), (b"\x0f\xa0bye", 4000, "bye"), (None, 1006, "")])
def test_code_and_reason_of_the_peer(body: bytes | None, code: int, reason: str) -> None:
    """RFC 6455, 7.1.5 and 7.1.6: they are those of the first Close frame that was received, if one was."""
    connection = Connection(Side.CLIENT)
    for begun in (False, True):
        if begun:
            connection.close(4999, "ours")
        assert (connection.close_code, connection.close_reason) == (None, None)
    if body is not None:
        connection.receive_data(from_peer(Side.CLIENT, CLOSE, body))
        assert connection.state is State.DRAINING
        assert (connection.close_code, connection.close_reason) == (code, reason)
    connection.receive_eof()
    assert (connection.close_code, connection.close_reason) == (code, reason)


def test_an_end_that_nobody_told_of_is_a_loss() -> None:
    assert Connection(Side.SERVER).closed_error().cause is CloseCause.LOST


@pytest.mark.parametrize("side", SIDES)
def test_every_cut_of_a_conversation_gives_the_same(side: Side) -> None:
    data = b"".join(
        [
            from_peer(side, TEXT, "é".encode()),
            from_peer(side, PING, b"1"),
            from_peer(side, BINARY, b"ab", fin=False),
            from_peer(side, PONG),
            from_peer(side, CONT, b"cd"),
            from_peer(side, CLOSE, b"\x03\xe8ok"),
        ]
    )
    expected = ["é", Ping(b"1"), Pong(b""), b"abcd", Close(1000, "ok")]
    for cut in range(len(data) + 1):
        connection = Connection(side)
        assert connection.receive_data(data[:cut]) + connection.receive_data(data[cut:]) == expected
        assert sent(connection) == [(0x8A, b"1"), (0x88, b"\x03\xe8ok")]


@pytest.mark.parametrize("state", LIVED)
def test_what_ended_the_transport(state: State) -> None:
    """The first exception is kept, without its traceback, unless the closing handshake was done by then."""
    connection = made(Side.SERVER, state)
    try:
        raise ConnectionResetError("first")
    except ConnectionResetError as exc:
        first = exc
    connection.lose(first)
    connection.receive_eof(OSError("second"))
    assert connection.lost is (first if state < State.DRAINING else None)
    assert (first.__traceback__ is None) is (state < State.DRAINING)


@pytest.mark.parametrize("name", ["send_ping", "send_pong"])
def test_control_frames_are_empty_by_default(name: str) -> None:
    connection = Connection(Side.SERVER)
    getattr(connection, name)()
    assert sent(connection) == [(0x80 | (PING if name == "send_ping" else PONG), b"")]
