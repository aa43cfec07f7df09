"""A loopback echo, server and client in one process: 100 round trips for each timed call.

It watches the way of a message from end to end; `python -m benchmarks.compare` compares servers, each in its own
process, with their peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

import wsfast

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
    finally:
        runner.run(stop(ws))
