"""Topics of servers in threads: the same as on an event loop, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from sync_helpers import in_thread, until

import wsfast
from wsfast.bus import LocalBus
from wsfast.sync import Server, WebSocket, connect, serve


def talk(ws: WebSocket) -> None:
    """Do what a client says."""
    for message in ws:
        assert isinstance(message, str)
        try:
            match message.split():
                case ["join", topic]:
                    ws.subscribe(topic)
                    ws.send("joined")
                case ["enter", topic, info]:
                    ws.subscribe(topic, info=info)
                    ws.send("joined")
                case ["leave", topic]:
                    ws.send(str(ws.unsubscribe(topic)))
                case ["publish", topic, text]:
                    ws.publish(topic, text)
                    ws.send("published")
                case ["recover", topic, since]:
                    ws.send(f"recovered {ws.recover(topic, None if since == 'None' else since)}")
                case ["topics"]:
                    ws.send(" ".join(sorted(ws.topics)))
        except (ValueError, wsfast.WebSocketError) as exc:
            ws.send(f"{type(exc).__name__}: {exc}")


@contextlib.contextmanager
def running(
    topics: wsfast.Topics | None, handler: Callable[[WebSocket], object] = talk, **options: Any
) -> Iterator[tuple[Server, Callable[..., Any]]]:
    """Run a server, and yield it with a function that connects."""
    server = serve(handler, "127.0.0.1", 0, topics=topics, **options)
    serving = in_thread(server.serve_forever)
    scheme = "wss" if "ssl" in options else "ws"
    uri = f"{scheme}://localhost:{server.socket.getsockname()[1]}/"
    with contextlib.ExitStack() as stack:

        def client(**more: Any) -> Any:
            return stack.enter_context(connect(uri, **more))

        try:
            yield server, client
        finally:
            stack.close()
            server.shutdown()
            serving.join()
    assert not [thread for thread in threading.enumerate() if thread.name == "wsfast-topics"]


def ask(ws: Any, text: str) -> str:
    ws.send(text)
    return str(ws.recv(10))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_publishing(tls: bool, compression: str | None, certs: Certificates) -> None:
    options: dict[str, Any] = {"ssl": certs.server_context()} if tls else {}
    more: dict[str, Any] = {"ssl": certs.client_context()} if tls else {}
    with running(wsfast.Topics(), compression=compression, **options) as (server, client):
        one, two = client(compression=compression, **more), client(compression=compression, **more)
        for ws in (one, two):
            assert ask(ws, "join room") == "joined"
        assert ask(one, "publish room hello") == "published"  # to all others
        assert two.recv(10) == "hello"
        server.publish("room", b"\x00" * 10_000)
        assert one.recv(10) == two.recv(10) == b"\x00" * 10_000
        assert ask(two, "topics") == "room"
        assert ask(two, "leave room") == "True"
        assert ask(two, "leave room") == "False"
        server.publish("room", "on")
        assert one.recv(10) == "on"
        assert ask(two, "topics") == ""
        assert server.topics is not None
        assert server.topics.counters["deliveries"] == 4


def test_order_of_calls() -> None:
    """What a thread sends and publishes to a connection comes in the order of its calls."""

    def handler(ws: WebSocket) -> None:
        ws.subscribe("t")
        for number in range(200):
            if number % 3:
                server.publish("t", str(number), wait=False)
            else:
                ws.send(str(number))

    with running(wsfast.Topics(), handler) as (server, client):
        assert list(client()) == [str(number) for number in range(200)]


def test_publishing_from_many_threads() -> None:
    with running(wsfast.Topics()) as (server, client):
        ws = client()
        assert ask(ws, "join t") == "joined"

        def publish(i: int) -> None:
            for n in range(50):
                server.publish("t", f"{i} {n}")

        threads = [in_thread(partial(publish, i)) for i in range(4)]
        came = [ws.recv(10).split() for _ in range(200)]
        for thread in threads:
            thread.join()
        for i in range(4):
            assert [int(n) for who, n in came if who == str(i)] == list(range(50))


def test_presence_history_and_the_end() -> None:
    topics = wsfast.Topics(encode=lambda topic, message, position: f"{position} {message!s}")
    topics.configure("room.*", history=wsfast.History(100, 60), presence=True)
    with running(topics) as (server, client):
        one = client()
        assert ask(one, "enter room.1 Ada") == "joined"
        assert [present.info for present in server.present("room.1")] == ["Ada"]
        positions = [server.publish("room.1", str(number)) for number in range(4)]
        assert [one.recv(10).split()[1] for _ in range(4)] == list("0123")
        assert [published.message for published in server.history("room.1", positions[1])] == ["2", "3"]
        two = client()
        two.send(f"recover room.1 {positions[0]}")
        assert [two.recv(10).split()[-1] for _ in range(4)] == ["1", "2", "3", "3"]
        assert ask(two, "recover room.1 x").startswith("ValueError: a position must be")
        assert len(server.present("room.1")) == 2
        one.abort()  # whatever its handler does
        until(lambda: len(server.present("room.1")) == 1)
        assert topics.counters["subscriptions"] == 1


def test_what_is_not_allowed() -> None:
    topics = wsfast.Topics(authorize=lambda ws, topic: topic != "secret", max_topics=1)
    with running(topics) as (server, client):
        ws = client()
        assert ask(ws, "join secret").startswith("NotAuthorized")
        assert ask(ws, "join a!").startswith("ValueError: a topic's name")
        assert ask(ws, "join a") == "joined"
        assert ask(ws, "join b").startswith("TooManySubscriptions")
        with pytest.raises(ValueError, match="has no history"):
            server.history("a")
    with pytest.raises(wsfast.InvalidState, match="the server is closed"):
        server.publish("a", "x")
    with running(None) as (server, client):
        assert ask(client(), "join a").startswith("InvalidState: the connection's server has no topics")
        with pytest.raises(wsfast.InvalidState, match="serve\\(topics="):
            server.publish("a", "x")
    with pytest.raises(TypeError, match="topics must be a Topics, got int"):
        serve(talk, "127.0.0.1", 0, topics=5)  # type: ignore[arg-type]


def test_a_hook_cannot_wait_for_its_own_thread() -> None:
    raised: list[Exception] = []

    def authorize(ws: Any, topic: str) -> bool:
        try:
            ws.subscribe("other")
        except wsfast.InvalidState as exc:
            raised.append(exc)
        return True

    with running(wsfast.Topics(authorize=authorize)) as (_, client):
        assert ask(client(), "join a") == "joined"
    assert "cannot wait for the topics" in str(raised[0])


def test_while_a_message_goes_out_in_fragments() -> None:
    """What is published meanwhile comes behind it."""
    go_on = threading.Event()

    def handler(ws: WebSocket) -> None:
        ws.subscribe("t")

        def pieces() -> Iterator[str]:
            yield "a"
            yield "b"
            server.publish("t", "published")
            yield "c"

        ws.send(pieces())
        go_on.wait(10)

    with running(wsfast.Topics(), handler) as (server, client):
        ws = client()
        assert ws.recv(10) == "abc"
        assert ws.recv(10) == "published"
        go_on.set()


def test_a_peer_that_does_not_read() -> None:
    """It makes nobody wait; of a topic that conflates it gets the newest, of others what there is room for."""
    topics = wsfast.Topics()
    topics.configure("price", conflate=True)
    with running(topics) as (server, client):
        slow = client(max_size=None, read_limit=1)
        assert ask(slow, "join price") == "joined"
        assert ask(slow, "join all") == "joined"
        for number in range(200):
            server.publish("all", b"%d " % number + bytes(100_000))
        assert topics.counters["dropped"] > 50
        for number in range(300):
            server.publish("price", f"{number}")
        assert topics.counters["conflated"] > 200
        got: list[str | bytes] = []
        while not got or got[-1] != "299":
            got.append(slow.recv(10))
        assert len([one for one in got if isinstance(one, str)]) < 50


def test_servers_share_topics(tmp_path: Path) -> None:
    """Two in threads, and another process' by a bus."""
    topics, other = wsfast.Topics(LocalBus(tmp_path / "bus")), wsfast.Topics(LocalBus(tmp_path / "bus"))
    with contextlib.ExitStack() as stack:
        far, far_client = stack.enter_context(running_only(other))
        one, one_client = stack.enter_context(running_only(topics))
        _, two_client = stack.enter_context(running_only(topics))
        clients = [make() for make in (far_client, one_client, two_client)]
        for ws in clients:
            assert ask(ws, "join t") == "joined"
        for server in (far, one):
            server.publish("t", "x")
            assert [ws.recv(10) for ws in clients] == ["x"] * 3
    assert topics.health == other.health == "closed"


