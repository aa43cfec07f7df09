"""Topics of servers on trio: the same as on asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from certificates import Certificates

import wsfast
import wsfast.trio
from wsfast.bus import LocalBus
from wsfast.trio import Server, WebSocket, connect, serve


async def talk(ws: WebSocket) -> None:
    """Do what a client says."""
    async for message in ws:
        assert isinstance(message, str)
        try:
            await ws.send(str(await do(ws, message.split())))
        except (ValueError, wsfast.WebSocketError) as exc:
            await ws.send(f"{type(exc).__name__}: {exc}")


async def do(ws: WebSocket, words: list[str]) -> object:
    match words:
        case ["join", topic]:
            await ws.subscribe(topic)
            return "joined"
        case ["enter", topic, info]:
            await ws.subscribe(topic, info=info)
            return "joined"
        case ["leave", topic]:
            return ws.unsubscribe(topic)
        case ["publish", topic, text]:
            return await ws.publish(topic, text)
        case ["recover", topic, since]:
            return await ws.recover(topic, None if since == "None" else since)
        case ["topics"]:
            return sorted(ws.topics)
    raise AssertionError(words)


@contextlib.asynccontextmanager
async def running(
    topics: wsfast.Topics | None, handler: Callable[[WebSocket], Any] = talk, **options: Any
) -> AsyncIterator[tuple[Server, Callable[..., Any]]]:
    """Run a server, and yield it with a function that connects."""
    scheme = "wss" if "ssl" in options else "ws"
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, "127.0.0.1", 0, topics=topics, **options))
        uri = f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}/"
        async with contextlib.AsyncExitStack() as stack:

            async def client(**more: Any) -> Any:
                return await stack.enter_async_context(connect(uri, **more))

            yield server, client
        await server.shutdown()


async def ask(ws: Any, text: str) -> str:
    await ws.send(text)
    return await take(ws)


async def take(ws: Any) -> str:
    with trio.fail_after(10):
        message = await ws.recv()
    return str(message)


def run(main: Callable[[], Any]) -> None:
    trio.run(main)
    assert not [thread for thread in threading.enumerate() if thread.name == "wsfast-topics"]


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_publishing(tls: bool, compression: str | None, certs: Certificates) -> None:
    options: dict[str, Any] = {"ssl": certs.server_context()} if tls else {}
    more: dict[str, Any] = {"ssl": certs.client_context()} if tls else {}
    topics = wsfast.Topics()

    async def main() -> None:
        async with running(topics, compression=compression, **options) as (server, client):
            one, two = [await client(compression=compression, **more) for _ in range(2)]
            for ws in (one, two):
                assert await ask(ws, "join room") == "joined"
            assert await ask(one, "publish room hello") == "None"  # to all others
            assert await take(two) == "hello"
            await server.publish("room", "x" * 10_000)
            assert await take(one) == await take(two) == "x" * 10_000
            assert await ask(two, "topics") == "['room']"
            assert await ask(two, "leave room") == "True"
            assert await ask(two, "leave room") == "False"
            await server.publish("room", "on")
            assert await take(one) == "on"
            assert topics.counters["deliveries"] == 4
            assert topics.counters["publishes"] == 3
            await one.close()
        assert topics.counters["subscriptions"] == 0
        with pytest.raises(wsfast.InvalidState, match="closed"):
            server.publish("room", "x")

    run(main)
    assert topics.health == "closed"


def test_order_of_calls() -> None:
    """What is sent and published to a connection keeps the order of the calls."""

    async def handler(ws: WebSocket) -> None:
        await ws.subscribe("t")
        await ws.subscribe("room.1")
        for number in range(200):
            text = str(number)
            match number % 7:
                case 0 | 3:
                    await ws.send(text)
                case 2:
                    await ws.send([text[:1], text[1:]])
                case 4:
                    await servers[0].publish("room.1", text)
                case _:
                    servers[0].publish("t", text)
        servers[0].publish("t", "last")

    servers: list[Server] = []

    async def main() -> None:
        topics = wsfast.Topics()
        topics.configure("room.*", history=wsfast.History(100, 60))
        async with running(topics, handler) as (server, client):
            servers.append(server)
            ws = await client()
            assert [message async for message in ws] == [*(str(number) for number in range(200)), "last"]

    run(main)


def test_presence_history_and_the_end() -> None:
    topics = wsfast.Topics(encode=lambda topic, message, position: f"{position} {message!s}")
    topics.configure("room.*", history=wsfast.History(100, 60), presence=True)

    async def main() -> None:
        async with running(topics) as (server, client):
            one = await client()
            assert await ask(one, "enter room.1 Ada") == "joined"
            assert [present.info for present in server.present("room.1")] == ["Ada"]
            positions = [await server.publish("room.1", str(number)) for number in range(4)]
            assert [(await take(one)).split()[1] for _ in range(4)] == list("0123")
            kept = [published.message async for published in server.history("room.1", positions[1])]
            assert kept == ["2", "3"]
            two = await client()
            await two.send(f"recover room.1 {positions[0]}")
            assert [(await take(two)).split()[-1] for _ in range(4)] == ["1", "2", "3", "3"]
            assert (await ask(two, "recover room.1 x")).startswith("ValueError: a position must be")
            assert len(server.present("room.1")) == 2
            one.abort()
            with trio.fail_after(10):
                while len(server.present("room.1")) > 1:
                    await trio.sleep(0.01)
            assert topics.counters["subscriptions"] == 1

    run(main)


def test_what_is_not_allowed() -> None:
    topics = wsfast.Topics(authorize=lambda ws, topic: topic != "secret", max_topics=1)

    async def main() -> None:
        async with running(topics) as (server, client):
            ws = await client()
            assert (await ask(ws, "join secret")).startswith("NotAuthorized")
            assert (await ask(ws, "join a!")).startswith("ValueError: a topic's name")
            assert await ask(ws, "join a") == "joined"
            assert (await ask(ws, "join b")).startswith("TooManySubscriptions")
            with pytest.raises(ValueError, match="has no history"):
                _ = [published async for published in server.history("a")]
            with pytest.raises(wsfast.InvalidState, match="no topics"):
                ws.subscribe("a")  # a client
        async with running(None) as (server, client):
            assert "the connection's server has no topics" in await ask(await client(), "join a")
            with pytest.raises(wsfast.InvalidState, match="serve\\(topics="):
                server.publish("a", "x")
        with pytest.raises(TypeError, match="topics must be a Topics, got int"):
            await serve(talk, "127.0.0.1", 0, topics=5)  # type: ignore[arg-type]

    run(main)


def test_while_a_message_goes_out_in_fragments() -> None:
    """What is published meanwhile comes behind it."""
    servers: list[Server] = []

    async def handler(ws: WebSocket) -> None:
        await ws.subscribe("t")

        async def pieces() -> AsyncIterator[str]:
            yield "a"
            await servers[0].publish("t", "published")
            yield "b"

        await ws.send(pieces())
        await ws.wait_closed()

    async def main() -> None:
        async with running(wsfast.Topics(), handler) as (server, client):
            servers.append(server)
            ws = await client()
            assert [await take(ws) for _ in range(2)] == ["ab", "published"]

    run(main)


def test_a_peer_that_does_not_read() -> None:
    """It makes nobody wait; of a topic that conflates it gets the newest, of others what there is room for."""
    topics = wsfast.Topics()
    topics.configure("price", conflate=True)

    async def main() -> None:
        async with running(topics) as (server, client):
            slow = await client(max_size=None, read_limit=1)
            assert await ask(slow, "join price") == "joined"
            assert await ask(slow, "join all") == "joined"
            for number in range(200):
                await server.publish("all", b"%d " % number + bytes(100_000))
            assert topics.counters["dropped"] > 50
            for number in range(300):
                await server.publish("price", f"{number}")
            assert topics.counters["conflated"] > 200
            got: list[str | bytes] = []
            with trio.fail_after(20):
                while not got or got[-1] != "299":
                    got.append(await slow.recv())
            assert len([one for one in got if isinstance(one, str)]) < 50

    run(main)


def test_servers_share_topics(tmp_path: Path) -> None:
    """Two of one run, and another process' by a bus."""
    topics, other = wsfast.Topics(LocalBus(tmp_path / "bus")), wsfast.Topics(LocalBus(tmp_path / "bus"))

    async def main() -> None:
        async with (
            running(other) as (far, _),
            running(topics) as (one, _),
            running(topics) as (two, _),
            contextlib.AsyncExitStack() as stack,
        ):
            ports = [server.sockets[0].getsockname()[1] for server in (far, one, two)]
            clients = [await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/")) for port in ports]
            for ws in clients:
                assert await ask(ws, "join t") == "joined"
            for server in (far, one):
                await server.publish("t", "x")
                assert [await take(ws) for ws in clients] == ["x"] * 3

    run(main)
    assert topics.health == other.health == "closed"


def test_a_server_that_is_cancelled_closes_its_topics() -> None:
    topics = wsfast.Topics()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, talk, "127.0.0.1", 0, topics=topics))
            async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as ws:
                assert await ask(ws, "join t") == "joined"
                nursery.cancel_scope.cancel()

    run(main)
    assert topics.health == "closed"
    with pytest.raises(wsfast.InvalidState, match="closed"):
        trio.run(partial(serve, talk, "127.0.0.1", 0, topics=topics))


def test_topics_that_an_asyncio_server_has_started() -> None:
    """A server on trio joins them on their loop."""
    topics = wsfast.Topics()
    loops: list[asyncio.AbstractEventLoop] = []

    async def handler(ws: wsfast.WebSocket) -> None:
        await ws.subscribe("t")
        await ws.send("joined")
        await ws.wait_closed()

    async def on_trio(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/") as there, running(topics) as (server, client):
            here = await client()
            assert await take(there) == "joined"
            assert await ask(here, "join t") == "joined"
            assert await ask(here, "publish t x") == "None"
            assert await take(there) == "x"
            await server.publish("t", "y")
            assert await take(there) == await take(here) == "y"
            loops[0].call_soon_threadsafe(topics.publish, "t", "z")
            assert await take(there) == await take(here) == "z"

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with wsfast.Server(topics=topics) as main_server:
            main_server.register_handler(None, handler)
            await main_server.start("127.0.0.1", 0)
            port = main_server.sockets[0].getsockname()[1]
            await asyncio.to_thread(trio.run, on_trio, port)
            assert topics.health == "up"

    asyncio.run(main())
    assert topics.health == "closed"
