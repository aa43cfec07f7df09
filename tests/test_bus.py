"""The buses: each does what `wsfast.testing.bus` says, and what is its own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from types import ModuleType
from typing import Any

import pytest
from shared import until

from wsfast.bus import Bus, LocalBus, MemoryBus, Position, local
from wsfast.bus._frames_py import MAX_FRAME, MESSAGE, make
from wsfast.bus.detours import Detours
from wsfast.bus.outbox import Outbox
from wsfast.bus.store import Store
from wsfast.exceptions import BusUnavailable
from wsfast.testing.bus import CHECKS, Process, check_end, processes

pytestmark = pytest.mark.anyio


@pytest.fixture
def make_local(tmp_path: Path) -> Callable[[], Bus]:
    return lambda: LocalBus(tmp_path / "bus")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_local(check: Any, make_local: Callable[[], Bus]) -> None:
    await check(make_local)


async def test_memory() -> None:
    await check_end(MemoryBus)


async def test_the_keeper_of_histories_ends(make_local: Callable[[], Bus]) -> None:
    """Another begins anew, and what was stored lately is there again."""
    async with processes(make_local, 3) as (keeper, one, two):
        await one.join("h")
        await two.join("h")
        first = await one.bus.store("h", b"1", 10, 60.0)
        await keeper.bus.close()
        second = await two.bus.store("h", b"2", 10, 60.0)
        assert second.epoch != first.epoch
        reading = await one.bus.read("h", first)
        assert not reading.complete
        assert sorted(message.data for message in reading.messages) == [b"1", b"2"]
        assert one.states == two.states == [True, False, True]
        assert keeper.origin in one.ended


FORKING = """
import asyncio, os, sys, uvloop
from wsfast.bus import LocalBus
from wsfast.testing.bus import Process

async def main():
    process = Process(LocalBus(sys.argv[1]))
    await process.bus.start(process, 7)
    print("started", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("forked", flush=True)
    await asyncio.sleep(60)

asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[2] == "uvloop" else None).run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_child_does_not_keep_a_process_alive(loop: str, tmp_path: Path) -> None:
    """One that was forked has copies of the keeper's streams, and of its lock; and it may live for long."""
    command = (sys.executable, "-c", FORKING, str(tmp_path / "bus"), loop)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:  # noqa: ASYNC220
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            assert await asyncio.to_thread(keeper.stdout.readline) == b"started\n"
            async with processes(lambda: LocalBus(tmp_path / "bus"), 1) as (one,):
                first = await one.bus.store("h", b"1", 10, 60.0)
                keeper.stdin.write(b"\n")
                keeper.stdin.flush()
                assert await asyncio.to_thread(keeper.stdout.readline) == b"forked\n"
                keeper.kill()
                await until(lambda: one.ended)
                assert one.ended == [7]
                second = await one.bus.store("h", b"2", 10, 60.0)
                assert second.epoch != first.epoch
        finally:
            keeper.kill()


