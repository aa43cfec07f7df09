"""`Session`: keepalive, closing and the end, by a clock that the test holds; no loop, no socket, no sleep."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest

from wsfast._codec_py import encode_frame
from wsfast.codes import CloseCause, CloseCode
from wsfast.connection import Side, State
from wsfast.events import Close, Fragment, Ping, Pong
from wsfast.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
)
from wsfast.session import GRACE, LINGER, LONGEST, MAX_EVENTS, MAX_PINGS, OVERHEAD, Do, Limits, Marks, Session

START = 1000.0
CLOSE, PING, PONG, TEXT = 8, 9, 10, 1
SIDES = pytest.mark.parametrize("side", list(Side), ids=lambda side: side.value)


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
def test_a_time_that_no_clock_holds(name: str) -> None:
    times: dict[str, Any]
    for times in ({name: 10**400}, {name: 1e300}, {name: 2**63}):
        limits = Limits(**times)
        assert getattr(limits, name) == LONGEST
        session = Session(Side.SERVER, limits, START)
        session.close(START, 1000, "", CloseCause.LOCAL)
        session.receive_data(frame(session, CLOSE, b"\x03\xe8"), START)


def frame(session: Session, opcode: int, payload: bytes = b"") -> bytes:
    """Make a frame as the peer of a session sends it."""
    return encode_frame(opcode, payload, mask=b"mask" if session.connection.side is Side.SERVER else None)


def broken(session: Session) -> bytes:
    """Make a frame whose opcode is reserved (RFC 6455, 5.2)."""
    return b"\x83\x80mask" if session.connection.side is Side.SERVER else b"\x83\x00"


def sent(session: Session) -> list[tuple[int, bytes]]:
    """Take what the session has sent: opcodes and payloads of small frames."""
    data = session.connection.encoder.take()
    frames = []
    while data:
        masked, size = data[1] >> 7, data[1] & 127
        payload = data[2 + 4 * masked : 2 + 4 * masked + size]
        if masked:
            key = data[2:6]
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        frames.append((data[0] & 15, payload))
        data = data[2 + 4 * masked + size :]
    return frames


def make(side: Side = Side.SERVER, **limits: Any) -> Session:
    return Session(side, Limits(**limits), START)


@dataclass
class Clock:
    """Calls `on_time` whenever the session asks for it, as a shell does, and records what it was told."""

    session: Session
    now: float = START
    done: list[tuple[float, Do]] = field(default_factory=list)
    frames: list[tuple[float, int, bytes]] = field(default_factory=list)

    def run(self, until: float, heard: Callable[[float], None] | None = None) -> None:
        for _ in range(10000):
            deadline = self.session.deadline
            if deadline is None or deadline > START + until:
                self.now = START + until
                return
            self.now = deadline
            do = self.session.on_time(self.now)
            when = round(self.now - START, 6)
            if do is not Do.NOTHING:
                self.done.append((when, do))
            self.frames += [(when, *one) for one in sent(self.session)]
            if heard is not None:
                heard(self.now)
        raise AssertionError("the session asks for one moment again and again")

    def pings(self) -> list[float]:
        return [when for when, opcode, _ in self.frames if opcode == PING]


# --- Keepalive ------------------------------------------------------------------------------------------


@SIDES
@pytest.mark.parametrize(("interval", "timeout"), [(1, 8), (1, 1), (20, 20), (8, 1), (30, 300), (5, None)])
def test_a_ping_goes_out_every_interval_of_silence(side: Side, interval: float, timeout: float | None) -> None:
    """Whatever `ping_timeout` is (RFC 6455, 5.5.2: "as a keepalive or as a means to verify that it is responsive")."""
    session = make(side, ping_interval=interval, ping_timeout=timeout)
    clock = Clock(session)

    def answer(now: float) -> None:
        for when, opcode, payload in clock.frames[-1:]:
            if opcode == PING and when == round(now - START, 6):
                session.receive_data(frame(session, PONG, payload), now)

    clock.run(interval * 10, answer)
    assert clock.pings() == [interval * n for n in range(1, 11)]
    assert {do for _, do in clock.done} == {Do.FLUSH}
    assert session.connection.state is State.OPEN
    assert session.pings_sent == 10


@SIDES
def test_other_limits_count_from_when_they_are_given(side: Side) -> None:
    session = make(side, ping_interval=20, ping_timeout=20)
    clock = Clock(session)
    clock.run(5)
    session.change_limits(Limits(ping_interval=3, ping_timeout=4, close_timeout=2), clock.now)
    clock.run(20)
    assert clock.pings() == [8, 11]  # no pong came: the first of them is late at 12
    assert clock.done[-1] == (12, Do.DROP)
    assert session.connection.cause is CloseCause.KEEPALIVE

    session = make(side, ping_interval=20)
    session.change_limits(Limits(ping_interval=None), START)
    assert session.deadline is None


@SIDES
@pytest.mark.parametrize(("interval", "timeout"), [(1, 8), (1, 1), (20, 20), (8, 1), (30, 300)])
def test_a_dead_peer_is_known_a_timeout_after_the_ping_it_did_not_answer(
    side: Side, interval: float, timeout: float
) -> None:
    session = make(side, ping_interval=interval, ping_timeout=timeout)
    clock = Clock(session)
    clock.run(1000)
    assert clock.done[-1] == (interval + timeout, Do.DROP)
    assert clock.frames[-1] == (interval + timeout, CLOSE, b"\x03\xf3keepalive ping timeout")
    assert clock.pings() == [interval * n for n in range(1, 400) if interval * n < interval + timeout]
    assert session.connection.cause is CloseCause.KEEPALIVE
    session.receive_eof()
    assert session.deadline is None
    assert session.connection.close_code == CloseCode.ABNORMAL_CLOSURE


@pytest.mark.parametrize("alive_for", [0, 1, 2, 5])
def test_the_timeout_counts_from_the_first_ping_without_any_answer(alive_for: int) -> None:
    session = make(ping_interval=1, ping_timeout=3)
    clock = Clock(session)

    def heard(now: float) -> None:
        if now <= START + alive_for:
            session.received += 1

    clock.run(100, heard)
    assert clock.done[-1] == (max(1, alive_for + 1) + 3, Do.DROP)


@pytest.mark.parametrize("what", ["message", "pong of nothing", "ping", "one byte"])
def test_whatever_is_heard_is_a_sign_of_life(what: str) -> None:
    session = make(ping_interval=1, ping_timeout=1)
    clock = Clock(session)
    data = {
        "message": frame(session, TEXT, b"hi"),
        "pong of nothing": frame(session, PONG),
        "ping": frame(session, PING),
        "one byte": frame(session, TEXT, bytes(125)),
    }[what]

    def heard(now: float) -> None:
        nonlocal data
        piece, data = (data[:1], data[1:]) if what == "one byte" else (data, data)
        session.receive_data(piece, now)

    clock.run(50, heard)
    assert session.connection.state is State.OPEN
    assert len(clock.pings()) == 50


def test_latency_is_measured_on_a_busy_connection() -> None:
    session = make(ping_interval=1, ping_timeout=1)
    clock = Clock(session)
    for n in range(1, 30):
        clock.run(n / 10)
        session.receive_data(frame(session, TEXT, b"busy"), clock.now)
        for when, _, payload in [one for one in clock.frames if one[1] == PING]:
            clock.frames.clear()
            session.receive_data(frame(session, PONG, payload), START + when + 0.25)
    assert session.latency == 0.25


@pytest.mark.parametrize("case", ["deaf", "takes", "unsent and stuck", "takes all at once"])
def test_what_is_held_against_the_peer(case: str) -> None:
    """Nothing, while this program does not read; and a peer that takes what waits for it is alive."""
    session = make(ping_interval=1, ping_timeout=1)
    session.sent, session.unsent = 1000, 1000 if case != "takes all at once" else 0
    session.deaf = case == "deaf"
    clock = Clock(session)

    def heard(now: float) -> None:
        if case == "takes":
            session.unsent -= 1
        elif case == "takes all at once":
            session.sent += 10  # the system takes what a dead peer never sees

    clock.run(20, heard)
    assert (session.connection.state is State.OPEN) is (case in ("deaf", "takes"))


def test_no_ping_waits_behind_what_the_peer_does_not_take() -> None:
    session = make(ping_interval=1, ping_timeout=5)
    session.congest(START)
    clock = Clock(session)
    clock.run(100)
    assert clock.pings() == []
    assert clock.done == [(6, Do.DROP)]


def test_one_pong_at_a_time_to_a_peer_that_is_behind() -> None:
    """It reads slowly but steadily, and never catches up: it learns that this side lives, from few pongs."""
    session = make(ping_interval=None)
    connection = session.connection

    def hear(payload: bytes, now: float) -> bytes:
        session.handle(Ping(payload), now)
        return take()

    def take() -> bytes:
        frames = connection.encoder.take()
        session.sent += len(frames)
        session.unsent += len(frames)
        return frames

    session.sent = session.unsent = 100_000
    session.congest(START)
    assert session.congested
    assert hear(b"0", START) == b"\x8a\x010"
    assert [hear(b"%d" % n, START + n) for n in range(1, 100)] == [b""] * 99
    assert session.on_time(START + 200) is Do.NOTHING  # nothing was taken
    assert not session.moving
    session.unsent -= 50_000
    session.sent += 50_000  # as much again comes in its place
    session.unsent += 50_000
    assert session.on_time(START + 201) is Do.NOTHING
    assert session.moving
    session.unsent -= 50_003
    assert session.deadline is not None
    assert session.on_time(session.deadline) is Do.FLUSH
    assert take() == b"\x8a\x0299"
    assert hear(b"x", START + 202) == b""
    session.unsent = 0
    assert hear(b"y", START + 202) == b"\x8a\x01y"
    assert hear(b"z", START + 202) == b""
    assert session.congest(START + 203, congested=False) is Do.FLUSH
    assert take() == b"\x8a\x01z"
    assert not session.congested
    assert not connection.congested
    assert session.deadline is None
    assert [hear(b"%d" % n, START + 204) for n in range(2)] == [b"\x8a\x010", b"\x8a\x011"]


def test_a_peer_that_is_behind_is_looked_at() -> None:
    session = make(ping_interval=None)
    assert session.moving is False
    assert session.congest(START) is Do.NOTHING
    assert session.deadline == START + 0.5
    assert session.congest(START + 0.25) is Do.NOTHING  # it is known
    assert session.deadline == START + 0.5
    session.sent, session.unsent = 101, 100
    assert session.on_time(START + 0.25) is Do.NOTHING  # too early
    assert not session.moving
    assert session.on_time(START + 0.5) is Do.NOTHING
    assert session.moving, "one byte was taken"
    assert session.deadline == START + 1
    assert session.on_time(START + 1) is Do.NOTHING
    assert not session.moving, "nothing was taken since"
    session.sent += 1
    assert session.on_time(START + 1.5) is Do.NOTHING
    assert session.moving
    session.congest(START + 2, congested=False)
    session.congest(START + 3)
    assert not session.moving


def test_a_look_and_a_ping_may_be_due_at_once() -> None:
    session = make(ping_interval=20, ping_timeout=5)
    session.congest(START)
    session.sent = session.unsent = 100
    assert session.on_time(START + 20) is Do.NOTHING
    assert session.deadline == START + 20.5
    session.congest(START + 20.5, congested=False)
    assert session.deadline == START + 25, "the time for an answer runs though no ping was sent"


def test_no_look_at_what_has_ended() -> None:
    session = make(close_timeout=10)
    session.congest(START)
    session.receive_data(frame(session, CLOSE), START + 0.25)
    assert session.connection.state is State.DRAINING
    assert session.on_time(START + 0.5) is Do.NOTHING
    assert not session.congested
    assert session.deadline == START + 10.25


def test_a_pong_is_under_way_until_the_peer_took_its_last_byte() -> None:
    session = make(ping_interval=None)
    connection = session.connection
    session.sent = session.unsent = 100
    session.congest(START)
    assert session.on_time(START + 0.5) is Do.NOTHING  # no ping, so no pong that a later one would wait for
    session.handle(Ping(b"1"), START + 1)
    assert connection.encoder.take() == b"\x8a\x011"
    session.sent = session.unsent = 1_000  # the pong is its bytes 100 to 102, and more was sent
    session.handle(Ping(b"2"), START + 1)
    assert not connection.encoder.take()
    for unsent, do in ((1_000 - 102, Do.NOTHING), (1_000 - 103, Do.FLUSH)):
        session.unsent = unsent
        assert session.deadline is not None
        assert session.on_time(session.deadline) is do
    assert connection.encoder.take() == b"\x8a\x012"
    session.sent = 1_003
    session.unsent = 1
    session.handle(Ping(b"3"), START + 9)
    assert not connection.encoder.take(), "the last byte of the pong before is not taken"
    session.unsent = 0
    session.handle(Ping(b"4"), START + 9)
    assert connection.encoder.take() == b"\x8a\x014"


def test_an_interval_that_is_taken_away() -> None:
    """There is no further ping then, and no deadline that is always due."""
    session = make(ping_interval=1, ping_timeout=None)
    session.limits = Limits(ping_interval=None)
    assert session.on_time(START + 1) is Do.NOTHING
    assert session.deadline is None
    assert not sent(session)


def test_too_early_is_no_time() -> None:
    """Whatever `on_time` waits for, it does nothing before, and not half of it either."""
    session = make(ping_interval=20, ping_timeout=15)
    assert session.on_time(START + 20) is Do.FLUSH
    session.received += 1
    assert session.on_time(START + 21) is Do.NOTHING
    assert session.deadline == START + 35
    session.keep_back(START + 22)
    assert session.on_time(START + 22.5) is Do.NOTHING
    assert session.deadline == START + 22 + GRACE
    assert session.on_time(START + 22 + GRACE) is Do.SETTLE


def test_keepalive_does_not_fill_the_ledger() -> None:
    session = make(ping_interval=20, ping_timeout=None)
    for n in range(MAX_PINGS):
        session.ping(START, b"%d" % n)
    sent(session)
    assert session.on_time(START + 20) is Do.FLUSH
    [(opcode, payload)] = sent(session)
    assert opcode == PING
    session.receive_data(frame(session, PONG, payload), START + 21)
    assert session.latency == 0, "its time was not noted"
    with pytest.raises(InvalidState, match="unanswered"):
        session.ping(START + 21)


def test_a_ping_without_data_has_four_bytes() -> None:
    session = make()
    session.ping(START)
    [(opcode, payload)] = sent(session)
    assert (opcode, len(payload)) == (PING, 4)


def test_the_end_is_the_end_once() -> None:
    """What comes behind the peer's Close frame neither is for the application nor delays the end."""
    session = make(close_timeout=10)
    session.keep_back(START)
    events, do = session.receive_data(frame(session, CLOSE, b"\x03\xe8"), START)
    assert (events, do) == ([Close(1000)], Do.END)
    assert session.deadline == START + 10, "the consumer is waited for no longer"
    sent(session)
    for late in (Ping(b"late"), Pong(b"late"), Close(1001)):
        assert session.handle(late, START + 5) is Do.NOTHING
    assert session.deadline == START + 10
    session.receive_eof()
    events, do = session.receive_data(frame(session, PING, b"late") + frame(session, TEXT, b"late"), START + 6)
    assert (events, do) == ([], Do.NOTHING)


