"""An ASGI application's connection goes on on wsfast's own transport, where it can."""

from __future__ import annotations

import asyncio
import contextvars
import os
from typing import Any

import pytest
from asgi_helpers import WAYS, Receive, Scope, Send, accept, running
from raw import close, text, until

from wsfast.asgi import of
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
        self.transports.append(of(scope).transport)
        assert of(scope).remote_address == scope["client"]
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})


def sockets() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("way", list(WAYS))
async def test_the_socket_is_taken_over(way: str) -> None:
    app = Echo()
    async with running(app, **WAYS[way]) as run:
        before = sockets()
        for message in "one", "two":
            async with await run.connect() as client:
                client.send(text(message))
                assert await client.receive_message() == message
                assert isinstance(app.transports[-1], SocketTransport) is has_readers(asyncio.get_running_loop())
        await until(lambda: not run.state.connections and sockets() == before)


async def test_without_descriptors_the_loops_transport_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_them(fd: int) -> int:
        raise OSError(24, "Too many open files")

    app = Echo()
    async with running(app) as run:
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", out_of_them)
            client = await run.connect()
            client.send(text("x"))
            assert await client.receive_message() == "x"
        assert not isinstance(app.transports[0], SocketTransport)
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
    async with running(app) as run, await run.connect() as client:
        client.send(text("x"))
        assert await client.receive_message() == "x"
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
        client.send(close())
        await client.reader.read()
        await run.stop()
        assert responses[0] is None
        assert responses[2] is responses[1]
        assert (responses[1].status_code, responses[1].headers["x-served"]) == (101, "by")
        assert {name.lower(): value for name, value in responses[1].headers.items()} == client.headers
