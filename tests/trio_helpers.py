"""What tests of trio share: a decorator, a pair of connections over memory, servers."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
import trio.testing

import wsfast.trio
from wsfast import Side
from wsfast.handshake import Request, Response
from wsfast.session import Limits
from wsfast.trio.stream import Transport

PATIENCE = 20.0  # seconds that a test may take at most, by the clock that it runs on


def in_trio(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test with trio."""

    @functools.wraps(function)
    def run(**fixtures: Any) -> None:
        async def main() -> None:
            with trio.fail_after(PATIENCE):
                await function(**fixtures)

        trio.run(main)

    return run


def on_mock_clock(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test with trio, on a clock that jumps to the next deadline when all wait."""

    @functools.wraps(function)
    def run(**fixtures: Any) -> None:
        trio.run(partial(function, **fixtures), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


async def echo(ws: wsfast.trio.WebSocket) -> None:
    """Send each message back."""
    async for message in ws:
        await ws.send(message)


def connection(stream: trio.abc.Stream, side: Side, **options: Any) -> wsfast.trio.WebSocket:
    """Make an open connection on a stream; its `_work` is not started."""
    request = Request(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    logger = logging.getLogger("wsfast.test")
    ws = wsfast.trio.WebSocket(Transport(stream), Limits(**options), request=request, logger=logger)
    ws._open(side, Response(101), None, None, b"")
    return ws


@asynccontextmanager
async def half(**options: Any) -> AsyncIterator[tuple[wsfast.trio.WebSocket, trio.StapledStream[Any, Any]]]:
    """Run a client's connection over memory; give it and the peer's end of the stream, which nobody reads."""
    near, far = trio.testing.memory_stream_pair()
    ws = connection(near, Side.CLIENT, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ws._work)
        try:
            yield ws, far
        finally:
            ws.abort()


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[wsfast.trio.WebSocket, wsfast.trio.WebSocket]]:
    """Run both ends of a connection over memory: the client's and the server's."""
    near, far = trio.testing.memory_stream_pair()
    client, server = connection(near, Side.CLIENT, **options), connection(far, Side.SERVER, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client._work)
        nursery.start_soon(server._work)
        try:
            yield client, server
        finally:
            client.abort()
            server.abort()


@asynccontextmanager
async def serving(handler: Any = echo, **options: Any) -> AsyncIterator[tuple[wsfast.trio.Server, str]]:
    """Run a server; give it and its URI."""
    where = () if "path" in options or "sock" in options else ("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(wsfast.trio.serve, handler, *where, **options))
        scheme = "wss" if options.get("ssl") else "ws"
        name = server.sockets[0].getsockname()
        yield server, "ws://localhost/" if "path" in options else f"{scheme}://localhost:{name[1]}/"
        await server.shutdown()