def test_after_an_end_without_close_frames_nothing_is_for_the_application() -> None:
    session = make()
    session.receive_eof()
    events, do = session.receive_data(frame(session, PING, b"late") + frame(session, TEXT, b"late"), START)
    assert (events, do) == ([], Do.NOTHING)


@pytest.mark.parametrize("close_timeout", [None, 0, 3])
def test_a_peer_that_has_ended_its_side_may_not_delay_the_end(close_timeout: float | None) -> None:
    session = make(close_timeout=close_timeout)
    assert session.receive_end(START + 1) is Do.FLUSH
    assert session.deadline == START + 1 + (close_timeout or LINGER)


def test_an_abort_keeps_the_cause_that_is_known() -> None:
    session = make()
    session.close(START, 1000, "", CloseCause.LOCAL)
    assert session.abort() is Do.DROP
    assert session.connection.cause is CloseCause.LOCAL


def test_without_an_interval_there_is_no_deadline() -> None:
    session = make(ping_interval=None)
    assert session.deadline is None
    assert session.on_time(START + 1e9) is Do.NOTHING


def test_without_a_timeout_nothing_piles_up() -> None:
    session = make(ping_interval=1, ping_timeout=None)
    clock = Clock(session)
    clock.run(200)
    assert len(clock.pings()) == 200
    with pytest.raises(InvalidState, match="64 pings"):
        session.ping(clock.now)


