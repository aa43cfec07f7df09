"""Topics of one process, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import logging
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from client_helpers import url_of
from shared import until

import wsfast
from wsfast.bus import LocalBus, MemoryBus, Position
from wsfast.topics import part
from wsfast.topics.envelope import BadEnvelope, Sealer
from wsfast.topics.rules import Rules

pytestmark = pytest.mark.anyio


class World:
    """A server with topics, and clients whose server's ends are known."""

    def __init__(self, server: wsfast.Server, topics: wsfast.Topics) -> None:
        self.server = server
        self.topics = topics
        self.opened: list[wsfast.WebSocket] = []
        self.clients: list[wsfast.WebSocket] = []

    async def client(self, **options: Any) -> tuple[wsfast.WebSocket, wsfast.WebSocket]:
        """Return a new connection: the client's end, and the server's."""
        before = len(self.opened)
        ws = await wsfast.connect(url_of(self.server), **options)
        self.clients.append(ws)
        await until(lambda: len(self.opened) > before)
        return ws, self.opened[before]


@contextlib.asynccontextmanager
async def world(topics: wsfast.Topics | None = None, **options: Any) -> AsyncIterator[World]:
    topics = wsfast.Topics() if topics is None else topics
    server = wsfast.Server(topics=topics, **options)
    made = World(server, topics)

    @server.handler(None)
    async def hold(ws: wsfast.WebSocket) -> None:
        made.opened.append(ws)
        await ws.wait_closed()

    async with server:
        await server.start("127.0.0.1", 0)
        yield made
    for ws in made.clients:  # one that has not read all it was sent does not see the server's Close frame
        ws.abort()
        await ws.wait_closed()


async def take(ws: wsfast.WebSocket, count: int) -> list[str | bytes]:
    async with asyncio.timeout(10):
        return [await ws.recv() for _ in range(count)]


async def test_to_all_others() -> None:
    async with world() as w:
        (a, at_a), (b, at_b) = await w.client(), await w.client()
        for ws in (at_a, at_b):
            await ws.subscribe("room.1")
        assert at_a.topics == {"room.1"}
        at_a.publish("room.1", "from a")
        w.server.publish("room.1", b"from the server")
        w.topics.publish("room.1", bytearray(b"text"), text=True)
        assert await take(b, 3) == ["from a", b"from the server", "text"]
        assert await take(a, 2) == [b"from the server", "text"]
        assert at_b.unsubscribe("room.1")
        assert not at_b.unsubscribe("room.1")
        w.server.publish("room.1", "2")
        await at_b.send("end")
        assert await take(a, 1) == ["2"]
        assert await take(b, 1) == ["end"]
        assert w.topics.counters["publishes"] == 4
        assert w.topics.counters["deliveries"] == 6
        assert w.topics.health == "up"
    assert w.topics.health == "closed"


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_the_order_of_the_calls(compression: Any) -> None:
    """Whatever way a connection is sent something: by topics, by itself, by broadcast, in fragments."""
    async with world(compression=compression) as w:
        ws, ours = await w.client(compression=compression)
        ours.subscribe("a")
        ours.subscribe("b")
        expected = []
        for number in range(300):
            text = f"{number}" * (1 + number % 50)
            expected.append(text)
            match number % 6:
                case 0:
                    w.server.publish("a", text)
                case 1:
                    w.server.publish("b", text)
                case 2:
                    ours.send_nowait(text)
                case 3:
                    wsfast.broadcast([ours], text)
                case 4:
                    await ours.send([text[:1], text[1:]])
                case 5:
                    await ours.send(bytearray(text.encode()), text=True)
        assert await take(ws, 300) == expected


async def test_what_was_published_before_a_close_arrives() -> None:
    async with world() as w:
        ws, ours = await w.client()
        ours.subscribe("a")
        w.server.publish("a", "last words")
        ours.close_nowait()
        w.server.publish("a", "too late")
        assert [message async for message in ws] == ["last words"]
        await ours.wait_closed()
        assert ours.topics == set()
        assert w.topics.counters["subscriptions"] == 0


async def test_what_was_published_before_the_server_stops_arrives() -> None:
    async with world() as w:
        ws, ours = await w.client()
        ours.subscribe("a")
        w.server.publish("a", "last words")
        w.server.close()
        assert [message async for message in ws] == ["last words"]