@contextlib.contextmanager
def running_only(topics: wsfast.Topics) -> Iterator[tuple[Server, Callable[..., Any]]]:
    """Run a server beside others."""
    server = serve(talk, "127.0.0.1", 0, topics=topics)
    serving = in_thread(server.serve_forever)
    with contextlib.ExitStack() as stack:
        yield server, lambda: stack.enter_context(connect(f"ws://127.0.0.1:{server.socket.getsockname()[1]}/"))
    server.shutdown()
    serving.join()


def test_topics_that_an_asyncio_server_has_started() -> None:
    """A server in threads joins them on their loop."""
    topics = wsfast.Topics()

    async def handler(ws: wsfast.WebSocket) -> None:
        ws.subscribe("t")
        await ws.send("joined")
        await ws.wait_closed()

    async def main() -> None:
        async with wsfast.Server(topics=topics) as main_server:
            main_server.register_handler(None, handler)
            await main_server.start("127.0.0.1", 0)
            port = main_server.sockets[0].getsockname()[1]

            def threads() -> None:
                with running_only(topics) as (server, client), connect(f"ws://127.0.0.1:{port}/") as there:
                    here = client()
                    assert there.recv(10) == "joined"
                    assert ask(here, "join t") == "joined"
                    assert ask(here, "publish t x") == "published"
                    assert there.recv(10) == "x"
                    server.publish("t", "y")
                    assert there.recv(10) == here.recv(10) == "y"

            await asyncio.to_thread(threads)
            assert topics.health == "up"
            with pytest.raises(wsfast.InvalidState, match="cannot wait for the topics"):
                serve(talk, "127.0.0.1", 0, topics=topics)
        assert topics.health == "closed"

    asyncio.run(main())