def test_zero_as_in_websockets() -> None:
    session = make(ping_interval=0, ping_timeout=0)
    assert session.on_time(START) is Do.FLUSH
    assert session.on_time(START) is Do.DROP
    session = make(close_timeout=0)
    assert session.close(START, 1000, "", CloseCause.LOCAL) is Do.FLUSH
    assert session.deadline == START
    assert session.on_time(START) is Do.DROP
    assert session.connection.cause is CloseCause.TIMEOUT


@pytest.mark.parametrize("late", [0, 0.3, 100])
def test_a_late_call_does_once_what_is_due(late: float) -> None:
    session = make(ping_interval=1, ping_timeout=10)
    assert session.on_time(START + 0.999) is Do.NOTHING
    assert session.on_time(START + 1 + late) is Do.FLUSH
    assert session.on_time(START + 1 + late) is Do.NOTHING
    assert [opcode for opcode, _ in sent(session)] == [PING]


# --- Pings of the program ---------------------------------------------------------------------------------


@SIDES
def test_the_round_trip_of_a_ping(side: Side) -> None:
    session = make(side)
    trips: list[float | None] = []
    assert session.ping(START, "data", trips.append) is Do.FLUSH
    assert sent(session) == [(PING, b"data")]
    with pytest.raises(ConcurrencyError, match="same data"):
        session.ping(START, b"data")
    events, do = session.receive_data(frame(session, PONG, b"data"), START + 0.5)
    assert (events, do) == ([Pong(b"data")], Do.NOTHING)
    assert trips == [0.5]
    assert session.latency == 0.5
    session.ping(START, b"data")  # the ledger has forgotten it