async def test_a_listener_and_a_stream_take_part() -> None:
    topics = wsfast.Topics()
    server = wsfast.Server(topics=topics)

    class Room(wsfast.Listener):
        def on_open(self) -> None:
            self.ws.subscribe("room")

        def on_message(self, message: str | bytes) -> None:
            self.ws.publish("room", message)

    server.register_listener("listener", Room)
    writers: list[Any] = []

    @server.stream_handler("stream")
    async def stream(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        writers.append(writer)
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()

    async with server:
        await server.start("127.0.0.1", 0)
        one = await wsfast.connect(url_of(server), subprotocols=["listener"])
        two = await wsfast.connect(url_of(server), subprotocols=["stream"])
        await until(lambda: len(server.connections) == 2 and writers)
        (at_two,) = [ws for ws in server.connections if ws.writer is not None]
        at_two.subscribe("room")
        await one.send("1")
        assert await take(two, 1) == ["1"]
        # While a message of the stream is unfinished, nothing can come in between: it waits.
        await writers[0].write(bytes(100_000))
        server.publish("room", "2")
        await writers[0].flush()
        assert [len(message) for message in await take(two, 2)] == [100_000, 1]


async def test_a_message_in_fragments_is_not_cut() -> None:
    """What is published while it is under way comes behind it, in order, bounded."""
    async with world(max_buffered=200_000) as w:
        ws, ours = await w.client()
        ours.subscribe("a")
        go = asyncio.Event()

        async def pieces() -> AsyncIterator[str]:
            yield "one "
            await go.wait()
            yield "message"

        sending = asyncio.create_task(ours.send(pieces()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in range(10):
            w.server.publish("a", f"{number}")
            await asyncio.sleep(0)
        for _ in range(3):
            w.server.publish("a", "x" * 90_000)
            await asyncio.sleep(0)
        go.set()
        await sending
        assert (await take(ws, 11)) == ["one message", *(f"{number}" for number in range(10))]
        assert [len(message) for message in await take(ws, 2)] == [90_000, 90_000]
        assert w.topics.counters["dropped"] == 1
        w.server.publish("a", "end")
        assert await take(ws, 1) == ["end"]


async def test_one_write_for_all_of_a_turn() -> None:
    async with world() as w:
        clients = [await w.client() for _ in range(3)]
        for _, ours in clients:
            ours.subscribe("a")
            ours.subscribe("b")
        for number in range(50):
            w.server.publish("ab"[number % 2], f"{number:08}")
        for ws, _ in clients:
            assert await take(ws, 50) == [f"{number:08}" for number in range(50)]
        assert w.topics.counters["writes"] == 3
        assert w.topics.counters["deliveries"] == 150


async def test_compressed_once() -> None:
    async with world(compression="deflate") as w:
        clients = [await w.client(compression="deflate") for _ in range(4)] + [await w.client()]
        for _, ours in clients:
            ours.subscribe("a")
        text = "compress me " * 100
        before = w.server.counters["bytes_sent"]
        w.server.publish("a", text)
        for ws, _ in clients:
            assert await take(ws, 1) == [text]
        assert w.server.counters["bytes_sent"] - before < 2 * len(text)


async def test_over_tls(certs: Any) -> None:
    topics = wsfast.Topics()
    server = wsfast.Server(topics=topics)
    opened: list[wsfast.WebSocket] = []

    @server.handler(None)
    async def hold(ws: wsfast.WebSocket) -> None:
        opened.append(ws)
        ws.subscribe("a")
        await ws.wait_closed()

    async with server:
        await server.start("127.0.0.1", 0, ssl=certs.server_context())
        ws = await wsfast.connect(url_of(server, scheme="wss", host="localhost"), ssl=certs.client_context())
        await until(lambda: opened)
        for number in range(100):
            server.publish("a", f"{number}")
        assert await take(ws, 100) == [f"{number}" for number in range(100)]
        await ws.close()


# --- Limits and errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a b", "room.*", "ü", "x" * 201, "a\n", "!", "a\x00"])
async def test_names(name: str) -> None:
    async with world() as w:
        _, ours = await w.client()
        for call in (ours.subscribe, ours.unsubscribe, lambda topic: w.server.publish(topic, "")):
            with pytest.raises(ValueError, match="a topic's name must have 1 to 200 of"):
                call(name)
        with pytest.raises(TypeError, match="a topic's name must be str"):
            ours.subscribe(name.encode())  # type: ignore[arg-type]


async def test_names_of_a_class_that_derives_from_str() -> None:
    """As `StrEnum`, and as an older enumeration, whose `str` is something else."""

    class Room(enum.StrEnum):
        LOBBY = "room.lobby"

    class Old(str, enum.Enum):  # noqa: UP042
        LOBBY = "room.lobby"

    topics = wsfast.Topics(LocalBus())
    topics.configure("room.*", history=wsfast.History(), presence=True)
    async with world(topics) as w:
        ws, ours = await w.client()
        for name in (Room.LOBBY, Old.LOBBY):
            await ours.subscribe(name, info="me")
            assert ours.topics == {"room.lobby"}
            assert [present.info for present in topics.present(name)] == ["me"]
            await w.server.publish(name, "all")
            await ours.publish(name, "others")
            assert [one.message async for one in topics.history(name)][-2:] == ["all", "others"]
            assert await take(ws, 1) == ["all"]
            assert ours.unsubscribe(name)
            assert ours.topics == set()
        assert await ours.recover(Room.LOBBY, None) == 4
        assert await take(ws, 4) == ["all", "others"] * 2
        ours.unsubscribe("room.lobby")
        assert topics.counters["topics"] == 0


async def test_limits() -> None:
    async with world(wsfast.Topics(max_topics=3, max_subscriptions=4)) as w:
        (_, a), (_, b) = await w.client(), await w.client()
        for name in "xyz":
            a.subscribe(name)
        with pytest.raises(wsfast.TooManySubscriptions, match="has 3 topics, which is the limit"):
            a.subscribe("w")
        a.subscribe("x")
        b.subscribe("x")
        with pytest.raises(wsfast.TooManySubscriptions, match="4 subscriptions"):
            b.subscribe("y")
        a.unsubscribe("y")
        b.subscribe("y")
        assert (a.topics, b.topics) == ({"x", "z"}, {"x", "y"})


async def test_a_connection_has_topics_of_one_kind_only() -> None:
    """Its place in the order of messages is one in one index."""
    async with wsfast.Topics() as others, world() as w:
        ws, ours = await w.client()
        ours.subscribe("a")
        refused: Callable[[], object]
        for refused in (lambda: others.subscribe(ours, "b"), lambda: others.unsubscribe(ours, "b")):
            with pytest.raises(wsfast.InvalidState, match="topics of another Topics"):
                refused()
        w.server.publish("a", "1")
        assert await take(ws, 1) == ["1"]
        assert ours.topics == {"a"}
        # Also the other way round: what is published by it would count as seen elsewhere.
        ws, ours = await w.client()
        others.subscribe(ours, "b")
        for refused in (lambda: ours.subscribe("a"), lambda: ours.publish("a", "no")):
            with pytest.raises(wsfast.InvalidState, match="topics of another Topics"):
                refused()
        others.publish("b", "2")
        assert await take(ws, 1) == ["2"]
        assert (w.topics.counters["subscriptions"], others.counters["subscriptions"]) == (1, 1)


async def test_authorize() -> None:
    asked: list[str] = []

    def may(ws: wsfast.WebSocket, topic: str) -> Any:
        asked.append(topic)
        return {"yes": True, "no": False}.get(topic, topic)

    async def later(ws: wsfast.WebSocket, topic: str) -> bool:
        return False

    async with world(wsfast.Topics(authorize=may)) as w:
        _, ours = await w.client()
        ours.subscribe("yes")
        with pytest.raises(wsfast.NotAuthorized, match="may not subscribe to 'no'"):
            ours.subscribe("no")
        with pytest.raises(TypeError, match="authorize must return True or False, got str"):
            ours.subscribe("maybe")
        assert (ours.topics, asked) == ({"yes"}, ["yes", "no", "maybe"])
    async with world(wsfast.Topics(authorize=lambda ws, topic: later(ws, topic))) as w:  # type: ignore[arg-type, return-value]
        _, ours = await w.client()
        with pytest.raises(TypeError, match="authorize must return True or False, got coroutine"):
            ours.subscribe("yes")
        assert ours.topics == set()


async def test_authorize_may_do_anything_to_the_connection() -> None:
    """What it subscribed itself is not subscribed twice, and a connection that it closed is not at all."""
    acts: list[Callable[[wsfast.WebSocket], object]] = []

    def may(ws: wsfast.WebSocket, topic: str) -> bool:
        if acts:
            acts.pop()(ws)
        return True

    topics = wsfast.Topics(authorize=may)
    async with world(topics) as w:
        client, ws = await w.client()
        acts.append(lambda ws: (ws.subscribe("room"), ws.subscribe("more")))
        ws.subscribe("room")
        assert ws.topics == {"room", "more"}
        assert topics.counters["subscriptions"] == 2
        await topics.publish("room", "once")
        await topics.publish("room", "twice")
        assert [await client.recv() for _ in range(2)] == ["once", "twice"]
        for act in (wsfast.WebSocket.close_nowait, wsfast.WebSocket.abort):
            _, ws = await w.client()
            acts.append(act)
            with pytest.raises(wsfast.ConnectionClosed):
                ws.subscribe("room")
            assert topics.counters["subscriptions"] == 2


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
async def test_more_is_recovered_than_may_be_unsent(overflow: Any) -> None:
    """It is sent as the peer takes it, and what is published meanwhile follows, once."""
    topics = wsfast.Topics()
    topics.configure("kept.*", history=wsfast.History(size=1000))
    async with world(topics, overflow=overflow, max_buffered=300_000, stop_timeout=1) as w, asyncio.timeout(60):
        for number in range(500):  # more than the system buffers, too
            await topics.publish("kept.room", b"%04d" % number * 5000)
        client, ours = await w.client()
        recovering = asyncio.create_task(ours.recover("kept.room", None))
        assert await client.recv() == b"0000" * 5000
        for number in range(500, 600):
            await topics.publish("kept.room", b"%04d" % number * 5000)
        got = [(await client.recv())[:4] for _ in range(1, 600)]
        assert got == [b"%04d" % number for number in range(1, 600)]
        assert 500 <= await recovering <= 600
        assert topics.counters["dropped"] == 0


async def test_a_history_of_many_readings_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "_TRIES", 2)
    topics = wsfast.Topics()
    topics.configure("kept.*", history=wsfast.History(size=5000))
    async with world(topics) as w:
        client, ours = await w.client()
        for number in range(5000):
            await topics.publish("kept.room", str(number))
        recovering = asyncio.create_task(ours.recover("kept.room", None))
        assert await take(client, 5000) == [str(number) for number in range(5000)]
        assert await recovering == 5000


async def test_who_may_not_subscribe_recovers_nothing() -> None:
    """It is asked before the first message of the history is sent, as is whether there is room."""
    topics = wsfast.Topics(authorize=lambda ws, topic: topic != "kept.secret", max_topics=1, max_subscriptions=2)
    topics.configure("kept.*", history=wsfast.History())
    async with world(topics) as w:
        client, ours = await w.client()
        for topic in ("kept.secret", "kept.open"):
            await topics.publish(topic, topic)
        with pytest.raises(wsfast.NotAuthorized):
            await ours.recover("kept.secret", None)
        with pytest.raises(ValueError, match="info is for topics with presence"):
            await ours.recover("kept.open", None, info="Ada")
        ours.subscribe("room")
        with pytest.raises(wsfast.TooManySubscriptions, match="1 topics"):
            await ours.recover("kept.open", None)
        last, other = await w.client()
        assert await other.recover("kept.open", None) == 1  # there is room for just one more
        third, another = await w.client()
        with pytest.raises(wsfast.TooManySubscriptions, match="2 subscriptions"):
            await another.recover("kept.open", None)
        for ws in (ours, other, another):
            await ws.send("end")
        assert [await client.recv(), await third.recv()] == ["end"] * 2
        assert await take(last, 2) == ["kept.open", "end"]
        assert topics.counters["subscriptions"] == 2


async def test_what_authorize_subscribes_counts() -> None:
    topics = wsfast.Topics(authorize=lambda ws, topic: topic == "more" or bool(ws.subscribe("more")), max_topics=1)
    async with world(topics) as w:
        _, ours = await w.client()
        with pytest.raises(wsfast.TooManySubscriptions):
            ours.subscribe("room")
        assert ours.topics == {"more"}


async def test_without_topics_and_out_of_time() -> None:
    server = wsfast.Server()
    with pytest.raises(wsfast.InvalidState, match=r"Server\(topics=wsfast.Topics\(\)\)"):
        server.publish("a", "")
    topics = wsfast.Topics()
    with pytest.raises(wsfast.InvalidState, match="are not started"):
        topics.publish("a", "")
    async with topics:
        with pytest.raises(wsfast.InvalidState, match="before they are started"):
            topics.configure("a", presence=True)
        topics.publish("a", "to nobody")
    with pytest.raises(wsfast.InvalidState, match="are closed"):
        topics.publish("a", "")
    with pytest.raises(wsfast.InvalidState, match="are closed"):
        await topics.start()
    async with world() as w:
        ws, ours = await w.client()
        await ws.close()
        await ours.wait_closed()
        with pytest.raises(wsfast.ConnectionClosed):
            ours.subscribe("a")
        with pytest.raises(wsfast.ConnectionClosed):
            ours.publish("a", "to nobody")


async def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="bus must be a Bus or None"):
        wsfast.Topics("redis://")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_topics must be positive"):
        wsfast.Topics(max_topics=0)
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        wsfast.Topics(key=b"")

    async def later(*_: object) -> None:
        raise AssertionError("nobody awaits it")

    make: Any = wsfast.Topics
    for name in ("authorize", "encode", "on_gap", "on_presence"):
        with pytest.raises(TypeError, match=f"{name} must be callable, got int"):
            make(**{name: 5})
        with pytest.raises(TypeError, match=f"{name} must be a plain function, which is not awaited, got <function"):
            make(**{name: later})
    encoding: wsfast.Topics = make(encode=lambda *_: later())
    async with world(encoding) as w:
        (await w.client())[1].subscribe("a")
        with pytest.raises(TypeError, match="encode must return str or bytes, got coroutine"):
            w.server.publish("a", "1")
    topics = wsfast.Topics()
    with pytest.raises(ValueError, match="conflate"):
        topics.configure("a", history=wsfast.History(), conflate=True)
    with pytest.raises(TypeError, match="history must be a History"):
        topics.configure("a", history=100)  # type: ignore[arg-type]
    topics.configure("a*")
    with pytest.raises(ValueError, match="has a rule already"):
        topics.configure("a*")
    for pattern in ("", "a*b", "a b*", "*a"):
        with pytest.raises(ValueError, match="a pattern must be"):
            topics.configure(pattern)
    for size, ttl in ((0, 1), (1, 0), (10**6, 1)):
        with pytest.raises(ValueError, match="must be from"):
            wsfast.History(size, ttl)
    async with world() as w:
        with pytest.raises(TypeError, match="a message must be"):
            w.server.publish("a", 5)  # type: ignore[arg-type]
        with pytest.raises(UnicodeDecodeError):
            w.server.publish("a", b"\xff", text=True)
        with pytest.raises(ValueError, match="no presence"):
            w.topics.present("a")
        with pytest.raises(ValueError, match="no history"):
            await anext(w.topics.history("a"))
        _, ours = await w.client()
        with pytest.raises(ValueError, match="info is for topics with presence"):
            ours.subscribe("a", info="me")


def test_the_longest_prefix_counts() -> None:
    rules: Any = Rules()  # any object will do for a rule
    rules.add("a.*", "short")
    rules.add("a.b.*", "long")
    rules.add("a.b.c", "exact")
    assert [rules.of(name) for name in ("a.x", "a.b.x", "a.b.c")] == ["short", "long", "exact"]
    assert rules.of("b").history is None


# --- Starts that fail ---------------------------------------------------------------------------------------------


async def test_a_start_that_failed_is_none(tmp_path: Path) -> None:
    """It fails again as long as its cause is there, and nobody serves without the bus unawares."""
    tmp_path.chmod(0o755)  # noqa: ASYNC240
    topics = wsfast.Topics(LocalBus(tmp_path))
    server = wsfast.Server(topics=topics)
    for _ in range(2):
        with pytest.raises(PermissionError, match="chmod 700"):
            await server.start("127.0.0.1", 0)
        assert not server.sockets
        assert topics.health == "closed"
        with pytest.raises(wsfast.InvalidState, match="not started"):
            topics.publish("a", "b")
    (tmp_path / ("x" * 100)).mkdir(mode=0o700)
    for _ in range(2):
        with pytest.raises(OSError, match="too long"):
            await wsfast.Topics(LocalBus(tmp_path / ("x" * 100))).start()
    tmp_path.chmod(0o700)  # noqa: ASYNC240
    async with server, wsfast.Topics(LocalBus(tmp_path)) as other:
        await server.start("127.0.0.1", 0)
        assert topics.health == other.health == "up"


async def test_a_bus_is_not_shared_by_topics() -> None:
    bus = LocalBus()
    async with wsfast.Topics(bus) as topics:
        other = wsfast.Topics(bus)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the bus runs already"):
                await other.start()
        await other.close()
        assert not bus._closed
        assert (topics.health, other.health) == ("up", "closed")


@pytest.mark.parametrize("by_a_server", [True, False])
async def test_a_start_that_was_cancelled_leaves_nothing(by_a_server: bool) -> None:
    """The first start waits for the bus to be up, which it never is here."""

    class Bus(MemoryBus):
        async def start(self, receiver: Any, origin: int) -> None:
            self.running = True

        async def close(self) -> None:
            self.running = False

    bus = Bus()
    topics = wsfast.Topics(bus)
    server = wsfast.Server(topics=topics)
    starting = asyncio.ensure_future(server.start("127.0.0.1", 0) if by_a_server else topics.start())
    await until(lambda: getattr(bus, "running", False))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not bus.running
    assert topics.health == "closed"
    server.close()
    await server.wait_closed()


# --- Slow peers ---------------------------------------------------------------------------------------------------


async def slow_client(w: World, topic: str) -> tuple[socket.socket, wsfast.WebSocket]:
    """Return a raw connection that reads nothing, subscribed to a topic, and the server's end."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    before = len(w.opened)
    await loop.sock_connect(sock, w.server.sockets[0].getsockname())
    await loop.sock_sendall(
        sock,
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    await until(lambda: len(w.opened) > before)
    ours = w.opened[before]
    ours.subscribe(topic)
    return sock, ours


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
async def test_a_slow_peer_keeps_nobody_waiting(overflow: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with world(overflow=overflow, max_buffered=300_000, stop_timeout=1) as w:
        sock, slow = await slow_client(w, "a")
        with sock:
            ws, ours = await w.client()
            ours.subscribe("a")
            with caplog.at_level(logging.WARNING):
                for number in range(100):
                    w.server.publish("a", f"{number:04}" * 25_000)
                    message = await asyncio.wait_for(ws.recv(), 10)
                    assert message[:4] == f"{number:04}"
            assert slow.buffered_amount <= 300_000
            if overflow == "close":
                assert slow.close_cause is wsfast.CloseCause.OVERFLOW
            else:
                assert w.topics.counters["dropped"] > 50
                told = [record for record in caplog.records if "a publish skipped" in record.getMessage()]
                assert len(told) == (overflow == "error")


@pytest.mark.parametrize("how", ["send_nowait", "broadcast", "publish", "publish with presence"])
async def test_all_ways_of_sending_leave_off_at_the_same_byte(how: str) -> None:
    """A peer that is behind gets what `max_buffered` has room for, whoever sends it."""
    limit, size = 300_000, 5000
    topics = wsfast.Topics()
    topics.configure("p.*", presence=True)
    async with world(topics, overflow="drop", max_buffered=limit, stop_timeout=1) as w:
        topic = "p.1" if "presence" in how else "room"
        sock, ws = await slow_client(w, topic)
        with sock:
            for _ in range(5000):
                before = ws.buffered_amount
                match how:
                    case "send_nowait":
                        ws.send_nowait(bytes(size))
                    case "broadcast":
                        wsfast.broadcast([ws], bytes(size))
                    case _:
                        w.server.publish(topic, bytes(size))
                await asyncio.sleep(0)
                if before > limit // 2 and ws.buffered_amount <= before:
                    break
            # One more would have passed the limit, for which heads of frames do not count.
            assert limit - size < ws.buffered_amount <= limit + 4


async def test_a_slow_peer_gets_the_newest() -> None:
    topics = wsfast.Topics()
    topics.configure("price.*", conflate=True)
    async with world(topics, max_buffered=10_000_000) as w:
        sock, slow = await slow_client(w, "price.x")
        with sock:
            for number in range(2000):
                for key in ("a", "b"):
                    w.server.publish("price.x", f"{key}{number:05}" * 200, key=key)
                await asyncio.sleep(0)
            assert slow.buffered_amount < 1_000_000
            assert w.topics.counters["conflated"] > 1000
            # Once it reads, it gets the newest of each key.
            received = b""
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                while b"a01999" * 200 not in received or b"b01999" * 200 not in received:
                    received = received[-10_000:] + await loop.sock_recv(sock, 65536)


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
async def test_keys_without_end_are_held_within_the_limit(overflow: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What is held for a peer that is behind counts as unsent."""
    topics = wsfast.Topics()
    topics.configure("price.*", conflate=True)
    async with world(topics, overflow=overflow, max_buffered=300_000, stop_timeout=1) as w:
        sock, slow = await slow_client(w, "price.x")
        with sock, caplog.at_level(logging.WARNING):
            for number in range(3000):
                w.server.publish("price.x", bytes(1000), key=f"{number}")
                w.server.publish("price.x", b"%05d" % number * 200, key="one")
                await asyncio.sleep(0)
                if slow.close_cause is not None:
                    break
            told = [record for record in caplog.records if "a publish skipped" in record.getMessage()]
            extra = slow._channel.member.extra
            if overflow == "close":
                assert slow.close_cause is wsfast.CloseCause.OVERFLOW
                assert extra is None or extra.newest is None
                return
            assert len(told) == (overflow == "error")
            held = sum(len(message.payload) for message in extra.newest.values())
            assert extra.newest_size == held
            assert 200_000 < held + slow.buffered_amount <= 300_000 + 4
            assert w.topics.counters["dropped"] > 1000
            # There was room for the one that takes the place of another, and it is the newest.
            assert extra.newest["price.x", "one"].payload[:5] == b"02999"
            loop, received = asyncio.get_running_loop(), b""
            async with asyncio.timeout(10):
                while b"02999" * 200 not in received:
                    received = received[-10_000:] + await loop.sock_recv(sock, 65536)
                await until(lambda: extra.newest is None and not extra.newest_size)


@pytest.mark.parametrize("overflow", ["error", "drop", "close"])
async def test_what_waits_for_a_message_in_fragments_is_held_within_the_limit(
    overflow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "a"
        await goes_on.wait()
        yield "b"

    async with world(overflow=overflow, max_buffered=100_000, stop_timeout=1) as w:
        ws, ours = await w.client()
        ours.subscribe("room")
        sending = asyncio.create_task(ours.send(pieces()))
        await until(lambda: ours._channel is not None and ours._channel.is_sending)
        with caplog.at_level(logging.WARNING):
            for number in range(20):
                await w.server.publish("room", b"%02d" % number * 5000)
            await until(lambda: ours.close_cause is not None or w.topics.counters["dropped"] == 10)
        told = [record for record in caplog.records if "a publish skipped" in record.getMessage()]
        assert len(told) == (overflow == "error")
        goes_on.set()
        if overflow == "close":
            assert ours.close_cause is wsfast.CloseCause.OVERFLOW
            with pytest.raises(wsfast.ConnectionClosed):
                await sending
            return
        await sending
        assert await ws.recv() == "ab"
        assert [(await ws.recv())[:2] for _ in range(10)] == [b"%02d" % number for number in range(10)]


# --- History ------------------------------------------------------------------------------------------------------


def with_history(**options: Any) -> wsfast.Topics:
    topics = wsfast.Topics(**options)
    topics.configure("room.*", history=wsfast.History(size=10, ttl=60))
    return topics


async def test_history() -> None:
    async with world(with_history()) as w:
        ws, ours = await w.client()
        ours.subscribe("room.1")
        positions = [await w.server.publish("room.1", f"{number}") for number in range(15)]
        await ours.publish("room.1", b"its own")
        assert await take(ws, 15) == [f"{number}" for number in range(15)]
        kept = [item async for item in w.topics.history("room.1")]
        assert [item.message for item in kept] == [*(f"{number}" for number in range(6, 15)), b"its own"]
        first, last = positions[7], positions[-1]
        assert first is not None
        assert last is not None
        assert kept[1].position == first
        after = [item.message async for item in w.topics.history("room.1", since=str(first))]
        assert after == [*(f"{number}" for number in range(8, 15)), b"its own"]
        assert [item.message async for item in w.topics.history("room.1", since=last)] == [b"its own"]
        with pytest.raises(wsfast.NotRecovered, match="not kept any more"):
            _ = [item async for item in w.topics.history("room.1", since=positions[3])]
        with pytest.raises(wsfast.NotRecovered):
            _ = [item async for item in w.topics.history("room.1", since=Position("other", 3))]
        with pytest.raises(wsfast.NotRecovered):
            _ = [item async for item in w.topics.history("room.1", since=Position(last.epoch, 1000))]
        for wrong in ("", "a", "a:", ":1", "a:b", "a:-1", "a b:1", "a:" + "1" * 30, "ü:1"):
            with pytest.raises(ValueError, match="a position must be"):
                _ = [item async for item in w.topics.history("room.1", since=wrong)]
        assert [item async for item in w.topics.history("room.2")] == []


async def test_recovering_where_a_history_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may subscribe to the topic, and follow it; who comes gets what there is, at once."""
    monkeypatch.setattr("wsfast.bus.store._BUCKETS", 1)
    bus = MemoryBus()
    async with world(with_history(bus=bus)) as w:
        store = bus._store
        first_ws, first = await w.client()
        await first.subscribe("room.1")
        for number in range(3):  # before anything is published, and after
            await w.server.publish("room.2", "x")
            store._forget("room.2")
            ws, ours = await w.client()
            async with asyncio.timeout(1):
                assert await ours.recover("room.1", None) == 0
            await w.server.publish("room.1", f"{number}")
            assert await take(ws, 1) == await take(first_ws, 1) == [f"{number}"]
            store._forget("room.1")
        assert w.topics.counters["gaps"] == 0


async def test_positions_that_clients_send() -> None:
    """Nonsense is an error that says so, whatever it is made of; a place of elsewhere is not taken for one of here."""
    async with world(with_history()) as w:
        _, ours = await w.client()
        for number in range(3):
            here = await w.server.publish("room.1", f"{number}")
            there = await w.server.publish("room.2", f"{number}")
        assert here is not None
        assert there is not None
        since: Any
        wrong: list[Any] = [
            Position("a", -1),
            Position("a", 1 << 64),
            Position("", 1),
            Position("a:b", 1),
            Position("a", "b"),  # type: ignore[arg-type]
            Position(None, None),  # type: ignore[arg-type]
            Position(here.epoch, 1.0),  # type: ignore[arg-type]
            str(here).replace(":", ":\x00"),
            str(here).encode().decode("utf-16", "replace"),
        ]
        for since in wrong:
            with pytest.raises(ValueError, match="a position must be"):
                await ours.recover("room.1", since)
            with pytest.raises(ValueError, match="a position must be"):
                _ = [item async for item in w.topics.history("room.1", since)]
        for since in (list(here), tuple(here), here.offset, str(here).encode()):
            with pytest.raises(TypeError, match="since must be a Position, str or None"):
                await ours.recover("room.1", since)
        gone = [there, Position(here.epoch, 4), Position("0", 0), Position("0" * 16, 1), Position("ZZ", 10**17)]
        for since in (*gone, *map(str, gone)):
            with pytest.raises(wsfast.NotRecovered):
                await ours.recover("room.1", since)
            with pytest.raises(wsfast.NotRecovered):
                _ = [item async for item in w.topics.history("room.1", since)]
        assert ours.topics == set()
        for since in (json.loads(json.dumps(str(here))), pickle.loads(pickle.dumps(here))):
            assert [item async for item in w.topics.history("room.1", since)] == []


async def test_what_others_would_not_take_is_refused() -> None:
    async with world(with_history(max_size=100)) as w:
        ws, ours = await w.client()
        await ours.subscribe("room.1")
        with pytest.raises(
            wsfast.BusUnavailable, match="the message has 101 bytes; from the bus 100 are taken at most"
        ):
            await w.server.publish("room.1", "x" * 101)
        await w.server.publish("room.1", "y" * 100)
        assert await take(ws, 1) == ["y" * 100]
        assert w.topics.counters["refused"] == 0


async def test_what_is_published_by_encode_comes_behind() -> None:
    def encode(topic: str, message: str | bytes, position: Position | None) -> str:
        if message in ("1", "2"):
            topics.publish(topic, f"{message}, and this")
        return str(message)

    topics = with_history(encode=encode)
    async with world(topics) as w:
        ws, ours = await w.client()
        await ours.subscribe("room.1")
        for number in range(4):
            w.server.publish("room.1", f"{number}")
        assert await take(ws, 6) == ["0", "1", "1, and this", "2", "2, and this", "3"]


async def test_while_it_recovers_a_connection_does_not_subscribe_by_other_ways() -> None:
    """It would get what is published ahead of what it missed, and both twice."""
    topics = wsfast.Topics()
    topics.configure("room.*", history=wsfast.History())
    async with world(topics) as w:
        ws, ours = await w.client()
        await w.server.publish("room.1", "0")
        recovering = asyncio.ensure_future(ours.recover("room.1", None))
        await asyncio.sleep(0)
        with pytest.raises(wsfast.InvalidState, match="being sent what it missed"):
            ours.subscribe("room.1")
        with pytest.raises(wsfast.InvalidState, match="being sent what it missed"):
            await ours.recover("room.1", None)
        ours.subscribe("room.2")
        w.server.publish("room.1", "1")
        assert await recovering in (1, 2)
        await ours.subscribe("room.1")
        assert await take(ws, 2) == ["0", "1"]
        # Nor does one that has failed keep it from it.
        ours.unsubscribe("room.1")
        with pytest.raises(wsfast.NotRecovered):
            await ours.recover("room.1", Position("0", 1))
        await ours.subscribe("room.1")


async def test_recovering() -> None:
    """Who comes back gets what it missed, and what comes meanwhile once, in order."""

    def encode(topic: str, message: str | bytes, position: Position | None) -> str:
        return f"{position} {message!s}"

    topics = wsfast.Topics(encode=encode)
    topics.configure("room.*", history=wsfast.History(size=10_000))
    async with world(topics) as w:
        ws, ours = await w.client()
        await ours.subscribe("room.1")
        for number in range(10):
            w.server.publish("room.1", f"{number}")
        since = str((await take(ws, 3))[-1]).split()[0]
        await ws.close()
        busy = True

        async def publish() -> None:
            number = 10
            while busy and number < 5000:  # all of it fits into the history
                w.server.publish("room.1", f"{number}")
                number += 1
                await asyncio.sleep(0)

        publishing = asyncio.create_task(publish())
        await asyncio.sleep(0.05)
        ws, ours = await w.client()
        assert await ours.recover("room.1", since) > 7
        await asyncio.sleep(0.05)
        busy = False
        await publishing
        ours.send_nowait("end")
        got = []
        while (message := (await take(ws, 1))[0]) != "end":
            got.append(int(str(message).split()[1]))
        assert got == list(range(3, 3 + len(got)))
        assert len(got) > 20
        with pytest.raises(wsfast.InvalidState, match=r"has subscribed to 'room\.1' already"):
            await ours.recover("room.1", since)
        all_ws, all_of_it = await w.client()
        assert await all_of_it.recover("room.1", None) == 3 + len(got)
        assert str((await take(all_ws, 1))[0]).endswith(" 0")
        _, empty = await w.client()
        assert await empty.recover("room.2", None) == 0
        assert empty.topics == {"room.2"}
        _, other = await w.client()
        with pytest.raises(wsfast.NotRecovered):
            await other.recover("room.1", "gone:3")
        assert other.topics == set()
        assert w.topics.counters["subscriptions"] == 3
        all_ws.abort()  # with the rest unread, it would not see that the server stops


# --- Presence -----------------------------------------------------------------------------------------------------


async def test_presence() -> None:
    happened: list[tuple[str, str | None, bool]] = []
    topics = wsfast.Topics(on_presence=lambda topic, present, came: happened.append((topic, present.info, came)))
    topics.configure("room.*", presence=True)
    async with world(topics) as w:
        (_, a), (b_ws, b) = await w.client(), await w.client()
        a.subscribe("room.1", info="Ada")
        b.subscribe("room.1", info="Bob")
        b.subscribe("room.2")
        assert topics.present("room.1") == [wsfast.Present(str(a.id), "Ada"), wsfast.Present(str(b.id), "Bob")]
        a.unsubscribe("room.1")
        assert [one.info for one in topics.present("room.1")] == ["Bob"]
        await b_ws.close()
        await b.wait_closed()
        assert topics.present("room.1") == topics.present("room.2") == []
        with pytest.raises(ValueError, match="at most 1024 bytes"):
            a.subscribe("room.1", info="x" * 1025)
    assert happened == [
        ("room.1", "Ada", True),
        ("room.1", "Bob", True),
        ("room.2", None, True),
        ("room.1", "Ada", False),
        *[(f"room.{n}", {1: "Bob", 2: None}[n], False) for n in (1, 2)],
    ]


# --- Envelopes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, b"secret"])
def test_envelopes(key: bytes | None) -> None:
    sealer = Sealer(1000, key)
    data = sealer.seal("room", 7, 9, "text ☃".encode(), text=True, first=True, key="k")
    assert sealer.open("room", data) == (7, 9, True, True, "k", "text ☃".encode())
    data = sealer.seal("room", 7, 9, b"\xff", text=False, first=False, key=None)
    assert sealer.open("room", data) == (7, 9, False, False, None, b"\xff")
    assert sealer.open_control(sealer.seal_control(7, {"ask": "tails"})) == (7, {"ask": "tails"})


def test_hostile_envelopes() -> None:
    """Whatever comes from the bus, it is an envelope or a `BadEnvelope`."""
    plain, signed = Sealer(1000), Sealer(1000, b"secret")
    good = plain.seal("room", 7, 9, b"payload", text=True, first=False, key="k")
    bad = [good[:n] for n in range(20)]
    bad += [b"\x02" + good[1:], good[:1] + b"\xff" + good[2:], bytes(2000)]
    bad += [plain.seal("room", 7, 9, b"\xff", text=True, first=False, key=None)]
    bad += [plain.seal("room", 7, 0, b"", text=True, first=False, key=None)]
    bad += [signed.seal("room", 7, 9, b"", text=True, first=False, key=None), plain.seal_control(7, {})]
    for data in bad:
        with pytest.raises(BadEnvelope):
            plain.open("room", data)
    sealed = signed.seal("room", 7, 9, b"payload", text=True, first=False, key=None)
    for wrong in [
        good,
        sealed[:-1],
        *(sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :] for n in range(len(sealed))),
    ]:
        with pytest.raises(BadEnvelope):
            signed.open("room", wrong)
    with pytest.raises(BadEnvelope, match="signature"):
        signed.open("other", sealed)
    for content in (b"[]", b"{", b"5", b"[" * 100_000):
        data = plain._signed("!", 3, 7, 0, content)[:1400]
        with pytest.raises(BadEnvelope):
            plain.open_control(data)
    with pytest.raises(BadEnvelope):
        plain.open_control(good)
