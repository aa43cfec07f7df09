"""`RedisBus` over real servers: what a bus must do, and what happens when they do not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hiredis
import pytest
from engines import REDISES, Cluster, Engine, engine, find, fixtures, free_port, two
from shared import until

from wsfast.bus import Position, RedisBus
from wsfast.exceptions import BusUnavailable
from wsfast.testing.bus import Process, processes

pytestmark = [pytest.mark.anyio, pytest.mark.engines]


shared, own = fixtures(*REDISES)


async def test_nonsense_on_our_channels_is_dropped(shared: Engine) -> None:
    bus = RedisBus(shared.url, prefix="nonsense")
    process = Process(bus)
    await bus.start(process, 1)
    await until(lambda: process.up)
    await process.join("t")
    for nonsense in (
        "",
        "x",
        "h",
        "h:",
        "h:1:",
        "he:x:",
        "h\xff:1:2",
        "h" + "a" * 65 + ":1:2",
        "ha:" + "1" * 19 + ":2",
    ):
        shared.ask("PUBLISH", "nonsense:{t}", nonsense)
    shared.ask("PUBLISH", "nonsense:{t}", "mfine")
    await until(lambda: process.messages)
    assert (process.messages, process.stored) == ([("t", b"fine")], [])
    await bus.close()


@pytest.mark.parametrize("cluster", [False, True], ids=["one", "cluster"])
@pytest.mark.parametrize("answer", [b":1\r\n", b"+OK\r\n", b"*1\r\n*2\r\n:0\r\n$1\r\nx\r\n", b"HTTP/1.1 400\r\n\r\n"])
async def test_a_server_that_talks_nonsense_is_asked_again(answer: bytes, cluster: bool) -> None:
    """Whatever its answers make the parsing raise, the bus goes on to connect, and is closed in order."""
    opened = 0

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(answer * max(1, data.count(b"*")))  # one for each command
        writer.close()

    async with await asyncio.start_server(nonsense, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bus = RedisBus(f"redis://127.0.0.1:{port}", prefix="nonsense", cluster=cluster)
        process = Process(bus)
        await bus.start(process, 1)
        await until(lambda: opened >= 4)
        assert not process.up
        await bus.close()


@contextlib.asynccontextmanager
async def engine_of_lies(answer: bytes) -> AsyncIterator[RedisBus]:
    """Run what looks like an engine until it is asked for something of use, which it answers with `answer`."""
    info = b"redis_version:7.0.0\r\nrun_id:abc\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    match command[0].upper():
                        case b"INFO":
                            writer.write(b"$%d\r\n%b\r\n" % (len(info), info))
                        case b"SCRIPT":
                            writer.write(b"$2\r\nab\r\n")
                        case b"PING":
                            writer.write(b"+PONG\r\n")
                        case b"CLIENT" | b"HELLO" | b"SELECT":
                            writer.write(b"+OK\r\n")
                        case _:
                            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        bus = RedisBus(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        process = Process(bus)
        await bus.start(process, 1)
        await until(lambda: process.up)
        yield bus
        await bus.close()


async def test_what_the_engine_says_is_told_escaped() -> None:
    """What it refuses a message with reaches logs, by the exception and by the reason of a loss."""
    async with engine_of_lies(b"-WRONG \x07\x1b[31mforged \xe2\x80\xae" + b"x" * 1000 + b"\r\n") as bus:
        for refused in (bus.publish("t", b"1"), bus.store("t", b"1", 10, 60.0), bus.read("t", None)):
            with pytest.raises(BusUnavailable) as told:
                await refused
            assert str(told.value).startswith("the engine refused: WRONG \\x07\\x1b[31mforged ")
            assert str(told.value).isprintable()
            assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    "answer", [b"*0\r\n", b"*2\r\n:1\r\n:1\r\n", b"*2\r\n$1\r\n-\r\n:1\r\n", b"*2\r\n$1\r\ne\r\n$1\r\ne\r\n"]
)
async def test_a_place_that_is_none(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The engine is given up, and the message is tried again; nothing is logged by the event loop."""
    async with engine_of_lies(answer) as bus:
        with pytest.raises(BusUnavailable, match="the engine talks nonsense about the history"):
            await bus.read("t", None)
        stored = asyncio.ensure_future(bus.store("t", b"1", 10, 60.0))
        await until(lambda: bus.counters["reconnects"] >= 1)
        assert not stored.done()
    with pytest.raises(BusUnavailable, match="the bus was closed"):
        await stored
    assert caplog.records == []


async def test_closing_can_be_cancelled() -> None:
    bus = RedisBus(f"redis://127.0.0.1:{free_port()}")
    await bus.start(Process(bus), 1)
    await asyncio.sleep(0)
    closing = asyncio.create_task(bus.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await bus.close()


def test_an_option_that_is_unknown_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="'max_wait'"):
        RedisBus("redis://127.0.0.1", max_wait=1)