def test_a_pong_answers_the_pings_before_it() -> None:
    """RFC 6455, 5.5.3: a peer may answer only the latest."""
    session = make()
    trips: list[tuple[str, float | None]] = []

    def noting(name: str) -> Callable[[float | None], None]:
        return lambda trip: trips.append((name, trip))

    for n, name in enumerate("abcd"):
        session.ping(START + n, name, noting(name))
    session.receive_data(frame(session, PONG, b"c"), START + 10)
    assert trips == [("a", 10), ("b", 9), ("c", 8)]
    session.receive_eof()
    assert trips[3:] == [("d", None)]


def test_who_is_told_of_a_pong_may_end_the_session() -> None:
    """Each of the others is told once, and that no pong came."""
    session = make()
    trips: list[tuple[str, float | None]] = []

    def noting(name: str) -> Callable[[float | None], None]:
        def note(trip: float | None) -> None:
            trips.append((name, trip))
            session.abort()

        return note

    for name in "abc":
        session.ping(START, name, noting(name))
    session.receive_data(frame(session, PONG, b"b"), START + 1)
    assert trips == [("a", 1), ("b", None), ("c", None)]


def test_a_ping_that_cannot_be_sent_is_not_in_the_ledger() -> None:
    session = make()
    with pytest.raises(ValueError, match="125"):
        session.ping(START, bytes(126))
    session.close(START, 1000, "", CloseCause.LOCAL)
    with pytest.raises(ConnectionClosed):
        session.ping(START, b"x")
    assert session.pings_sent == 0


