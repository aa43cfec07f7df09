"""`NatsBus` over real servers: what a bus must do, and what happens when they do not."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, engine, fixtures, maker, two
from shared import until

from wsfast.bus import NatsBus
from wsfast.exceptions import BusUnavailable
from wsfast.testing.bus import Process, processes

pytestmark = [pytest.mark.anyio, pytest.mark.engines]


shared, own = fixtures("nats-server")


async def until_empty(bus: NatsBus, topic: str) -> None:
    """Wait until what was kept of a topic has expired."""
    async with asyncio.timeout(10):
        while (await bus.read(topic, None)).messages:
            pass


async def test_nonsense_on_our_subjects_is_dropped(shared: Engine) -> None:
    from nats.aio.client import Client

    bus = NatsBus(shared.url, prefix="nonsense")
    process = Process(bus)
    await bus.start(process, 1)
    await until(lambda: process.up)
    await process.join("t.1")
    stranger = Client()
    await stranger.connect(shared.url)
    stem = bus._stem("t.1")
    for headers in (
        {"a": "b"},
        {"Nats-Stream": "x", "Nats-Sequence": "1"},
        {"Nats-Stream": stem + "e"},
        {"Nats-Stream": stem + "e", "Nats-Sequence": "x"},
        {"Nats-Stream": stem + "e", "Nats-Sequence": "1" * 19},
        {"Nats-Stream": stem, "Nats-Sequence": "1"},
        {"Nats-Stream": stem + "e" * 65, "Nats-Sequence": "1"},
        {"Nats-Stream": stem + "\xe9", "Nats-Sequence": "1"},
    ):
        await stranger.publish("nonsense.t.t=1", b"x", headers=headers)
    # Nor is an answer that nobody asked for, or one of another form.
    for number in ("x", "1" * 30, "77", str(bus._ids)):
        await stranger.publish(bus._inbox.decode() + number, b"\xff")
    await stranger.publish("nonsense.t.t=1", b"fine")
    await until(lambda: process.messages)
    assert (process.messages, process.stored) == ([("t.1", b"fine")], [])
    await stranger.close()
    await bus.close()


async def test_messages_of_a_history_that_come_in_another_order() -> None:
    process = Process(NatsBus())
    bus: Any = process.bus
    bus.subscribe("h")
    bus._receiver, bus._loop, bus._wake = process, asyncio.get_running_loop(), asyncio.Event()

    def come(*numbers: int, epoch: str = "e") -> None:
        for number in numbers:
            headers = f"NATS/1.0\r\nNats-Stream: {bus._stem('h')}{epoch}\r\nNats-Sequence: {number}\r\n\r\n"
            bus._took(b"wsfast.t.h", b"%d" % number, headers.encode())

    def got() -> list[int]:
        found = [position.offset for _, _, position in process.stored]
        process.stored.clear()
        return found

    come(8, 7, 5, 6, 9)  # the first that come need not be the first that were stored
    assert got() == []
    await until(lambda: len(process.stored) == 5)
    assert got() == [5, 6, 7, 8, 9]
    come(9, 12, 11)  # one that came already, and two that are early
    assert got() == []
    await until(lambda: len(process.stored) == 2)
    assert got() == [11, 12]
    come(10, 13)  # one that was given up
    assert got() == [13]
    come(15, *range(17, 1018))  # more than wait
    assert got() == [15, *range(17, 1018)]
    come(1, 2, epoch="f")
    assert got() == [1, 2]
    come(4, epoch="f")
    bus.unsubscribe("h")
    assert bus._orders == {}


async def test_a_history_that_was_deleted_is_a_new_epoch(shared: Engine) -> None:
    """What was stored lately is stored again."""
    async with two(shared) as (one, other):
        first = await one.bus.store("h", b"0", 100, 60.0)
        bus: Any = one.bus
        await bus._call(f"STREAM.DELETE.{bus._streams['h']}")
        second = await one.bus.store("h", b"1", 100, 60.0)
        assert second.epoch != first.epoch
        reading = await other.bus.read("h", first)
        assert not reading.complete
        await until(lambda: other.up)
        assert sorted({message.data for message in (await other.bus.read("h", None)).messages}) == [b"0", b"1"]


async def test_what_is_more_than_the_server_takes(shared: Engine) -> None:
    async with two(shared) as (one, other):
        await other.join("t")
        for sending in (one.bus.publish("t", bytes(1_048_577)), one.bus.store("h", bytes(1_048_577), 10, 60.0)):
            with pytest.raises(BusUnavailable, match="1048577 bytes is more than the server's 1048576"):
                await sending
        await one.bus.publish("t", b"1")
        await until(lambda: other.messages)
        assert one.states == other.states == [True]


async def test_a_history_that_is_to_keep_more(shared: Engine) -> None:
    make = maker(shared)
    async with processes(make, 1) as (one,):
        for number in range(5):
            await one.bus.store("h", b"%d" % number, 3, 60.0)
        assert len((await one.bus.read("h", None)).messages) == 3
    async with processes(make, 1) as (one,):
        for number in range(5):
            await one.bus.store("h", b"%d" % number, 6, 60.0)
        assert len((await one.bus.read("h", None)).messages) == 6


async def test_histories_that_are_empty_for_long_are_deleted(shared: Engine) -> None:
    async with two(shared) as (one, _):
        bus: Any = one.bus
        short = await bus.store("short", b"1", 10, 0.2)
        await bus.store("long", b"1", 10, 60.0)
        await until_empty(bus, "short")
        assert await bus.sweep() == 0
        assert await bus.sweep(keep=0) == 1
        assert (await bus.store("short", b"2", 10, 1.0)).epoch != short.epoch
        assert (await bus.store("long", b"2", 10, 60.0)).offset == 2


@pytest.mark.parametrize("before", ["STREAM.UPDATE", "STREAM.INFO", "STREAM.DELETE"])
async def test_what_is_stored_while_its_history_is_swept_stays(before: str, shared: Engine) -> None:
    async with two(shared) as (one, other):
        bus: Any = one.bus
        await other.bus.store("h", b"1", 10, 0.2)
        await until_empty(bus, "h")
        call, steps = bus._call, []

        async def slow_call(name: str, content: Any = None) -> Any:
            steps.append(name)
            if name.startswith(before) and sum(step.startswith(before) for step in steps) == 1:
                await other.bus.store("h", b"22", 10, 60.0)
            return await call(name, content)

        bus._call = slow_call
        assert await bus.sweep(keep=0) == (before != "STREAM.UPDATE")
        del bus._call
        await other.bus.store("h", b"33", 10, 60.0)
        kept = [stored.data for stored in (await bus.read("h", None)).messages]
        assert kept[-2:] == [b"22", b"33"]  # where it is a new history, with what was stored lately before


async def test_what_is_known_of_histories_is_bounded(shared: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsfast.bus import nats

    monkeypatch.setattr(nats, "_KNOWN", 5)
    async with two(shared) as (one, _):
        bus: Any = one.bus
        bus._most_known = 5
        bus._outbox._remember = 0.0
        for number in range(12):
            assert (await bus.store(f"t.{number % 7}", b"1", 10, 60.0)).offset == number // 7 + 1
            assert len(bus._fresh) <= 5
            assert len(bus._streams) <= 5
        bus._outbox._remember = 5.0
        some = [bus.store(f"u.{number}", b"1", 10, 60.0) for number in range(20)]  # these are needed all at once
        assert [(await one).offset for one in some] == [1] * 20
        assert bus._most_known >= len(bus._fresh) >= 20


async def test_nothing_piles_up_while_no_server_is_there() -> None:
    bus: Any = NatsBus("nats://127.0.0.1:1")
    process = Process(bus)
    await bus.start(process, 1)
    for number in range(100):
        entry = bus.store(f"t.{number}", b"1", 10, 60.0)
        entry.finish(error=BusUnavailable("it is a test"))
    await until(lambda: bus._client is None)
    assert not bus._unknown
    await bus.close()


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    with engine("nats-server", tmp_path, "--no-jetstream") as running:
        async with two(running) as (one, other):
            await other.join("t")
            await one.bus.publish("t", b"1")
            await until(lambda: other.messages)
            with pytest.raises(BusUnavailable, match="no JetStream"):
                await one.bus.store("h", b"1", 10, 60.0)
            with pytest.raises(BusUnavailable, match="no JetStream"):
                await one.bus.read("h", None)
            assert one.states == [True]


def test_wrong_arguments() -> None:
    for options, why in (
        ({"prefix": "a.b"}, "prefix must have"),
        ({"domain": ""}, "domain must have"),
        ({"replicas": 6}, "replicas must be from 1 to 5"),
        ({"servers": "redis://a"}, "nats://"),
        ({"servers": []}, "at least one"),
        ({"closed_cb": None}, "closed_cb is not for the caller"),
    ):
        with pytest.raises(ValueError, match=why):
            NatsBus(**options)
    for wrong in ({"prefix": 1}, {"replicas": True}, {"max_wait": 1}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            NatsBus(**wrong)


async def test_a_server_that_talks_nonsense_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def nonsense(client: object) -> None:
        nonlocal tries
        tries += 1
        raise ValueError("nonsense")

    bus = NatsBus()
    monkeypatch.setattr(bus, "_connect", nonsense)
    await bus.start(Process(bus), 1)
    for number in range(2000):
        with contextlib.suppress(BusUnavailable):
            bus.store(f"t{number}", bytes(10_000), 10, 60.0)
    # What is refused because too much waits is not remembered either.
    assert len(bus._unknown) < 200
    await until(lambda: tries > 1)
    await bus.close()


async def test_a_stream_of_somebody_else_is_not_swept(shared: Engine) -> None:
    async with two(shared) as (one, _):
        bus: Any = one.bus
        config = {"name": f"other-{bus._prefix}", "subjects": [bus._subject("h", "other")], "storage": "memory"}
        await bus._call(f"STREAM.CREATE.{config['name']}", config)
        assert await bus.sweep(0.0) == 0
        await bus._call(f"STREAM.DELETE.{config['name']}")
    with pytest.raises(BusUnavailable, match="the bus was closed"):
        await bus.settled()
