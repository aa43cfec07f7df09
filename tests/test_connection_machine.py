"""Rule-based tests of `Connection`: any order of calls and of what a peer sends, against a small model of RFC 6455."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsfast import _codec_py
from wsfast.codes import CloseCause
from wsfast.connection import Connection, Side, State
from wsfast.events import Close, Ping, Pong
from wsfast.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidState, PeerError

MESSAGES = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["", b"", "x" * 126, b"y" * 65536, "\u20ac\U0001f600" * 40]),
)
PAYLOADS = st.one_of(st.binary(max_size=10), st.just(b"p" * 125))
CODES = st.sampled_from([1000, 1001, 1002, 1003, 1007, 1008, 1011, 1014, 3000, 4999])
REASONS = st.sampled_from(["", "bye", "\u20ac" * 41])
SIDES = st.sampled_from(list(Side))
SETTINGS = settings(max_examples=80, stateful_step_count=30, deadline=None)

Frame = tuple[int, bool, bytes]


def take_frames(stream: bytearray, masked: bool) -> list[Frame]:
    """Take whole, well-formed frames off a stream, without the codec: opcode, fin, payload."""
    frames = []
    while stream:
        assert not stream[0] & 0x70
        assert bool(stream[1] & 0x80) is masked
        length, at = stream[1] & 0x7F, 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(stream[2:at], "big")
            assert length > (125 if at == 4 else 65535)
        key = bytes(4)
        if masked:
            key, at = bytes(stream[at : at + 4]), at + 4
        payload = bytes(byte ^ key[i & 3] for i, byte in enumerate(stream[at : at + length]))
        assert len(payload) == length, "an unfinished frame was sent"
        frames.append((stream[0] & 15, bool(stream[0] & 0x80), payload))
        del stream[: at + length]
    return frames


def as_frame(message: str | bytes) -> Frame:
    """Return the frame that a whole message is sent as."""
    return (1, True, message.encode()) if isinstance(message, str) else (2, True, message)


def body(code: int | None, reason: str = "") -> bytes:
    """Return the payload of a Close frame."""
    return b"" if code is None else code.to_bytes(2, "big") + reason.encode()


@dataclass
class Model:
    """What a connection must have done so far, by RFC 6455 in few words."""

    state: str = "open"
    frames: list[Frame] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    failure: int | None = None
    ok: bool = False

    def sends(self, frame: Frame) -> bool:
        """Note that the program sends a frame, if it may."""
        if self.state == "open":
            self.frames.append(frame)
        return self.state == "open"


class AgainstPeer(RuleBasedStateMachine):
    """One connection, and a peer that sends what it likes."""

    @initialize(side=SIDES, closing=st.booleans(), calm=st.integers(0, 12))
    def begin(self, side: Side, closing: bool, calm: int) -> None:
        self.calm = calm  # calls of the peer before one may end everything
        self.connection = Connection(side, max_size=70000)
        self.masked = side is Side.CLIENT  # what it sends
        self.model = Model()
        self.events: list[Any] = []
        self.frames: list[Frame] = []
        self.owed: bytes | None = None
        self.fragmented = False
        self.peer_fragment: str | None = None
        self.peer_done = False  # nothing that the peer sends counts any more
        if closing:
            self.close(1000, "")

    # --- The peer

    def deliver(self, data: bytes, cut: int) -> None:
        self.calm -= 1
        for piece in (data[:cut], data[cut:]):
            self.events += self.connection.receive_data(piece)

    def peer(self, opcode: int, payload: bytes, cut: int, *, fin: bool = True) -> None:
        mask = None if self.masked else b"\x01\x80\xff\x10"
        self.deliver(_codec_py.encode_frame(opcode, payload, fin=fin, mask=mask), cut)

    @precondition(lambda self: self.peer_fragment is None)
    @rule(message=MESSAGES, cut=st.integers(0, 30))
    def peer_sends(self, message: str | bytes, cut: int) -> None:
        opcode, _, payload = as_frame(message)
        if self.model.state in ("open", "closing") and not self.peer_done:
            self.model.events.append(message)
        self.peer(opcode, payload, cut)

    @rule(text=st.text(max_size=8), fin=st.booleans(), cut=st.integers(0, 10))
    def peer_sends_fragment(self, text: str, fin: bool, cut: int) -> None:
        first = self.peer_fragment is None
        whole = (self.peer_fragment or "") + text
        self.peer_fragment = None if fin else whole
        if fin and self.model.state in ("open", "closing") and not self.peer_done:
            self.model.events.append(whole)
        self.peer(1 if first else 0, text.encode(), cut, fin=fin)

    @rule(payload=PAYLOADS, cut=st.integers(0, 10))
    def peer_pings(self, payload: bytes, cut: int) -> None:
        if self.model.state == "open":
            self.model.events.append(Ping(payload))
            if self.connection.congested:
                self.owed = payload
            else:
                self.model.frames.append((10, True, payload))
        self.peer(9, payload, cut)

    @rule(payload=PAYLOADS, cut=st.integers(0, 10))
    def peer_pongs(self, payload: bytes, cut: int) -> None:
        if self.model.state in ("open", "closing") and not self.peer_done:
            self.model.events.append(Pong(payload))
        self.peer(10, payload, cut)

    @precondition(lambda self: self.calm < 0)
    @rule(code=st.one_of(CODES, st.none()), reason=REASONS, cut=st.integers(0, 10))
    def peer_closes(self, code: int | None, reason: str, cut: int) -> None:
        reason = "" if code is None else reason
        if self.model.state in ("open", "closing") and not self.peer_done:
            self.model.events.append(Close(1005 if code is None else code, reason))
            if self.model.state == "open":
                self.model.frames.append((8, True, body(code, reason)))
                self.model.ok = code in (None, 1000, 1001)
            else:
                self.model.ok = code in (None, 1000, 1001) and self.closed_with in (None, 1000, 1001)
            self.model.state = "draining"
        self.peer_done = True
        self.peer(8, body(code, reason), cut)

    @precondition(lambda self: self.calm < 0)
    @rule(kind=st.sampled_from(["masking", "reserved", "length", "opcode", "size", "utf-8", "close"]))
    def peer_errs(self, kind: str) -> None:
        key = b"" if self.masked else bytes(4)
        flag = 0 if self.masked else 0x80
        code, data = {
            "masking": (1002, bytes((0x89, flag ^ 0x80)) + bytes(4)),
            "reserved": (1002, bytes((0xC9, flag)) + key),
            "length": (1002, bytes((0x89, flag | 126, 0, 126)) + key),
            "opcode": (1002, bytes((0x83, flag)) + key),
            "size": (
                1009,
                bytes((0x00 if self.peer_fragment is not None else 0x02, flag | 127)) + (1 << 40).to_bytes(8, "big"),
            ),
            "utf-8": (1007, bytes((0x00 if self.peer_fragment is not None else 0x01, flag | 1)) + key + b"\xff"),
            "close": (1002, bytes((0x88, flag | 2)) + key + (1006).to_bytes(2, "big")),
        }[kind]
        if self.model.state in ("open", "closing") and not self.peer_done:
            self.model.failure = code
            self.model.events.append(code)
            if self.model.state == "open":
                self.model.frames.append((8, True, b""))  # its reason is compared by its code only
            self.model.state = "draining"
        self.peer_done = True
        self.deliver(data, 1)

    @precondition(lambda self: self.calm < 0)
    @rule()
    def transport_ends(self) -> None:
        self.model.state = "closed"
        self.connection.receive_eof()

    # --- The program

    def attempt(self, frames: list[Frame], call: Any, *args: Any, **kwargs: Any) -> bool:
        """Make a call that sends frames if the connection is open, and else raises."""
        if self.model.state != "open":
            with pytest.raises(ConnectionClosed):
                call(*args, **kwargs)
            return False
        call(*args, **kwargs)
        self.model.frames += frames
        return True

    @rule(message=MESSAGES)
    def send(self, message: str | bytes) -> None:
        if self.fragmented and self.model.state == "open":
            with pytest.raises(InvalidState):
                self.connection.send_message(message)
        else:
            self.attempt([as_frame(message)], self.connection.send_message, message)

    @rule(message=st.binary(max_size=10), fin=st.booleans())
    def send_fragment(self, message: bytes, fin: bool) -> None:
        opcode = 0 if self.fragmented else 2
        if self.attempt([(opcode, fin, message)], self.connection.send_fragment, message, fin):
            self.fragmented = not fin

    @rule(payload=PAYLOADS)
    def ping(self, payload: bytes) -> None:
        self.attempt([(9, True, payload)], self.connection.send_ping, payload)

    @rule(payload=PAYLOADS)
    def pong(self, payload: bytes) -> None:
        self.attempt([(10, True, payload)], self.connection.send_pong, payload)

    @rule(too_long=st.binary(min_size=126, max_size=130))
    def ping_too_long(self, too_long: bytes) -> None:
        with pytest.raises(ConnectionClosed if self.model.state != "open" else ValueError):
            self.connection.send_ping(too_long)

    @rule(code=st.one_of(CODES, st.none()), reason=REASONS)
    def close(self, code: int | None, reason: str) -> None:
        reason = "" if code is None else reason
        self.connection.close(code, reason)
        if self.model.state == "open":
            self.model.frames.append((8, True, body(code, reason)))
            self.model.state = "closing"
            self.closed_with = code

    @rule(code=st.sampled_from([0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536]))
    def close_wrongly(self, code: int) -> None:
        with pytest.raises(ValueError, match="code must be"):
            self.connection.close(code)

    @rule(congested=st.booleans())
    def become_congested(self, congested: bool) -> None:
        self.connection.congested = congested
        if not congested:
            self.connection.answer_ping()
            if self.owed is not None and self.model.state == "open":
                self.model.frames.append((10, True, self.owed))
            self.owed = None

    # --- What holds

    @invariant()
    def frames_and_events_are_those_of_the_model(self) -> None:
        if not hasattr(self, "connection"):
            return
        connection, model = self.connection, self.model
        frames = take_frames(bytearray(connection.encoder.take()), self.masked)
        if model.failure is not None and frames and frames[-1][0] == 8:
            assert int.from_bytes(frames[-1][2][:2], "big") == model.failure
            frames[-1] = (8, True, b"")
        self.frames += frames
        assert self.frames == model.frames
        seen = [event.code if isinstance(event, PeerError) else event for event in self.events]
        assert seen == model.events
        assert connection.state.name.lower() == model.state
        assert sum(opcode == 8 for opcode, _, _ in self.frames) <= 1
        failed = None if connection.failure is None else connection.failure.code
        assert failed == model.failure
        assert connection.in_message is self.fragmented
        assert (connection.cause is None) is (model.state == "open")
        ends = model.state == "draining" and (connection.side is Side.SERVER or failed is not None)
        assert connection.should_end_transport is ends
        if model.state != "open":
            assert isinstance(connection.closed_error(), ConnectionClosedOK) is model.ok

    @invariant()
    def a_lost_connection_says_so(self) -> None:
        if not hasattr(self, "connection") or self.model.state != "closed":
            return
        if not any(opcode == 8 for opcode, _, _ in self.frames):
            assert self.connection.cause is CloseCause.LOST


class Talk(RuleBasedStateMachine):
    """A server and a client on a wire that delivers as it likes, but in order and without loss."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = [Connection(Side.SERVER), Connection(Side.CLIENT)]
        self.wires = [bytearray(), bytearray()]  # from each
        self.sent: list[list[Any]] = [[], []]
        self.came: list[list[Any]] = [[], []]
        self.closing = [False, False]

    def flush(self) -> None:
        for end, wire in zip(self.ends, self.wires, strict=True):
            wire += end.encoder.take()

    @rule(at=st.integers(0, 1), message=MESSAGES)
    def send(self, at: int, message: str | bytes) -> None:
        try:
            self.ends[at].send_message(message)
        except ConnectionClosed:
            assert self.ends[at].state is not State.OPEN
        else:
            self.sent[at].append(message)

    @rule(at=st.integers(0, 1), pieces=st.lists(st.text(max_size=5), min_size=1, max_size=4), ping=st.booleans())
    def send_in_fragments(self, at: int, pieces: list[str], ping: bool) -> None:
        if self.ends[at].state is not State.OPEN:
            return
        for number, piece in enumerate(pieces):
            self.ends[at].send_fragment(piece, number == len(pieces) - 1)
            if ping:
                self.ends[at].send_ping(piece.encode())
        self.sent[at].append("".join(pieces))

    @rule(at=st.integers(0, 1), code=CODES, reason=REASONS)
    def close(self, at: int, code: int, reason: str) -> None:
        self.ends[at].close(code, reason)
        self.closing[at] = True

    @rule(at=st.integers(0, 1), size=st.one_of(st.integers(1, 20), st.just(1 << 20)))
    def deliver(self, at: int, size: int) -> None:
        self.flush()
        data = bytes(self.wires[at][:size])
        del self.wires[at][:size]
        other = self.ends[1 - at]
        for event in other.receive_data(data):
            assert not isinstance(event, PeerError)
            if isinstance(event, (str, bytes)):
                self.came[1 - at].append(event)

    @invariant()
    def messages_come_in_order(self) -> None:
        for at in (0, 1):
            came, sent = self.came[1 - at], self.sent[at]
            assert came == sent[: len(came)]

    def teardown(self) -> None:
        # Whatever happened, once all is delivered, both sides agree.
        for _ in range(3):
            for at in (0, 1):
                self.deliver(at, 1 << 30)
        for at in (0, 1):
            # Nothing is lost but what came after this side's own Close frame.
            if not self.closing[1 - at]:
                assert self.came[1 - at] == self.sent[at]
        one, other = self.ends
        assert one.state is other.state
        if any(self.closing):
            assert one.state is State.DRAINING
            assert one.close_rcvd == other.close_sent
            assert other.close_rcvd == one.close_sent
        super().teardown()


AgainstPeer.TestCase.settings = SETTINGS
Talk.TestCase.settings = SETTINGS
TestAgainstPeer = AgainstPeer.TestCase
TestTalk = Talk.TestCase