@SIDES
def test_pings_of_the_peer_are_answered_and_counted(side: Side) -> None:
    """RFC 6455, 5.5.2: "an endpoint MUST send a Pong frame in response"."""
    session = make(side)
    events, do = session.receive_data(frame(session, PING, b"1") + frame(session, PING, b"2"), START)
    assert (events, do) == ([Ping(b"1"), Ping(b"2")], Do.FLUSH)
    assert sent(session) == [(PONG, b"1"), (PONG, b"2")]
    assert session.pings_received == 2


# --- Closing ------------------------------------------------------------------------------------------------


@SIDES
def test_this_side_closes_first(side: Side) -> None:
    session = make(side, close_timeout=7)
    assert session.close(START, 4000, "done", CloseCause.LOCAL) is Do.FLUSH
    assert sent(session) == [(CLOSE, b"\x0f\xa0done")]
    assert session.deadline == START + 7
    assert session.close(START + 1, 4001, "", CloseCause.LOCAL) is Do.NOTHING
    assert session.deadline == START + 7
    # RFC 6455, 7.1.1: what was under way is the application's.
    data = frame(session, TEXT, b"under way") + frame(session, CLOSE, b"\x0f\xa0")
    events, do = session.receive_data(data, START + 2)
    assert events == ["under way", Close(4000)]
    # RFC 6455, 7.1.1: "the server MUST close the connection immediately", the client waits for it.
    assert do is (Do.END if side is Side.SERVER else Do.DRAINED)
    if side is Side.SERVER:
        session.sending_ended(START + 2)
        assert session.deadline == START + 2 + LINGER
    else:
        assert session.deadline == START + 7  # `close_timeout` is for all of the closing
    session.receive_eof()
    assert session.deadline is None
    assert session.connection.close_code == 4000
    assert session.connection.cause is CloseCause.LOCAL


@SIDES
def test_the_peer_closes_first(side: Side) -> None:
    """RFC 6455, 5.5.1: "the endpoint MUST send a Close frame in response"."""
    session = make(side, close_timeout=7)
    events, do = session.receive_data(frame(session, CLOSE, b"\x03\xe8bye"), START)
    assert events == [Close(1000, "bye")]
    assert sent(session) == [(CLOSE, b"\x03\xe8bye")]
    assert do is (Do.END if side is Side.SERVER else Do.DRAINED)
    assert session.deadline == START + 7
    assert isinstance(session.connection.closed_error(), ConnectionClosedOK)
    assert session.on_time(START + 7) is Do.DROP
    assert session.connection.cause is CloseCause.PEER


@SIDES
def test_the_peer_breaks_a_rule(side: Side) -> None:
    """RFC 6455, 7.1.7: who fails the connection ends the transport, on either side."""
    session = make(side)
    events, do = session.receive_data(broken(session), START)
    assert [type(event).__name__ for event in events] == ["ProtocolError"]
    assert do is Do.END
    assert session.connection.cause is CloseCause.PROTOCOL_ERROR


def test_a_message_past_this_programs_limit_is_no_broken_rule() -> None:
    session = make(max_size=10)
    _, do = session.receive_data(frame(session, TEXT, bytes(11)), START)
    assert do is Do.END
    assert session.connection.cause is CloseCause.TOO_BIG
    assert sent(session)[0][1][:2] == (1009).to_bytes(2, "big")