async def test_a_killed_connection_loses_nothing_that_has_a_history(own: Engine) -> None:
    async with two(own) as (one, other):
        await other.join("h")
        waiting = []
        for number in range(300):
            waiting.append(one.bus.store("h", b"%d" % number, 1000, 60.0))
            if number % 50 == 25:
                own.ask("CLIENT", "KILL", "TYPE", "normal")
                own.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.002)
        positions = [await entry for entry in waiting]
        assert len({position.epoch for position in positions}) == 1
        await until(lambda: one.up and other.up)
        reading = await other.bus.read("h", Position(positions[0].epoch, 0))
        numbers = [int(message.data) for message in reading.messages]
        assert list(dict.fromkeys(numbers)) == list(range(300))
        assert other.states.count(False) >= 1
        assert one.bus.counters["reconnects"] >= 1


async def test_a_restart_with_persistence(tmp_path: Path) -> None:
    """An engine that writes each command to its disk first goes on where it was."""
    with engine(REDISES[0], tmp_path, "--appendonly", "yes", "--appendfsync", "always") as running:
        async with two(running) as (one, other):
            first = await one.bus.store("h", b"0", 100, 60.0)
            running.kill()
            await until(lambda: not one.up)
            running.start()
            second = await one.bus.store("h", b"1", 100, 60.0)
            assert second == (first.epoch, 2)
            await until(lambda: other.up)
            reading = await other.bus.read("h", Position(first.epoch, 0))
            assert reading.complete
            assert [message.data for message in reading.messages] == [b"0", b"1"]


async def test_a_restart_from_an_old_snapshot_is_a_new_epoch(tmp_path: Path) -> None:
    """Offsets that were given twice would look like old news."""
    with engine(REDISES[0], tmp_path) as running:
        async with two(running) as (one, _):
            before = await one.bus.store("h", b"0", 100, 60.0)
            running.ask("SAVE")
            for number in range(1, 5):
                await one.bus.store("h", b"%d" % number, 100, 60.0)
            running.kill()
            await until(lambda: not one.up)
            running.start()
            assert (await one.bus.store("h", b"5", 100, 60.0)).epoch != before.epoch


@pytest.mark.parametrize("query", ["?protocol=3", "?decode_responses=true&health_check_interval=1&client_name=a"])
async def test_options_that_other_programs_want(query: str, shared: Engine) -> None:
    """A URL may be shared with programs that speak RESP3, or want text; what comes is the same."""
    made = [Process(RedisBus(shared.url + query, prefix="options")) for _ in range(2)]
    for process in made:
        await process.bus.start(process, process.origin)
    await until(lambda: all(process.up for process in made))
    one, other = made
    await other.join("t", "h")
    await one.bus.publish("t", b"1")
    place = await one.bus.store("h", b"2", 100, 60.0)
    await until(lambda: other.messages and other.stored)
    assert other.messages == [("t", b"1")]
    assert (await other.bus.read("h", None)).messages[-1:] == [(place, b"2")]
    for process in made:
        await process.bus.close()


async def test_scripts_that_were_flushed(own: Engine) -> None:
    async with two(own) as (one, other):
        await other.join("h")
        await one.bus.store("h", b"0", 100, 60.0)
        own.ask("SCRIPT", "FLUSH")
        assert (await one.bus.store("h", b"1", 100, 60.0)).offset == 2


async def test_an_engine_without_memory_refuses(own: Engine) -> None:
    async with two(own) as (one, _):
        own.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BusUnavailable, match=r"the engine refused: .*OOM"):
            await one.bus.store("h", b"0", 100, 60.0)
        own.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await one.bus.store("h", b"1", 100, 60.0)).offset == 1


async def test_sentinels(tmp_path: Path) -> None:
    with engine(REDISES[0], tmp_path) as running:
        config = tmp_path / "sentinel.conf"
        config.write_text(f"sentinel monitor main 127.0.0.1 {running.port} 1\n")
        watcher = Engine(running.command, tmp_path)
        watcher.start(str(config), "--sentinel")
        try:
            await _reach_by([("127.0.0.1", watcher.port)])
            with socket.create_server(("127.0.0.1", 0)) as hung:
                # Two that are down, one that does not answer, as on a host that was lost, and one that is none.
                strange = [("127.0.0.1", 1), ("::1", 1), hung.getsockname(), ("127.0.0.1", running.port)]
                await _reach_by([*strange, ("127.0.0.1", watcher.port)])
        finally:
            watcher.stop()


async def _reach_by(sentinels: list[tuple[str, int]]) -> None:
    process = Process(RedisBus(sentinels=sentinels, service="main"))
    await process.bus.start(process, process.origin)
    await until(lambda: process.up)
    await process.bus.close()


