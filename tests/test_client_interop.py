"""`connect` against the servers of other libraries."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp.web
import pytest
import websockets.asyncio.server
from client_helpers import nothing_left
from peers import node_peer, node_process
from websockets.typing import Subprotocol

import wsfast

pytestmark = pytest.mark.anyio

Peer = Callable[[], Any]
"""An async context manager of the port of a server that echoes, serves "chat", and closes with 4001 if told to."""


@contextlib.asynccontextmanager
async def websockets_server() -> AsyncIterator[int]:
    async def handler(ws: websockets.asyncio.server.ServerConnection) -> None:
        async for message in ws:
            if message == "close":
                await ws.close(4001, "told to")
            elif message == "fragments":
                await ws.send(["a", "b", "c"])
            elif message == "ping":
                waiter = await ws.ping(b"are you there?")
                await waiter
                await ws.send("pong")
            else:
                await ws.send(message)

    async with websockets.asyncio.server.serve(
        handler,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("chat")],
        max_size=None,
    ) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@contextlib.asynccontextmanager
async def aiohttp_server() -> AsyncIterator[int]:
    async def handler(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        ws = aiohttp.web.WebSocketResponse(protocols=["chat"], max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.data == "close":
                await ws.close(code=4001, message=b"told to")
            elif message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = aiohttp.web.Application()
    app.router.add_get("/", handler)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


NODE_SERVER = """
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({
  port: 0, host: "127.0.0.1", maxPayload: 0,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offers) => (offers.has("chat") ? "chat" : false),
});
server.on("connection", (ws) => {
  ws.on("message", (data, binary) => {
    const text = binary ? null : data.toString();
    if (text === "close") ws.close(4001, "told to");
    else if (text === "fragments") {
      ws.send("a", { fin: false }); ws.send("b", { fin: false }); ws.send("c", { fin: true });
    } else if (text === "ping") { ws.once("pong", () => ws.send("pong")); ws.ping("are you there?"); }
    else ws.send(data, { binary });
  });
});
server.on("listening", () => console.log(server.address().port));
"""


@contextlib.asynccontextmanager
async def node_server() -> AsyncIterator[int]:
    async with node_process(NODE_SERVER) as line:
        yield int(line)


SERVERS = [
    pytest.param(websockets_server, id="websockets"),
    pytest.param(aiohttp_server, id="aiohttp"),
    pytest.param(node_server, id="node", marks=[pytest.mark.node, node_peer]),
]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "compression",
    [
        None,
        "deflate",
        wsfast.Deflate(
            server_no_context_takeover=True, client_no_context_takeover=True, server_max_window_bits=10, threshold=0
        ),
    ],
    ids=["plain", "deflate", "deflate without context"],
)
async def test_messages(server: Peer, compression: Any) -> None:
    async with server() as port, nothing_left(port):
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", compression=compression, subprotocols=["x", "chat"]) as ws:
            assert ws.subprotocol == "chat"
            assert ws.response is not None
            assert ("Sec-WebSocket-Extensions" in ws.response.headers) is (compression is not None)
            for size in (0, 1, 125, 126, 65535, 65536, 300_000):
                text = ("ab☃" * size)[:size]
                await ws.send(text)
                assert await ws.recv() == text
                data = os.urandom(size)
                await ws.send(data)
                assert await ws.recv() == data
            await ws.send(["in ", "three ", "pieces"])
            assert await ws.recv() == "in three pieces"
            assert await (await ws.ping("x" * 125)) > 0
        assert ws.close_code == 1000


@pytest.mark.parametrize("server", SERVERS)
async def test_close_by_the_server(server: Peer) -> None:
    async with server() as port, nothing_left(port):
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", subprotocols=["chat"]) as ws:
            await ws.send("close")
            with pytest.raises(wsfast.ConnectionClosedError) as caught:
                await ws.recv()
            assert caught.value.rcvd == wsfast.Close(4001, "told to")
            assert caught.value.rcvd_then_sent is True


@pytest.mark.parametrize("server", [SERVERS[0], SERVERS[2]])
async def test_fragments_and_pings_of_the_server(server: Peer) -> None:
    async with server() as port, nothing_left(port):
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", subprotocols=["chat"], compression="deflate") as ws:
            await ws.send("fragments")
            assert await ws.recv() == "abc"
            await ws.send("ping")
            assert await ws.recv() == "pong"
            await ws.send("fragments")
            assert "".join([piece async for piece in ws.recv_streaming()]) == "abc"  # type: ignore[misc]


@pytest.mark.parametrize("server", SERVERS)
async def test_many_messages_in_flight(server: Peer) -> None:
    async with server() as port, nothing_left(port):
        async with wsfast.connect(f"ws://127.0.0.1:{port}/", subprotocols=["chat"]) as ws:

            async def send() -> None:
                for number in range(3000):
                    await ws.send(f"message {number}")

            sending = asyncio.create_task(send())
            for number in range(3000):
                assert await ws.recv() == f"message {number}"
            await sending


@pytest.mark.parametrize("server", SERVERS)
async def test_stream_and_listener(server: Peer) -> None:
    class Count(wsfast.Listener):
        def __init__(self, ws: wsfast.WebSocket) -> None:
            super().__init__(ws)
            self.seen: list[str | bytes] = []
            self.done = asyncio.Event()

        def on_message(self, message: str | bytes) -> None:
            self.seen.append(message)
            if len(self.seen) == 100:
                self.done.set()

    async with server() as port, nothing_left(port):
        async with wsfast.connect_stream(f"ws://127.0.0.1:{port}/", subprotocols=["chat"]) as (reader, writer):
            await writer.write(b"x" * 200_000)
            await writer.flush()
            assert await reader.readexactly(200_000) == b"x" * 200_000
        async with wsfast.connect_listener(Count, f"ws://127.0.0.1:{port}/", subprotocols=["chat"]) as count:
            for number in range(100):
                count.ws.send_nowait(str(number))
            await count.done.wait()
            assert count.seen == [str(number) for number in range(100)]