@pytest.mark.parametrize("close_timeout", [None, 0.5, 10])
@pytest.mark.parametrize("unsent", [0, 100])
def test_how_long_a_peer_may_go_on_after_the_end(close_timeout: float | None, unsent: int) -> None:
    session = make(close_timeout=close_timeout)
    session.receive_data(frame(session, CLOSE), START)
    session.unsent = unsent
    session.sending_ended(START + 1)
    if unsent:
        # Its Close frame may be behind what the peer takes slowly.
        assert session.deadline == (None if close_timeout is None else START + close_timeout)
    else:
        assert session.deadline == START + min(1 + LINGER, close_timeout or inf)


@SIDES
def test_a_peer_that_stays_after_both_close_frames_spoils_nothing(side: Side) -> None:
    """The server ends the transport, and drops a client that stays; where a client must, something was lost."""
    session = make(side, close_timeout=10)
    session.receive_data(frame(session, CLOSE, b"\x03\xe8"), START)
    session.sending_ended(START)
    clock = Clock(session)
    clock.run(20)
    assert clock.done[-1][1] is Do.DROP
    ended_late = None if side is Side.SERVER else TimeoutError
    assert type(session.connection.lost) is (ended_late or type(None))
    broken = OSError("broken")
    session = make(side, close_timeout=10)
    session.close(START, 1000, "", CloseCause.LOCAL)
    session.connection.lost = broken
    Clock(session).run(20)
    assert session.connection.lost is broken, "the first cause stays"


@SIDES
@pytest.mark.parametrize("unsent", [0, 100])
@pytest.mark.parametrize("since", [0, 2])
def test_all_of_a_closing_takes_close_timeout_once(side: Side, unsent: int, since: float) -> None:
    """From the call on, however late its Close frame went out, and whatever the peer does meanwhile."""
    session = make(side, close_timeout=3)
    session.close(START + since, 1000, "", CloseCause.LOCAL, since=START)
    session.unsent = unsent
    assert session.deadline == START + 3
    do = session.receive_data(frame(session, CLOSE), START + 2.9)[1]
    if do is Do.END:
        session.sending_ended(START + 2.9)
    session.receive_end(START + 2.9)
    assert session.drop_at == START + 3
    assert session.on_time(START + 3) is Do.DROP


@SIDES
def test_no_answer_to_a_close(side: Side) -> None:
    session = make(side, close_timeout=3)
    session.close(START, 1000, "", CloseCause.LOCAL)
    assert session.on_time(START + 2.9) is Do.NOTHING
    assert session.on_time(START + 3) is Do.DROP
    assert session.connection.cause is CloseCause.TIMEOUT
    session.receive_eof()
    assert isinstance(session.connection.closed_error(), ConnectionClosedError)


@pytest.mark.parametrize("cause", [CloseCause.STOP, CloseCause.HANDLER_ERROR, CloseCause.OVERFLOW])
def test_a_cause_that_is_known_stays(cause: CloseCause) -> None:
    session = make(close_timeout=3)
    session.close(START, 1001, "", cause)
    assert session.on_time(START + 3) is Do.DROP
    session.receive_eof()
    assert session.connection.cause is cause


def test_no_keepalive_while_closing() -> None:
    session = make(ping_interval=1, ping_timeout=1, close_timeout=None)
    session.close(START, 1000, "", CloseCause.LOCAL)
    assert session.deadline is None
    sent(session)
    assert session.on_time(START + 100) is Do.NOTHING
    assert sent(session) == []


def test_the_peer_ends_its_sending_side_only() -> None:
    session = make(close_timeout=4, ping_interval=1)
    assert session.receive_end(START) is Do.FLUSH
    assert session.deadline == START + 4
    assert session.on_time(START + 4) is Do.DROP
    assert session.connection.cause is CloseCause.LOST


def test_abort_is_the_end_at_once() -> None:
    session = make()
    trips: list[float | None] = []
    session.ping(START, None, trips.append)
    assert session.abort(CloseCause.LOCAL) is Do.DROP
    connection = session.connection
    assert (connection.state, connection.close_code, connection.cause) == (State.CLOSED, 1006, CloseCause.LOCAL)
    assert trips == [None]
    assert session.deadline is None


# --- The consumer -------------------------------------------------------------------------------------------


def test_a_close_that_is_kept_back_is_settled_after_a_while() -> None:
    session = make(ping_interval=None)
    session.keep_back(START)
    session.keep_back(START + 0.5)  # the first one counts
    assert session.deadline == START + GRACE
    assert session.on_time(START + GRACE) is Do.SETTLE
    assert session.deadline is None


