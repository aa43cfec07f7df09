"""The buses: each does what `wsfast.testing.bus` says, and what is its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsfast.bus import Bus, LocalBus, MemoryBus, Position, local
from wsfast.bus.outbox import Outbox
from wsfast.bus.store import Store
from wsfast.exceptions import BusUnavailable
from wsfast.testing.bus import CHECKS, check_end, processes

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


async def test_the_directory_is_nobody_elses(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    bus = LocalBus(tmp_path)
    with pytest.raises(PermissionError, match="closed to others"):
        await bus.start(object(), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("greets", [False, True])
async def test_a_stream_of_messages_is_checked(greets: bool, make_local: Callable[[], Bus], tmp_path: Path) -> None:
    """Nothing is taken from a stream that did not begin by a greeting, or names what is no topic."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    async with processes(make_local, 1) as (process,):
        (path,) = (path for path in (tmp_path / "bus").iterdir() if path.is_socket())
        reader, writer = await asyncio.open_unix_connection(path)
        if greets:
            writer.write(local._frame(local._F_HELLO, "", local._HELLO.pack(local._VERSION, process.origin + 2)))
            writer.write(local._frame(local._F_MESSAGE, "hellö", b"x"))
        else:
            writer.write(local._frame(local._F_MESSAGE, "hello", b"x"))
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert ("ascii" if greets else "no greeting") in told[0]
        assert not process.messages


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
    box.expire(now=20.0)
    with pytest.raises(BusUnavailable, match="taken nothing for 10 s"):
        await third
    assert box.bytes == len(box) == 0


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
    store = Store(max_bytes=100)
    for number in range(5):
        assert store.append("a", b"%d" % number, 3, 10.0, now=0.0) == (store.epoch, number + 1)
    reading = store.read("a", None, 10, now=1.0)
    assert [(message.position.offset, message.data) for message in reading.messages] == [
        (3, b"2"),
        (4, b"3"),
        (5, b"4"),
    ]
    assert store.read("a", Position(store.epoch, 2), 10, now=1.0).complete
    assert not store.read("a", Position(store.epoch, 1), 10, now=1.0).complete
    # What is forgotten goes on with higher numbers, so that a place of before is not taken for one of now.
    store.sweep(now=11.0)
    assert len(store) == store.bytes == 0
    assert not store.read("a", Position(store.epoch, 4), 10, now=11.0).complete
    assert store.append("a", b"x", 3, 10.0, now=11.0).offset == 6
    # The bound of all holds: those that were used the longest time ago go first.
    for number in range(20):
        store.append(f"t{number}", bytes(30), 3, 10.0, now=12.0)
    assert store.bytes <= 100
    for _ in range(20):
        store.append("big", bytes(40), 100, 10.0, now=12.0)
    assert store.bytes <= 100


def test_what_a_server_says_is_escaped_and_bounded() -> None:
    from wsfast.bus.lost import told
    from wsfast.escape import words

    said = words("no\r\nERROR forged line\x1b[31m \u202e" + "x" * 1000)
    assert said.startswith("no\\r\\nERROR forged line\\x1b[31m \\u202e")
    assert len(said) == 200
    assert words(said) == said
    assert told(RuntimeError("a\nb")) == "a\\nb"
    assert told(RuntimeError()) == "RuntimeError"
