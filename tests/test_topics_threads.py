"""Topics of a server on several event loops: the same as on one, from each of its threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from shared import until

import wsfast
from wsfast.bus import LocalBus
from wsfast.topics.part import AsyncioSite, _answer
from wsfast.topics.topics import hub_of

pytestmark = pytest.mark.anyio

THREADS = 3


class Room(wsfast.Server):
    """A server that does what its clients say, and says in which thread it does."""

    def __init__(self, topics: wsfast.Topics, **options: Any) -> None:
        super().__init__(topics=topics, **options)
        self.blocked = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.register_handler(None, self.talk)

    async def talk(self, ws: wsfast.WebSocket) -> None:
        assert self.topics is not None
        await ws.send(threading.current_thread().name)
        async for message in ws:
            assert isinstance(message, str)
            try:
                await ws.send(str(await self.do(ws, message.split())))
            except (ValueError, RuntimeError, wsfast.WebSocketError) as exc:
                await ws.send(f"{type(exc).__name__}: {exc}")

    async def do(self, ws: wsfast.WebSocket, words: list[str]) -> object:
        topics = self.topics
        assert topics is not None
        match words:
            case ["join", topic]:
                await ws.subscribe(topic)
                return "joined"
            case ["enter", topic, info]:
                await ws.subscribe(topic, info=info)
                return [present.info for present in topics.present(topic)]
            case ["leave", topic]:
                return ws.unsubscribe(topic)
            case ["publish", topic, text]:
                return await ws.publish(topic, text)
            case ["many", topic, count]:
                for number in range(int(count)):
                    ws.publish(topic, f"{threading.current_thread().name} {number}")
                return "published"
            case ["to", "all", topic, text]:
                return await self.publish(topic, text)
            case ["recover", topic, since]:
                return await ws.recover(topic, None if since == "None" else since)
            case ["history", topic]:
                return [published.message async for published in topics.history(topic)]
            case ["topics"]:
                return sorted(ws.topics)
            case ["block"]:
                if threading.current_thread() is not threading.main_thread():
                    self.blocked.release()
                    assert self.go_on.wait(20)
                return "blocked"
        raise AssertionError(words)


@contextlib.asynccontextmanager
async def room(
    topics: wsfast.Topics, count: int = THREADS, **options: Any
) -> AsyncIterator[tuple[Room, list[wsfast.WebSocket]]]:
    """Run a server on several loops, and connect a client to each."""
    async with Room(topics, **options) as server, contextlib.AsyncExitStack() as stack:
        await server.start("127.0.0.1", 0, threads=THREADS)
        port = server.sockets[0].getsockname()[1]
        found: dict[str, wsfast.WebSocket] = {}
        while len(found) < count:  # the system chooses the thread
            ws = await stack.enter_async_context(wsfast.connect(f"ws://127.0.0.1:{port}/"))
            found.setdefault(str(await ws.recv()), ws)
        yield server, list(found.values())


async def ask(ws: wsfast.WebSocket, text: str) -> str:
    await ws.send(text)
    return str(await asyncio.wait_for(ws.recv(), 10))


async def take(ws: wsfast.WebSocket, count: int = 1) -> list[str]:
    return [str(await asyncio.wait_for(ws.recv(), 10)) for _ in range(count)]


async def test_a_publish_reaches_members_in_all_threads() -> None:
    topics = wsfast.Topics()
    async with room(topics) as (server, clients):
        for ws in clients:
            assert await ask(ws, "join room") == "joined"
            assert await ask(ws, "topics") == "['room']"
        for publisher in clients:
            assert await ask(publisher, "publish room hello") == "None"
            for other in clients:
                if other is not publisher:
                    assert await take(other) == ["hello"]
        await server.publish("room", "from the first loop")
        await clients[1].send("to all room x")
        for ws in clients:
            assert set(await take(ws, 3 if ws is clients[1] else 2)) - {"None"} == {"from the first loop", "x"}
        # Another thread counts what it has written; until then, a client may have read it.
        await until(lambda: topics.counters["deliveries"] == THREADS * (THREADS - 1) + 2 * THREADS)
        counters = topics.counters
        assert counters["publishes"] == THREADS + 2
        assert counters["topics"] == 1
        assert counters["subscriptions"] == THREADS
        for ws in clients[1:]:
            assert await ask(ws, "leave room") == "True"
        assert await ask(clients[0], "publish room x") == "None"
        assert topics.counters["subscriptions"] == 1
    assert topics.health == "closed"
    assert topics.counters["publishes"] == THREADS + 3  # those of threads that have ended, too
    assert hub_of(topics).far == {}


async def test_each_publisher_keeps_its_order() -> None:
    topics = wsfast.Topics()
    async with room(topics) as (_, clients):
        for ws in clients:
            await ask(ws, "join t")
        for ws in clients:
            await ws.send("many t 300")
        for ws in clients:
            came = await take(ws, 2 * 300 + 1)
            came.remove("published")
            by_thread: dict[str, list[int]] = {}
            for thread, number in (message.split() for message in came):
                by_thread.setdefault(thread, []).append(int(number))
            assert [*by_thread.values()] == [list(range(300))] * 2


async def test_what_was_handed_on_comes_before_the_answer() -> None:
    """Also where the other thread was so quick that nobody has to wait for it."""
    loop = asyncio.get_running_loop()
    site, came = AsyncioSite(loop), list[str]()
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    site.tell(came.append, "message")
    future.set_result("answer")
    came.append(await _answer(loop, future, site))
    assert came == ["message", "answer"]


async def test_history_is_in_one_order_everywhere() -> None:
    topics = wsfast.Topics(encode=lambda topic, message, position: f"{position} {message!s}")
    topics.configure("room.*", history=wsfast.History(1000, 60), presence=True)
    async with room(topics) as (_, clients):
        for ws, name in zip(clients, "ABC", strict=True):
            assert name in await ask(ws, f"enter room.1 {name}")
        for ws in clients:
            await ws.send("many room.1 50")
        # All but its own, which are in no one order with the answer.
        seen = [[message for message in await take(ws, 101) if message != "published"] for ws in clients]
        everywhere = set(seen[0]) | set(seen[1]) | set(seen[2])
        order = sorted(everywhere, key=lambda message: int(message.split()[0].split(":")[1]))
        assert len(order) == 150
        for messages in seen:
            assert messages == [message for message in order if message in set(messages)]
        assert (await ask(clients[2], "publish room.1 last")).endswith(":151")
        assert (await take(clients[1]))[0].endswith(" last")
        assert (await ask(clients[1], "history room.1")).count(",") == 150


async def test_recovering_in_each_thread() -> None:
    """Nothing is left out or sent twice, though others publish meanwhile."""
    topics = wsfast.Topics(encode=lambda topic, message, position: f"{position}")
    topics.configure("room", history=wsfast.History(10_000, 60))
    stop = asyncio.Event()

    async def publish() -> None:
        while not stop.is_set():
            topics.publish("room", "x")
            await asyncio.sleep(0.001)  # a pace that is far below what one connection can take

    async with room(topics) as (_, clients):
        await topics.publish("room", "x")
        publishing = asyncio.create_task(publish())
        try:
            for ws in clients:
                await ws.send("recover room None")
                offsets = []
                recovered = None
                while recovered is None or len(offsets) < recovered + 20:
                    (message,) = await take(ws)
                    if message.isdigit():
                        recovered = int(message)
                    else:
                        offsets.append(int(message.split(":")[1]))
                assert offsets == list(range(1, len(offsets) + 1))
                await ws.close()
        finally:
            stop.set()
            await publishing
        assert topics.counters["recovered"] >= THREADS


async def test_presence_and_the_end_of_connections() -> None:
    happened: list[tuple[str | None, bool, str]] = []
    topics = wsfast.Topics()
    topics.configure("*", presence=True)
    topics.on_presence = lambda topic, present, came: happened.append(
        (present.info, came, threading.current_thread().name)
    )
    async with room(topics) as (_, clients):
        for number, ws in enumerate(clients):
            assert str(number) in await ask(ws, f"enter room {number}")  # at once
        assert len(topics.present("room")) == THREADS
        for ws in clients:
            await ws.close()
        await until(lambda: len(happened) == 2 * THREADS)
        assert topics.present("room") == []
        assert {thread for *_, thread in happened} == {threading.current_thread().name}
        await until(lambda: topics.counters["topics"] == 0)


async def test_limits_and_errors_are_those_of_one_loop() -> None:
    topics = wsfast.Topics(max_topics=2, authorize=lambda ws, topic: topic != "secret")
    async with room(topics) as (_, clients):
        ws = clients[-1]
        assert (await ask(ws, "join secret")).startswith("NotAuthorized")
        assert (await ask(ws, "join a!")).startswith("ValueError: a topic's name")
        assert (await ask(ws, "history a")).startswith("ValueError: 'a' has no history")
        for name in "ab":
            await ask(ws, f"join {name}")
        assert (await ask(ws, "join c")).startswith("TooManySubscriptions")


async def test_processes_with_threads(tmp_path: Path) -> None:
    """What a thread publishes reaches other processes, and what those publish reaches all threads."""
    one, two = (wsfast.Topics(LocalBus(tmp_path / "bus")) for _ in range(2))
    for topics in (one, two):
        topics.configure("kept", history=wsfast.History(10, 60))
    async with room(one) as (_, here), room(two, 1) as (_, (there,)):
        for topic in ("t", "kept"):
            for ws in (*here, there):
                assert await ask(ws, f"join {topic}") == "joined"
            await ask(here[2], f"publish {topic} x")
            assert await take(there) == await take(here[0]) == await take(here[1]) == ["x"]
            await ask(there, f"publish {topic} y")
            for ws in here:
                assert await take(ws) == ["y"]
        # The awaitable tells whether the bus has taken it, in any thread.
        await hub_of(one)._bus.close()
        assert (await ask(here[2], "publish t z")).startswith("BusUnavailable")


async def test_another_loop_takes_part() -> None:
    """Two servers on two loops share their topics."""
    topics = wsfast.Topics()
    ports: list[int] = []
    end: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with Room(topics) as server:
            await server.start("127.0.0.1", 0)
            loop = asyncio.get_running_loop()
            end.append(lambda: loop.call_soon_threadsafe(stop.set))
            ports.append(server.sockets[0].getsockname()[1])
            await stop.wait()

    async with Room(topics) as server:
        await server.start("127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        await until(lambda: len(ports) == 2)
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(wsfast.connect(f"ws://127.0.0.1:{port}/")) for port in ports]
            for ws in clients:
                await take(ws)
                await ask(ws, "join t")
            await ask(clients[0], "publish t x")
            assert await take(clients[1]) == ["x"]
            await ask(clients[1], "publish t y")
            assert await take(clients[0]) == ["y"]
        end[0]()
        await asyncio.to_thread(thread.join)
        assert topics.health == "up"
    assert topics.health == "closed"


async def test_a_loop_that_does_not_run_any_more() -> None:
    topics = wsfast.Topics()

    def start() -> None:
        asyncio.run(topics.start())

    await asyncio.to_thread(start)
    with pytest.raises(wsfast.InvalidState, match="another event loop, which has ended"):
        await topics.start()
    with pytest.raises(RuntimeError, match="event loop"):
        topics.publish("t", "x")


async def test_connections_of_another_loop() -> None:
    """A connection is subscribed in its own thread only."""
    topics = wsfast.Topics()
    async with room(topics) as (server, clients):
        failed = []
        for ws in server.connections:
            try:
                topics.subscribe(ws, "t")
            except RuntimeError as exc:
                failed.append(str(exc))
        assert len(failed) >= THREADS - 1
        assert "belongs to another event loop" in failed[0]
        with pytest.raises(RuntimeError, match="event loop"):
            await asyncio.to_thread(topics.publish, "t", "x")
        assert len(clients) == THREADS


async def test_what_waits_for_another_thread_is_bounded() -> None:
    """A message that is too much is told of, counted, and sent to nobody; nothing is left over after."""
    topics = wsfast.Topics()

    async def flood() -> None:
        async with topics:
            sent = [topics.publish("t", bytes(8_000_000)) for _ in range(5)]
            with pytest.raises(wsfast.BusUnavailable, match="the topics' event loop is behind"):
                await sent[-1]
            assert topics.counters["dropped"] == 1
            for one in sent[:-1]:  # when the first loop takes them
                await one
            await topics.publish("t", bytes(8_000_000))

    async with topics:
        await asyncio.to_thread(asyncio.run, flood())
        assert topics.counters["publishes"] == 5


async def test_what_a_thread_did_not_get_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is behind loses messages; `on_gap` tells how many, and what comes later is delivered."""
    monkeypatch.setattr("wsfast.topics.part.UP_BYTES", 10_000)  # of nine short messages
    told = asyncio.Queue[wsfast.Gap]()
    topics = wsfast.Topics(on_gap=told.put_nowait)
    async with room(topics) as (server, clients):
        for ws in clients:
            await ask(ws, "join t")
        for ws in clients:
            await ws.send("block")  # all threads but the first loop's
        for _ in range(THREADS - 1):
            assert await asyncio.to_thread(server.blocked.acquire, timeout=10)
        for number in range(20):
            await server.publish("t", str(number))
        lost = [await asyncio.wait_for(told.get(), 10) for _ in range(THREADS - 1)]
        assert lost == [wsfast.Gap("t", 11)] * (THREADS - 1)
        assert topics.counters["gaps"] == THREADS - 1
        assert topics.counters["dropped"] == 11 * (THREADS - 1)
        server.go_on.set()
        came = [await take(ws, 10) for ws in clients]
        await server.publish("t", "after")
        for ws, messages in zip(clients, came, strict=True):
            while messages[-1] != "after":
                messages += await take(ws)
        first = [str(number) for number in range(20)]
        expected = [[*first, "after"]] + [[*first[:9], "after"]] * (THREADS - 1)
        assert sorted(([m for m in messages if m != "blocked"] for messages in came), key=len, reverse=True) == expected