@pytest.mark.parametrize("had", [0.0, 0.4, GRACE, GRACE + 5])
def test_a_consumer_that_had_its_time_is_not_waited_for(had: float) -> None:
    session = make(ping_interval=None)
    if had < GRACE:
        assert session.keep_back(START, had) is Do.NOTHING
        assert session.deadline == START - had + GRACE
    else:
        assert session.keep_back(START, had) is Do.SETTLE
        assert session.deadline is None


def test_a_consumer_that_is_done_is_not_waited_for() -> None:
    session = make(ping_interval=None)
    session.keep_back(START)
    session.settled()
    assert session.deadline is None


def test_while_closing_the_consumer_is_waited_for_within_the_close_timeout() -> None:
    session = make(close_timeout=GRACE * 3)
    session.close(START, 1000, "", CloseCause.LOCAL)
    session.keep_back(START)
    assert session.on_time(START + GRACE) is Do.SETTLE
    assert session.on_time(START + GRACE * 3) is Do.DROP


# --- All of it ------------------------------------------------------------------------------------------------

EVENTS: dict[str, Callable[[Session, float], object]] = {
    "message": lambda s, now: s.receive_data(frame(s, TEXT, b"m"), now),
    "ping": lambda s, now: s.receive_data(frame(s, PING), now),
    "pong": lambda s, now: s.receive_data(frame(s, PONG), now),
    "close": lambda s, now: s.receive_data(frame(s, CLOSE), now),
    "failure": lambda s, now: s.receive_data(broken(s), now),
    "end": lambda s, now: s.receive_end(now),
    "eof": lambda s, now: s.receive_eof(),
    "call of close": lambda s, now: s.close(now, 1000, "", CloseCause.LOCAL),
    "abort": lambda s, now: s.abort(CloseCause.LOCAL),
    "keep back": lambda s, now: s.keep_back(now),
    "sending ended": lambda s, now: s.sending_ended(now) if s.connection.should_end_transport else None,
    "time": lambda s, now: s.on_time(now),
}


def reach(side: Side, state: State) -> Session:
    session = make(side, ping_interval=1, ping_timeout=1, close_timeout=2)
    if state is State.CLOSING:
        session.close(START, 1000, "", CloseCause.LOCAL)
    elif state is State.DRAINING:
        session.receive_data(frame(session, CLOSE), START)
    elif state is State.CLOSED:
        session.receive_eof()
    sent(session)
    return session


@SIDES
@pytest.mark.parametrize("state", [State.OPEN, State.CLOSING, State.DRAINING, State.CLOSED], ids=lambda s: s.name)
@pytest.mark.parametrize("first", EVENTS)
def test_every_state_every_two_events_every_time(first: str, state: State, side: Side) -> None:
    """States go forward only, a CLOSED session wants nothing, and every other one ends by itself if nobody answers."""
    for second in EVENTS:
        for when in (0.0, 0.5, 1.0, 2.0, 50.0):
            try:
                check_two_events(reach(side, state), first, second, when)
            except BaseException as exc:
                exc.add_note(f"with {second!r} after {when} s")
                raise


def check_two_events(session: Session, first: str, second: str, when: float) -> None:
    told = []
    for n, name in enumerate((first, second)):
        before = session.connection.state
        told.append(EVENTS[name](session, START + when * (n + 1)))
        assert session.connection.state >= before
        if session.connection.state is not State.CLOSED and Do.DROP not in told:
            assert session.deadline is not None
    clock = Clock(session, START + 2 * when)
    if session.connection.state is State.CLOSED:
        assert session.deadline is None
        assert session.on_time(START + 1e6) is Do.NOTHING
        return
    clock.run(1e6)
    assert session.deadline is None
    assert Do.DROP in [*told, *(do for _, do in clock.done)]
    session.receive_eof()
    assert session.connection.state.name == "CLOSED"
    assert session.connection.cause is not None


def test_one_call_handles_a_bounded_number_of_events() -> None:
    session = make()
    data = frame(session, TEXT, b"x") * (MAX_EVENTS + 10)
    events, _ = session.receive_data(data, START)
    assert len(events) == MAX_EVENTS
    assert session.connection.decoder.pending
    events, _ = session.receive_data(b"", START)
    assert len(events) == 10


def test_the_ledger_is_bounded() -> None:
    session = make()
    for _ in range(MAX_PINGS):
        session.ping(START)
    with pytest.raises(InvalidState, match="unanswered"):
        session.ping(START)


# --- Limits, and what is counted --------------------------------------------------------------------------


def limits(name: str, value: Any) -> Limits:
    """Make limits of which one is told, rightly or not."""
    return Limits(**{name: value})


