"""What holds for the buses of all engines: Redis, Valkey and NATS."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from engines import ENGINES, REDISES, Engine, bus, engine, fixtures, maker, two
from shared import until

from wsfast.bus import Position
from wsfast.bus.outbox import Outbox
from wsfast.exceptions import BusUnavailable
from wsfast.testing.bus import CHECKS, Process

pytestmark = [pytest.mark.anyio, pytest.mark.engines]


shared, own = fixtures(*ENGINES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Any, shared: Engine) -> None:
    await check(maker(shared))


async def test_prefixes_keep_applications_apart(shared: Engine) -> None:
    async with two(shared) as (one, other), two(shared) as (stranger, _):
        for process in (other, stranger):
            await process.join("t")
        await one.bus.publish("t", b"1")
        await one.bus.store("h", b"1", 10, 60.0)
        await until(lambda: other.messages)
        await stranger.bus.settled()
        assert stranger.messages == []
        assert (await stranger.bus.read("h", None)).messages == []


async def test_a_restart(own: Engine) -> None:
    """What waits is stored when it is back, in order and once.

    NATS keeps histories on its disk, so that the epoch goes on. Redis kept nothing here: a new epoch begins with what
    was stored lately.
    """
    async with two(own) as (one, other):
        await other.join("h")
        first = await one.bus.store("h", b"0", 100, 60.0)
        own.kill()
        await until(lambda: not one.up and not other.up)
        waiting = [one.bus.store("h", b"%d" % number, 100, 60.0) for number in range(1, 10)]
        why = f"is not connected: .*127.0.0.1:{own.port}"
        with pytest.raises(BusUnavailable, match=why):
            await one.bus.publish("t", b"lost")
        with pytest.raises(BusUnavailable, match=why):
            await one.bus.read("h", None)
        with pytest.raises(BusUnavailable, match=why):
            await one.bus.settled()
        own.start()
        positions = [await entry for entry in waiting]
        await until(lambda: other.up)
        reading = await other.bus.read("h", first)
        kept = [message.data for message in reading.messages]
        assert reading.complete == own.is_nats
        if own.is_nats:
            assert positions == [Position(first.epoch, number) for number in range(2, 11)]
            assert kept == [b"%d" % number for number in range(1, 10)]
        else:
            assert positions[-1].epoch != first.epoch
            assert kept == [b"%d" % number for number in range(10)]
        assert one.bus.counters == {"reconnects": 1, "outbox": 0}


async def test_a_hung_engine_is_noticed_within_three_seconds(own: Engine) -> None:
    async with two(own) as (one, other):
        loop = asyncio.get_running_loop()
        start = loop.time()
        own.kill(signal.SIGSTOP)
        waiting = one.bus.publish("t", b"1")
        await until(lambda: not one.up and not other.up)
        assert loop.time() - start <= 3.5  # 3.0 s at most where nothing else runs
        with pytest.raises(BusUnavailable, match=f"was lost: .*127.0.0.1:{own.port}: it hangs"):
            await waiting
        own.kill(signal.SIGCONT)
        await until(lambda: one.up and other.up)
        await other.join("t")
        await one.bus.publish("t", b"2")
        await until(lambda: ("t", b"2") in other.messages)


@pytest.mark.parametrize("name", [REDISES[0], "nats-server"])
async def test_a_password(name: str, tmp_path: Path) -> None:
    options = ("--user", "ada", "--pass", "secret") if name == "nats-server" else ()
    with engine(name, tmp_path, *options) as running:
        if not running.is_nats:
            running.ask("CONFIG", "SET", "requirepass", "secret")
        user = "ada" if running.is_nats else ""
        good = Process(bus(running.url.replace("//", f"//{user}:secret@")))
        bad = Process(bus(running.url))
        for process in (good, bad):
            await process.bus.start(process, process.origin)
        await until(lambda: good.up)
        await until(lambda: bad.states)
        assert not bad.up
        with pytest.raises(
            BusUnavailable, match=r"is not connected: .*(Authentication required|Authorization Violation)"
        ):
            await bad.bus.publish("t", b"")
        for process in (good, bad):
            await process.bus.close()


@pytest.mark.parametrize("scheme", ["redis", "nats"])
async def test_where_nothing_listens(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outbox.__init__, "__defaults__", (1048576, 0.1, 5.0))  # it takes 10 s
    process = Process(bus(f"{scheme}://ada:secret@127.0.0.1:1"))
    await process.bus.start(process, process.origin)
    await until(lambda: process.states)
    calls = {
        "the bus has taken nothing for 0.1 s": process.bus.store("t", b"", 1, 1.0),
        "is not connected": process.bus.publish("t", b""),
        "not connected": process.bus.settled(),
    }
    for what, call in calls.items():
        with pytest.raises(BusUnavailable, match=rf"{what}: .*127\.0\.0\.1:1.*Conn.* (failed|refused)") as told:
            await call
        assert "secret" not in str(told.value)
    waiting = process.bus.store("t", b"", 1, 1.0)
    await process.bus.close()
    with pytest.raises(BusUnavailable, match="the bus was closed"):
        await waiting