async def test_the_directory_is_nobody_elses(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    bus = LocalBus(tmp_path)
    with pytest.raises(PermissionError, match="closed to others"):
        await bus.start(object(), 1)  # type: ignore[arg-type]


_frame = make
_HEAD = Struct("<IBB")
_HELLO = _frame(local._F_HELLO, "", local._HELLO.pack(local._VERSION, 2))
_STORE = local._STORE.pack


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a frame of 542393671 bytes"),
        (_frame(MESSAGE, "hello", b"x"), "no greeting"),
        (_HEAD.pack(MAX_FRAME, local._F_HELLO, 0), "no greeting"),
        (_frame(local._F_HELLO, "", local._HELLO.pack(local._VERSION + 1, 2)), "version 2 of the local bus, not 1"),
        (_HELLO + _HELLO, "a second greeting"),
        (_frame(local._F_HELLO, "", local._HELLO.pack(local._VERSION, 0)), "a second greeting, or one of this"),
        (_HELLO + _HEAD.pack(MAX_FRAME + 1, MESSAGE, 0), "a frame of 134217729 bytes"),
        (_HELLO + _HEAD.pack(3, MESSAGE, 4), "a frame of 3 bytes"),
        (_HELLO + _frame(99, "hello", b""), "an unknown frame, 99"),
        (_HELLO + _frame(MESSAGE, "hellö", b"x"), "ascii"),
        (_HELLO + _frame(local._F_STORE, "hello", b"x"), "requires a buffer"),
        (_HELLO + _frame(local._F_STORE, "hello", _STORE(1, 1, math.nan)), "a history of 1 messages for nan s"),
        (_HELLO + _frame(local._F_STORE, "hello", _STORE(1, 1, math.inf)), "a history of 1 messages for inf s"),
        (_HELLO + _frame(local._F_STORE, "hello", _STORE(1, 0, 1.0)), "a history of 0 messages"),
        (_HELLO + _frame(local._F_HISTORY, "hello", b"x"), "requires a buffer"),
        (_HELLO + _frame(local._F_STORED, "", b""), "requires a buffer"),
        (_HELLO + _frame(local._F_READ, "hello", b""), "requires a buffer"),
        (_HELLO + _frame(local._F_READING, "", b""), "requires a buffer"),
        (_HELLO + _frame(local._F_KEEPER, "", b"x"), "requires a buffer"),
        (_HELLO + _frame(local._F_SYNCED, "", b""), "requires a buffer"),
    ],
)
async def test_a_stream_of_messages_is_checked(
    sent: bytes, told: str, make_local: Callable[[], Bus], tmp_path: Path
) -> None:
    """What is not said as it must be ends the stream at once, and nothing else."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(str(context["exception"])))
    async with processes(make_local, 1) as (process,):
        (path,) = (path for path in (tmp_path / "bus").iterdir() if path.is_socket())
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(sent)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert len(said) == 1
        assert told in said[0]
        assert not process.messages
        assert not process.stored
        assert process.up


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_a_stream_that_comes_in_pieces(piece: int, make_local: Callable[[], Bus], tmp_path: Path) -> None:
    async with processes(make_local, 1) as (process,):
        stream = local._Stream(process.bus)  # type: ignore[arg-type]
        payloads = [b"", b"x", b"y" * 2000, b"z" * 5]
        sent = _HELLO + b"".join(_frame(MESSAGE, "hello", payload) for payload in payloads)
        for at in range(0, len(sent), piece):
            stream.data_received(sent[at : at + piece])
        assert process.messages == [("hello", payload) for payload in payloads]


@pytest.fixture(params=["_frames", "_frames_py"], ids=["cython", "python"])
def frames(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"wsfast.bus.{request.param}")


async def test_the_twins_take_and_make_the_same_frames(frames: ModuleType) -> None:
    assert (frames.HEAD_SIZE, frames.MAX_FRAME, frames.MESSAGE) == (6, MAX_FRAME, MESSAGE)
    cases = [(5, "hello", b"x"), (0, "", b""), (255, "a" * 255, bytes(300)), (5, "other", b"y"), (5, "ü", b"\xff")]
    made = [frames.make(*case) for case in cases]
    assert made == [_frame(*case) for case in cases]
    assert made[0] == b"\x06\0\0\0\x05\x05hellox"
    for wrong in ((5, "ü" * 128, b""), (5, "a", bytes(MAX_FRAME))):
        with pytest.raises(ValueError, match="a frame's name must have at most 255 bytes, and all of it at most"):
            frames.make(*wrong)
    data = b"".join(made)
    others = [(kind, name.encode(), body) for kind, name, body in cases]
    came: list[Any] = []
    for cut in range(len(data) + 1):
        for topics, received in ({b"hello": "Hello"}, lambda *message: came.append(message)), ({}, None):
            came.clear()
            taken = frames.take(data[:cut], topics, received, lambda *other: came.append(other))
            whole: list[Any] = [one for i, one in enumerate(others) if sum(map(len, made[: i + 1])) <= cut]
            if received is not None:
                whole[:1] = [("Hello", b"x", None)] if whole else []
            assert came == whole
            assert taken == sum(map(len, made[: len(whole)]))
    for head in ((MAX_FRAME + 1, 5, 0), (0xFFFFFFFF, 5, 0), (3, 5, 4)):
        with pytest.raises(ValueError, match=f"a frame of {head[0]} bytes"):
            frames.take(_HEAD.pack(*head), {}, None, print)

    def fail(*args: Any) -> None:
        raise KeyError("it is a test")

    with pytest.raises(KeyError):
        frames.take(made[0], {b"hello": "Hello"}, fail, fail)
    with pytest.raises(KeyError):
        frames.take(made[0], {}, fail, fail)


def _hang(process: Process, on: bool) -> None:
    bus: Any = process.bus
    for stream in bus._streams:
        (stream.transport.pause_reading if on else stream.transport.resume_reading)()
    if on:
        bus._ticking.cancel()
    else:
        bus._tick()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_TICK", 0.02), ("_PING", 0.1), ("_SILENCE", 0.3)):
        monkeypatch.setattr(local, name, value)


@pytest.mark.usefixtures("impatient")
async def test_the_keeper_of_histories_hangs(make_local: Callable[[], Bus]) -> None:
    """That is noticed, nobody waits for it, and it goes on where it was."""
    async with processes(make_local, 3) as (keeper, one, two):
        await one.join("h")
        first = await one.bus.store("h", b"1", 10, 60.0)
        _hang(keeper, True)
        waiting = one.bus.store("h", b"2", 10, 60.0)
        await until(lambda: not one.up and not two.up)
        with pytest.raises(BusUnavailable, match="hangs"):
            await one.bus.settled()
        with pytest.raises(BusUnavailable, match="a process that hangs keeps the histories"):
            await one.bus.read("h", None)
        await two.bus.publish("hello", b"to all that do not")
        await until(lambda: one.messages)
        _hang(keeper, False)
        await until(lambda: one.up and two.up)
        assert await waiting == (first.epoch, 2)
        await until(lambda: [data for _, data, _ in one.stored] == [b"1", b"2"])
        assert one.states == two.states == [True, False, True]
        assert keeper.states == [True]
        assert not keeper.ended + one.ended + two.ended


@pytest.mark.usefixtures("impatient")
async def test_nobody_waits_for_a_process_that_hangs(make_local: Callable[[], Bus]) -> None:
    async with processes(make_local, 3) as (keeper, one, hung):
        _hang(hung, True)
        async with asyncio.timeout(3):
            await one.join("a")  # begun before that is known
            await one.join("b")
        assert one.states == keeper.states == [True]
        _hang(hung, False)
        await hung.bus.settled()
        await until(lambda: not any(peer.hangs for peer in one.bus._peers.values()))  # type: ignore[attr-defined]
        await hung.bus.publish("b", b"1")
        await until(lambda: ("b", b"1") in one.messages)


async def test_subscriptions_do_not_pile_up_for_a_process_that_hangs(make_local: Callable[[], Bus]) -> None:
    async with processes(make_local, 2) as (one, other):
        (peer,) = one.bus._peers.values()  # type: ignore[attr-defined]
        await one.join("kept", "left")
        peer.pause_writing()
        for number in range(1000):
            for topic in ("again", f"new.{number}"):
                one.bus.subscribe(topic)
                one.bus.unsubscribe(topic)
            one.bus.unsubscribe("kept")
            one.bus.subscribe("kept")
        one.bus.unsubscribe("left")
        one.bus.subscribe("again")
        assert set(peer.later) == {"left", "again"}
        given_up = asyncio.ensure_future(one.bus.settled())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert set(peer.later) == {"left", "again"}
        assert not peer.out
        settling = asyncio.ensure_future(one.bus.settled())
        await asyncio.sleep(0)
        peer.resume_writing()
        await settling
        for topic in ("left", "kept", "new.999", "again"):
            await other.bus.publish(topic, b"1")
        await until(lambda: ("again", b"1") in one.messages)
        assert one.messages == [("kept", b"1"), ("again", b"1")]


async def test_a_process_that_hung_is_told_what_it_missed(make_local: Callable[[], Bus]) -> None:
    async with processes(make_local, 2) as (keeper, other):
        await other.join("h", "t")
        (peer,) = keeper.bus._peers.values()  # type: ignore[attr-defined]
        peer.resume_writing()
        peer.pause_writing()
        await keeper.bus.store("h", b"1", 10, 60.0)
        peer.resume_writing()
        await until(lambda: other.missing)
        assert sorted(other.missing) == ["h", "hello", "t"]
        assert other.stored == []
        peer.pause_writing()
        peer.resume_writing()
        await keeper.bus.publish("t", b"2")
        await until(lambda: other.messages)
        assert len(other.missing) == 3


async def test_a_history_of_large_messages_is_read_in_parts(
    make_local: Callable[[], Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_PAGE", 1000)
    async with processes(make_local, 2) as (keeper, other):
        places = [await other.bus.store("h", bytes(600), 10, 60.0) for _ in range(5)]
        for process, count in ((keeper, 5), (other, 2)):
            reading = await process.bus.read("h", None)
            assert [one.position for one in reading.messages] == places[:count]
            assert reading.position == places[-1]
        monkeypatch.setattr(local, "_MAX_MESSAGE", 1000)
        for taken in (other.bus.publish("hello", bytes(1001)), other.bus.store("h", bytes(1001), 10, 60.0)):
            with pytest.raises(BusUnavailable, match="a message has 1001 bytes, the limit is 1000"):
                await taken


async def test_what_goes_to_different_others_keeps_its_order(make_local: Callable[[], Bus]) -> None:
    """What some get is gathered for all of them, and what one of them gets alone comes in between."""
    async with processes(make_local, 3) as (one, both, some):
        await both.join("a", "b", "c")
        await some.join("a", "c")
        sent = []
        for number in range(200):
            topic = random.choice("abc")
            data = b"%d" % number * random.choice([1, 1, 1, 20_000])
            sent.append((topic, data))
            await asyncio.sleep(0) if number % 7 == 0 else None
            one.bus.publish(topic, data)
            if number % 50 == 49:
                one.bus.subscribe(f"t{number}")  # which is told to them between two messages
        await one.bus.close()  # which sends what the last turn has published
        await until(lambda: len(both.messages) == len(sent))
        await until(lambda: len(some.messages) == sum(topic != "b" for topic, _ in sent))
        assert both.messages == sent
        assert some.messages == [(topic, data) for topic, data in sent if topic != "b"]


async def test_a_turn_may_store_much(make_local: Callable[[], Bus]) -> None:
    """What waits is bounded by 1 MiB while it cannot go on, not while all is well."""
    async with processes(make_local, 2) as made:
        for process in made:
            stored = [process.bus.store("h", bytes(65_536), 100, 60.0) for _ in range(50)]
            for one in stored:
                await one
            assert process.bus.counters["outbox"] == 0
        assert (await made[0].bus.read("h", None, 1)).position.offset == 100


# --- What buses have in common --------------------------------------------------------------------------------------


async def test_the_outbox() -> None:
    box = Outbox(max_bytes=10, max_seconds=10, remember=5)
    first = box.add("t", b"12345", 1, 1.0, now=0.0)
    second = box.add("t", b"67", 0, 0.0, now=1.0)
    too_much = box.add("t", b"123456", 1, 1.0, now=1.0)
    with pytest.raises(BusUnavailable, match="7 bytes wait for the bus, the limit is 10"):
        await too_much
    assert box.take(5) == [first, second]
    # Nobody knows what became of them: what has a history is sent again, the other is given up.
    box.interrupted("connection lost")
    with pytest.raises(BusUnavailable, match="connection lost"):
        await second
    assert box.take(5) == [first]
    box.confirm(Position("e", 1), now=2.0)
    assert await first == ("e", 1)
    assert box.bytes == 0
    # The history was lost: what was confirmed lately is sent again.
    assert box.lost_history(now=3.0) == 1
    assert box.take(5) == [first]
    box.confirm(Position("f", 1), now=4.0)
    assert await first == ("e", 1)
    assert box.lost_history(now=9.5) == 0
    third = box.add("t", b"3", 1, 1.0, now=10.0)
    box.expire(now=19.0)
    assert not third.done
    box.why = "it hangs"
    box.expire(now=20.0)
    with pytest.raises(BusUnavailable, match="taken nothing for 10 s: it hangs"):
        await third
    assert box.bytes == len(box) == 0


async def test_a_message_on_a_detour_tells_what_it_waited_for() -> None:
    """A node that is down is the reason then, not the slot."""

    class Down:
        up = False
        outbox = Outbox(max_seconds=0.1)

        def owner(self, topic: str) -> Any:
            return self

        def named(self, address: str) -> Any:
            raise AssertionError("nobody named one")

        def pump(self) -> None:
            raise AssertionError("it is down")

    node, loop = Down(), asyncio.get_running_loop()
    node.outbox.why = "127.0.0.1:1: it hangs"
    entry = node.outbox.add("t", b"1", 1, 60.0, loop.time())
    Detours(loop, node).begin(node, "t")
    with pytest.raises(BusUnavailable, match=r"taken nothing for 10\.0 s: 127\.0\.0\.1:1: it hangs"):
        await entry


async def test_what_is_sent_once_more_is_no_less_sure_than_before() -> None:
    """A history may be lost again while what was lost with it is on its way."""
    box = Outbox(max_bytes=100, max_seconds=10, remember=5)
    first, second = (box.add("t", b"1", 1, 1.0, now=0.0) for _ in range(2))
    box.take(5)
    box.confirm(Position("e", 1), now=9.0)
    box.interrupted("lost")
    # However long it takes until it is back: it is that what was confirmed just before the end was not seen by all.
    box.expire(now=19.0)
    with pytest.raises(BusUnavailable, match="taken nothing"):
        await second
    assert box.lost_history(now=30.0) == 1
    box.expire(now=39.0)
    assert box.take(5) == [first]
    box.interrupted("lost again")
    assert box.take(5) == [first]
    assert await first == ("e", 1)
    box.confirm(Position("f", 1), now=39.0)
    box.expire(now=45.0)
    assert box.lost_history(now=45.0) == box.bytes == 0
    # What its sender was told to have failed is not sent again.
    third = box.add("t", b"3", 1, 1.0, now=50.0)
    assert box.take(5) == [third]
    box.expire(now=60.0)
    box.interrupted("lost")
    assert not box.take(5)


def test_an_outbox_of_very_many_is_sorted_out_in_a_linear_number_of_steps() -> None:
    box = Outbox(max_bytes=10**9)
    count = 100_000  # a quadratic number of steps would take minutes
    entries = [
        box.add("h" if kept else "m", b"12", int(kept), 1.0, 0.0) for kept in (True, False) for _ in range(count)
    ]
    box.interrupted("connection lost")
    assert [entry.done for entry in (entries[0], entries[count])] == [False, True]
    assert box.bytes == 2 * count
    assert box.take(count) == entries[:count]
    for _ in range(count):
        box.confirm(None, 1.0)
    assert box.lost_history(2.0, {"h", "other"}) == count
    assert box.take(count) == entries[:count]


def test_the_store() -> None:
    store = Store(max_bytes=7000)
    places = [store.append("a", b"%d" % number, 3, 10.0, now=0.0) for number in range(5)]
    epoch = places[0].epoch
    assert places == [(epoch, number) for number in range(1, 6)]
    reading = store.read("a", None, 10, now=1.0)
    assert [(message.position.offset, message.data) for message in reading.messages] == [
        (3, b"2"),
        (4, b"3"),
        (5, b"4"),
    ]
    assert store.read("a", places[1], 10, now=1.0).complete
    assert not store.read("a", places[0], 10, now=1.0).complete
    assert not store.read("a", Position(epoch, 6), 10, now=1.0).complete
    assert not store.read("b", places[1], 10, now=1.0).complete  # a place of another topic
    # When its messages have expired, its numbers go on.
    store.sweep(now=11.0)
    assert store.read("a", places[4], 10, now=11.0) == (places[4], [], True)
    for place in (places[3], Position(epoch, 6)):
        assert store.read("a", place, 10, now=11.0) == (places[4], [], False)
    assert store.append("a", b"x", 3, 10.0, now=11.0) == (epoch, 6)
    # A topic that is forgotten, and comes again, begins anew; no place of before is taken for one of now.
    store.sweep(now=21.0)
    store.sweep(now=111.0)
    assert len(store) == store.bytes == len(store._due) == 0
    assert not store.read("a", places[4], 10, now=111.0).complete
    nowhere = store.read("a", None, 10, now=111.0).position
    again = store.append("a", b"y", 3, 10.0, now=111.0)
    assert (again.offset, again.epoch) == (1, nowhere.epoch) != (1, epoch)
    assert store.read("a", nowhere, 10, now=111.0).complete
    # The bound of all holds: those that were used the longest time ago go first.
    for number in range(20):
        store.append(f"t{number}", bytes(30), 3, 10.0, now=112.0)
        assert store.bytes <= 7000
    assert len(store) > 1
    for _ in range(200):
        store.append("big", bytes(40), 100, 10.0, now=112.0)
        assert store.bytes <= 7000
    assert store.read("big", None, 100, now=112.0).messages


def test_what_a_server_says_is_escaped_and_bounded() -> None:
    from wsfast.bus.lost import told
    from wsfast.escape import words

    said = words("no\r\nERROR forged line\x1b[31m \u202e" + "x" * 1000)
    assert said.startswith("no\\r\\nERROR forged line\\x1b[31m \\u202e")
    assert len(said) == 200
    assert words(said) == said
    assert told(RuntimeError("a\nb")) == "a\\nb"
    assert told(RuntimeError()) == "RuntimeError"