@pytest.mark.parametrize("name", ["max_size", "max_fragments", "read_limit", "write_limit", "max_buffered"])
def test_sizes(name: str) -> None:
    optional = name.startswith("max")
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^{name} must be positive, got {value}$"):
            limits(name, value)
    for wrong in (True, 1.5, "1", *(() if optional else (None,))):
        kind = "int or None" if optional else "int"
        with pytest.raises(TypeError, match=f"^{name} must be {kind}, got {type(wrong).__name__}$"):
            limits(name, wrong)
    assert getattr(limits(name, 1), name) == 1
    # More than C holds is as good as no limit.
    most = 2**31 - 1 if name == "write_limit" else sys.maxsize
    assert getattr(limits(name, most), name) == most
    assert getattr(limits(name, most + 1), name) == most
    if optional:
        assert getattr(limits(name, None), name) is None


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
def test_times(name: str) -> None:
    kind = "a positive number" if name == "open_timeout" else "a number"
    for value in (-1, float("inf"), float("nan"), *((0,) if name == "open_timeout" else ())):
        with pytest.raises(ValueError, match=f"^{name} must be {kind} of seconds or None, got {value}$"):
            limits(name, value)
    for wrong in (True, "1"):
        with pytest.raises(
            TypeError, match=f"^{name} must be a number of seconds or None, got {type(wrong).__name__}$"
        ):
            limits(name, wrong)
    for right in (None, 1, 0.5, *(() if name == "open_timeout" else (0,))):
        assert getattr(limits(name, right), name) == right


def test_policies() -> None:
    for policy in ("error", "drop", "close"):
        assert Limits(overflow=policy).overflow == policy
    with pytest.raises(ValueError, match=r"^overflow must be 'error', 'drop' or 'close', got 'wait'$"):
        Limits(overflow="wait")  # type: ignore[arg-type]


def test_the_weight_of_a_message() -> None:
    marks = Marks(100, 25)
    assert marks.weight(b"abc") == 3 + OVERHEAD
    assert marks.weight("äöü") == 3 + OVERHEAD
    assert Marks(100, 25, 10).weight(Fragment(b"abcd", False)) == 14
    assert Marks(2, 0, 0, 1).weight(b"abcd") == 1


@SIDES
def test_what_is_counted(side: Side) -> None:
    session = make(side)
    counted = ("received", "sent", "unsent", "latency", "pings_received", "pings_sent")
    assert {name: getattr(session, name) for name in counted} == dict.fromkeys(counted, 0)
    session.ping(START)
    session.ping(START, b"mine")
    assert session.pings_sent == 2
    (_, random), (_, mine) = sent(session)
    assert (len(random), mine) == (4, b"mine")
    data = frame(session, PING, b"yours")
    session.receive_data(data, START)
    assert (session.received, session.pings_received) == (len(data), 1)


def test_a_shell_that_feeds_the_decoder_itself_is_told_what_to_do() -> None:
    session = make()
    assert session.handle(Ping(b"x"), START) is Do.FLUSH
    assert sent(session) == [(PONG, b"x")]
    assert session.handle(Pong(b"x"), START) is Do.NOTHING
    assert session.handle(Close(1000, ""), START) is Do.END


def test_random_data_of_a_ping_is_not_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [b"same!", b"same!", b"else!"]
    monkeypatch.setattr("wsfast.session.os.urandom", lambda n: drawn.pop(0)[:n])
    session = make()
    session.ping(START)
    session.ping(START)
    assert [payload for _, payload in sent(session)] == [b"same", b"else"]


def test_after_the_end_no_consumer_is_waited_for() -> None:
    session = reach(Side.SERVER, State.DRAINING)
    before = session.deadline
    session.keep_back(START)
    assert session.deadline == before
    session = make()
    session.keep_back(START)
    session.close(START, 1000, "", CloseCause.LOCAL)
    assert session.deadline == START + 10  # this side's Close frame says that it waits for the peer alone


def test_what_to_do_is_told_apart() -> None:
    """Each is more than those before it: of several, a shell is told the most."""
    assert [do.name for do in sorted(Do)] == ["NOTHING", "FLUSH", "SETTLE", "DRAINED", "END", "DROP"]


def test_defaults() -> None:
    """As they are documented: docs/limits.md."""
    limits = Limits()
    assert (limits.max_size, limits.max_fragments) == (1024 * 1024, None)
    assert (limits.read_limit, limits.write_limit) == (65536, 65536)
    assert (limits.max_buffered, limits.overflow) == (4 * 1024 * 1024, "error")
    assert (limits.open_timeout, limits.close_timeout) == (10, 10)
    assert (limits.ping_interval, limits.ping_timeout) == (20, 20)
    assert (limits.compression, limits.extensions) == (None, None)
