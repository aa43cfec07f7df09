"""A loopback echo, server and client in one process: 100 round trips for each timed call.

It watches the way of a message from end to end; `python -m benchmarks.compare` compares servers, each in its own
process, with their peers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import aiohttp.web
import pytest
import uvloop
import websockets.asyncio.server
from pytest_benchmark.fixture import BenchmarkFixture

import wsfast

from .conftest import note

ROUND_TRIPS = 100


class EchoListener(wsfast.Listener):
    """Sends each message back."""

    def on_message(self, message: str | bytes) -> None:
        self.ws.send_nowait(message)


async def echo(ws: wsfast.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def stream_echo(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
    while data := await reader.read():
        await writer.write(data)
        await writer.flush()


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Run coroutines on one event loop for the whole benchmark."""
    factory: Any = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as made:
        yield made


@pytest.mark.parametrize("size", [64, 4096, 65536])
@pytest.mark.parametrize("form", ["listener", "message", "stream"])
def test_echo(benchmark: BenchmarkFixture, runner: asyncio.Runner, form: str, size: int) -> None:
    server = wsfast.Server()
    server.register_listener("listener", EchoListener)
    server.register_handler("message", echo)
    server.register_stream_handler("stream", stream_echo)
    message = b"x" * size

    async def start() -> wsfast.WebSocket:
        await server.start("127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return await wsfast.connect(f"ws://127.0.0.1:{port}", subprotocols=[form])

    async def round_trips(ws: wsfast.WebSocket) -> int:
        received = 0
        for _ in range(ROUND_TRIPS):
            await ws.send(message)
            wanted = received + size
            while received < wanted:  # a stream may bring it in pieces
                received += len(await ws.recv())
        return received

    async def stop(ws: wsfast.WebSocket) -> None:
        await ws.close()
        server.close()
        await server.wait_closed()

    ws = runner.run(start())
    try:
        benchmark.extra_info["operations"] = ROUND_TRIPS
        received = benchmark(lambda: runner.run(round_trips(ws)))
        assert received == ROUND_TRIPS * size
        told(benchmark, runner, form, size)
    finally:
        runner.run(stop(ws))


def told(benchmark: BenchmarkFixture, runner: asyncio.Runner, name: str, size: int) -> None:
    """Put the figure into the table at the end."""
    if benchmark.stats is not None:  # not with --benchmark-disable
        loop = type(runner.get_loop()).__module__.partition(".")[0]
        note(f"echo {size} B {loop}", name, size, benchmark.stats.stats.min / ROUND_TRIPS)


async def websockets_server(stack: contextlib.AsyncExitStack) -> int:
    async def handler(ws: websockets.asyncio.server.ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    serving = websockets.asyncio.server.serve(handler, "127.0.0.1", 0, compression=None, max_size=None)
    server = await stack.enter_async_context(serving)
    return int(server.sockets[0].getsockname()[1])


async def aiohttp_server(stack: contextlib.AsyncExitStack) -> int:
    async def handler(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        ws = aiohttp.web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    app = aiohttp.web.Application()
    app.router.add_get("/", handler)
    running = aiohttp.web.AppRunner(app)
    await running.setup()
    stack.push_async_callback(running.cleanup)
    site = aiohttp.web.TCPSite(running, "127.0.0.1", 0)
    await site.start()
    return int(running.addresses[0][1])


@pytest.mark.parametrize("size", [64, 4096, 65536])
@pytest.mark.parametrize("peer", ["websockets", "aiohttp"])
def test_echo_of_a_peer(benchmark: BenchmarkFixture, runner: asyncio.Runner, peer: str, size: int) -> None:
    """The same client, against a peer's server: what differs is the server."""
    message = b"x" * size
    stack = contextlib.AsyncExitStack()

    async def start() -> wsfast.WebSocket:
        port = await (websockets_server if peer == "websockets" else aiohttp_server)(stack)
        return await wsfast.connect(f"ws://127.0.0.1:{port}/")

    async def round_trips(ws: wsfast.WebSocket) -> int:
        received = 0
        for _ in range(ROUND_TRIPS):
            await ws.send(message)
            received += len(await ws.recv())
        return received

    async def stop(ws: wsfast.WebSocket) -> None:
        await ws.close()
        await stack.aclose()

    ws = runner.run(start())
    try:
        assert benchmark(lambda: runner.run(round_trips(ws))) == ROUND_TRIPS * size
        told(benchmark, runner, peer, size)
    finally:
        runner.run(stop(ws))