async def test_sentinels_that_know_no_primary(tmp_path: Path) -> None:
    """The log and errors tell what each of them said, and show no object of redis-py."""
    config = tmp_path / "sentinel.conf"
    config.write_text("")
    watcher, engine = Engine(find(REDISES[0]), tmp_path), Engine(find(REDISES[0]), tmp_path)
    try:
        watcher.start(str(config), "--sentinel")
        engine.start()  # which is no sentinel
        ports = (watcher.port, engine.port)
        process = Process(RedisBus(sentinels=[("127.0.0.1", port) for port in ports], service="main"))
        await process.bus.start(process, process.origin)
        await until(lambda: process.states)
        with pytest.raises(BusUnavailable) as refused:
            await process.bus.publish("t", b"")
        text = "the engine is not connected: sentinels know no primary: "
        text += f"127.0.0.1:{watcher.port}: it knows no 'main', 127.0.0.1:{engine.port}: unknown command 'SENTINEL'"
        assert str(refused.value).startswith(text)
        await process.bus.close()
    finally:
        watcher.stop()
        engine.stop()


def test_wrong_arguments() -> None:
    for options, why in (
        ({"prefix": "a b"}, "prefix must have"),
        ({"sentinels": [("a", 1)]}, "go together"),
        ({"url": "redis://a/1", "cluster": True}, "no databases"),
        ({"url": "http://a"}, "redis://"),
    ):
        with pytest.raises(ValueError, match=why):
            RedisBus(**options)


# --- A cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as running:
        yield running


async def _move_a_slot(running: Cluster, one: Process, other: Process, topic: str) -> None:
    """Move a topic's slot by hand, key by key: nothing is lost, and nothing but this topic waits."""
    source = running.owner(topic)
    target = next(node for node in running.nodes if node is not source)
    last = await one.bus.store(topic, b"before", 100, 60.0)
    new = next(name for name in map("new.{}".format, itertools.count()) if running.owner(name) is source)
    running.begin_to_move(topic, target)
    assert await one.bus.store(topic, b"still there", 100, 60.0) == (last.epoch, last.offset + 1)
    running.move_key(topic)
    waiting = [one.bus.store(topic, b"w%d" % number, 100, 60.0) for number in range(50)]
    assert (await one.bus.store(new, b"1", 100, 60.0)).offset == 1
    assert len(one.bus.detours) == 1  # type: ignore[attr-defined]
    running.move_key(topic)
    waiting += [one.bus.store(topic, b"w%d" % number, 100, 60.0) for number in range(50, 60)]
    assert [await entry for entry in waiting] == [(last.epoch, last.offset + 2 + number) for number in range(60)]
    reading = await other.bus.read(topic, last)
    assert reading.complete
    assert [message.data for message in reading.messages] == [
        b"still there",
        *(b"w%d" % number for number in range(60)),
    ]
    await until(lambda: [data for name, data, _ in other.stored if name == topic][-1:] == [b"w59"])
    running.end_moving(topic)
    later = [one.bus.store(topic, b"later %d" % number, 100, 60.0) for number in range(5)]
    assert [(await entry).offset for entry in later] == [last.offset + 62 + number for number in range(5)]
    await until(lambda: topic in other.missing)
    await other.bus.settled()
    await one.bus.publish(topic, b"plain")
    await until(lambda: (topic, b"plain") in other.messages)
    assert (await other.bus.read(topic, last)).complete
    assert not one.bus.detours  # type: ignore[attr-defined]
    assert one.bus.counters == other.bus.counters == {"reconnects": 0, "outbox": 0}
    assert one.states == other.states == [True]


async def test_a_cluster(cluster: Cluster) -> None:
    """Topics are spread over the nodes, and each is in order and numbered as on a single one."""
    prefix = secrets.token_hex(4)
    async with processes(lambda: RedisBus(cluster.nodes[0].url, prefix=prefix, cluster=True), 2) as (one, other):
        topics = [f"t.{number}" for number in range(60)]
        await other.join(*topics)
        for number in range(5):
            for topic in topics:
                one.bus.publish(topic, b"%d" % number)
        await until(lambda: len(other.messages) == 300)
        for topic in topics:
            assert [data for name, data in other.messages if name == topic] == [b"%d" % number for number in range(5)]
        positions = [await one.bus.store(topic, b"1", 10, 60.0) for topic in topics for _ in range(2)]
        assert [position.offset for position in positions] == [1, 2] * 60
        await until(lambda: len(other.stored) == 120)
        for engine_ in cluster.nodes:
            assert b"keys=" in engine_.ask("INFO", "keyspace")  # each has its part
        await _move_a_slot(cluster, one, other, "t.7")
        # One node is killed: the others go on, and its topics are told to be down.
        cluster.nodes[1].kill()
        await until(lambda: not one.up)
        cluster.nodes[1].start()
        await until(lambda: one.up and other.up)
        await until(lambda: b"cluster_state:ok" in cluster.nodes[0].ask("CLUSTER", "INFO"))
        await other.bus.settled()
        for topic in topics:
            await one.bus.store(topic, b"3", 10, 60.0)
        await until(lambda: len([1 for _, data, _ in other.stored if data == b"3"]) == 60)
