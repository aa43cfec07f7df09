"""An ASGI application's connection goes on on wsfast's own transport, where it can."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from typing import Any

import pytest
from asgi_helpers import WAYS, Receive, Scope, Send, accept, running
from raw import RawClient, close, text
from shared import until

from wsfast.asgi import Host, bridge, of
from wsfast.asgi.bridge import MOVE_READS
from wsfast.session import Limits
from wsfast.transport.sockets import SocketTransport, has_readers, take_over

pytestmark = pytest.mark.anyio

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="the server's")


class Echo:
    """An application that sends messages back, and keeps the transports of its connections."""

    def __init__(self) -> None:
        self.transports: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        VARIABLE.set("the application's")
        await accept(receive, send)
        ws = of(scope)
        assert ws.remote_address == scope["client"]
        while (event := await receive())["type"] == "websocket.receive":
            self.transports.append(ws._channel.transport)  # `ws.transport` would be kept as it is
            await send({**event, "type": "websocket.send"})


async def echo(client: RawClient, times: int) -> None:
    """Send messages, one after the other, each of which is to come back."""
    for number in range(times):
        client.send(text(f"message {number}"))
        assert await client.receive_message() == f"message {number}"


def sockets() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("way", list(WAYS))
async def test_the_socket_is_taken_over(way: str) -> None:
    app = Echo()
    async with running(app, **WAYS[way]) as run:
        before = sockets()
        for _ in range(2):
            async with await run.connect() as client:
                await echo(client, MOVE_READS)
                ours = [isinstance(transport, SocketTransport) for transport in app.transports]
                assert ours == [False] * (MOVE_READS - 1) + [has_readers(asyncio.get_running_loop())]
                await echo(client, 2)
            app.transports.clear()
        await until(lambda: not run.state.connections and sockets() == before)


@pytest.mark.parametrize("way", list(WAYS))
async def test_connections_that_are_silent_are_taken_over_too(way: str) -> None:
    loop = asyncio.get_running_loop()
    app = Echo()
    async with running(app, **WAYS[way]) as run:
        clients = [await run.connect() for _ in range(20)]
        (host,) = {connection.bridge.host for connection in run.state.connections}
        await clients.pop().end()
        await until(lambda: len(run.state.connections) == len(clients))
        assert len(host._moving) <= len(clients)  # the one that has ended is forgotten
        await until(lambda: not host._moving and host._mover is None)
        for connection in run.state.connections:
            assert isinstance(connection.transport, SocketTransport) is has_readers(loop)
        for client in clients:
            await echo(client, 1)
            await client.end()


async def test_what_waits_is_not_overtaken() -> None:
    go = asyncio.Event()
    sent: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        transport = of(scope)._channel.transport
        while not transport.get_write_buffer_size():
            sent.append(bytes([len(sent)]) * 1_000_000)
            of(scope).send_nowait(sent[-1])
            for _ in range(3):
                await asyncio.sleep(0)  # uvloop writes at the end of a turn
        of(scope).send_nowait("behind it")
        for _ in range(MOVE_READS + 1):
            await receive()
        assert of(scope)._channel.transport is transport
        go.set()
        await receive()
        await send({"type": "websocket.send", "text": "moved"})
        assert isinstance(of(scope)._channel.transport, SocketTransport) is has_readers(asyncio.get_running_loop())

    async with running(app) as run, await run.connect() as client:
        for _ in range(MOVE_READS + 1):
            client.send(text("x"))
            await asyncio.sleep(0.01)  # each a read of its own, while the peer reads nothing
        await go.wait()
        for message in [*sent, "behind it"]:
            assert await client.receive_message() == message
        client.send(text("x"))
        assert await client.receive_message() == "moved"
        assert (await client.receive_close())[0] == 1000


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("more", [b"", bytes(100_000)], ids=["", "behind it"])
async def test_a_connection_that_is_over_early_is_closed_at_once(way: str, more: bytes) -> None:
    """It does not wait for the peer to end, unless that has sent more: to close then would destroy the Close frame."""
    async with running(Echo(), **WAYS[way]) as run:
        client = await run.connect()
        await echo(client, 1)
        client.send(close(), more)
        assert await client.receive_close() == (1000, "")
        await client.receive_eof()
        if not more:
            await until(lambda: not run.state.connections)
        client.abort()
        await until(lambda: not run.state.connections)


async def test_a_transport_that_was_asked_for_stays() -> None:
    transports: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        while (event := await receive())["type"] == "websocket.receive":
            transports.append(of(scope).transport)
            await send({**event, "type": "websocket.send"})

    async with running(app) as run, await run.connect() as client:
        await echo(client, MOVE_READS + 1)
        assert len(set(transports)) == 1
        assert not transports[0].is_closing()
        (connection,) = run.state.connections
        await until(lambda: not connection.bridge.host._moving)
        await echo(client, 1)
        assert len(set(transports)) == 1


async def test_reading_that_is_paused_stays_so() -> None:
    go = asyncio.Event()
    got: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await go.wait()
        while (event := await receive())["type"] == "websocket.receive":
            got.append(len(event["text"]))

    async with running(app) as run, await run.connect() as client:
        sent = [200_000] * 3
        for size in sent:
            client.send(text("x" * size))
        (connection,) = run.state.connections
        await until(lambda: connection.paused)
        connection.move()
        assert isinstance(connection.transport, SocketTransport) is has_readers(asyncio.get_running_loop())
        assert not connection.transport.is_reading()
        go.set()
        await until(lambda: got == sent)


async def test_many_are_taken_over_in_slices_and_each_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []
    host: Any = Host(None, Limits(), asyncio.get_running_loop(), logging.getLogger("test"))  # type: ignore[arg-type]

    class Young:
        def __init__(self, number: int) -> None:
            self.number = number
            self.moves = 0 if number == 3 else MOVE_READS  # another thread has asked for the transport of that one

        def move(self) -> None:
            host.is_moved(self)  # as that of a protocol does
            moved.append(self.number)
            if self.number == 5:
                raise OSError("its transport fails")

        def transport_failed(self, exc: Exception) -> None:
            moved.append(-self.number)

    monkeypatch.setattr(bridge, "MOVE_DELAY", 0)
    monkeypatch.setattr(bridge, "_MOVE_SLICE", -1)  # each turn of the loop moves one
    for number in range(8):
        host.move_later(Young(number))
    host.is_moved(next(iter(host._moving)))  # the first has ended
    await until(lambda: not host._moving and host._mover is None)
    assert moved == [1, 2, 4, 5, -5, 6, 7]


async def test_without_descriptors_the_loops_transport_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_them(fd: int) -> int:
        raise OSError(24, "Too many open files")

    app = Echo()
    async with running(app) as run:
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", out_of_them)
            client = await run.connect()
            await echo(client, MOVE_READS + 1)
        assert not any(isinstance(transport, SocketTransport) for transport in app.transports)
        await client.end()


async def test_what_is_received_is_not_handled_in_the_applications_context(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts: list[str] = []
    loop = asyncio.get_running_loop()
    add_reader = type(loop).add_reader
    app = Echo()

    def noted(self: Any, *args: Any) -> Any:
        contexts.append(VARIABLE.get())
        return add_reader(self, *args)

    monkeypatch.setattr(loop, "add_reader", noted.__get__(loop), raising=False)
    async with running(app) as run, await run.connect() as client, await run.connect() as silent:
        await echo(client, MOVE_READS)
        (host,) = {connection.bridge.host for connection in run.state.connections}
        await until(lambda: not host._moving)
        await echo(silent, 1)
    assert app.transports
    assert set(contexts) == ({"the server's"} if has_readers(loop) else set())


async def test_what_cannot_be_taken_over() -> None:
    loop = asyncio.get_running_loop()
    protocol = asyncio.Protocol()
    assert take_over(loop, asyncio.Transport(), protocol) is None

    accepted: list[asyncio.Transport] = []

    class Keep(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)  # type: ignore[arg-type]

    server = await loop.create_server(Keep, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        await until(lambda: accepted)
        transport = accepted[0]
        transport.write(bytes(8_000_000))
        assert transport.get_write_buffer_size()
        assert take_over(loop, transport, protocol) is None  # what waits would overtake, or be lost
        transport.abort()
        assert take_over(loop, transport, protocol) is None
        writer.transport.abort()
        await until(lambda: transport.get_extra_info("socket") is None or transport.is_closing())


@pytest.mark.parametrize("headers", [[], [(b"x-of", b"the application")]], ids=["plain", "headers"])
async def test_a_connection_tells_how_it_was_answered(headers: list[tuple[bytes, bytes]]) -> None:
    responses: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ws = of(scope)
        responses.append(ws.response)
        await accept(receive, send, subprotocol="v1", headers=headers)
        # The head is kept only where it cannot be made again: 200 bytes for each connection.
        assert (ws._response is None) == (not headers)
        responses.append(ws.response)
        await receive()
        responses.append(ws.response)

    async with running(app, headers=[("x-served", "by")], date_header=False) as run, await run.connect("v1") as client:
        await client.end()
        await run.stop()
        assert responses[0] is None
        assert responses[2] is responses[1]
        assert (responses[1].status_code, responses[1].headers["x-served"]) == (101, "by")
        assert {name.lower(): value for name, value in responses[1].headers.items()} == client.headers


async def test_another_thread_that_asks_for_the_transport_does_not_move_it() -> None:
    asked: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        ws = of(scope)
        asked.append(await asyncio.to_thread(lambda: ws.transport))
        while (event := await receive())["type"] == "websocket.receive":
            asked.append(ws._channel.transport)
            await send({**event, "type": "websocket.send"})

    async with running(app) as run, await run.connect() as client:
        await echo(client, MOVE_READS + 1)
        (host,) = {connection.bridge.host for connection in run.state.connections}
        host._move()
        await echo(client, 1)
    assert not isinstance(asked[0], SocketTransport)
    assert asked == asked[:1] * (MOVE_READS + 3)
