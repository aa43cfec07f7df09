"""A uvicorn server with wsfast in a test's own event loop, and applications for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from raw import PATIENCE, RawClient, open_raw

import wsfast.uvicorn

Event = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[Any]]

WAYS: dict[str, dict[str, Any]] = {
    "ws": {"ws": wsfast.uvicorn.Protocol, "http": "httptools"},
    "http": {"http": wsfast.uvicorn.HTTP},
}
"""How uvicorn is told to use wsfast: behind its own HTTP protocol, or from the first byte."""


class Quiet(uvicorn.Server):
    """A server that leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


class Running:
    """A server that runs.

    Attributes:
        server: uvicorn's.
        port: where it listens.
    """

    def __init__(self, server: Quiet, task: asyncio.Task[None]) -> None:
        self.server = server
        self.task = task
        self.clients: list[RawClient] = []
        address = server.servers[0].sockets[0].getsockname()
        self.port: int = address[1] if isinstance(address, tuple) else 0

    @property
    def state(self) -> Any:
        """uvicorn's shared state: connections and tasks."""
        return self.server.server_state

    async def stop(self) -> float:
        """Stop the server and return how many seconds that took."""
        begun = time.monotonic()
        self.server.should_exit = True
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE)
        return time.monotonic() - begun

    async def open(self, **options: Any) -> RawClient:
        """Connect; the connection is dropped when the server has stopped."""
        client = await open_raw(port=self.port, **options)
        self.clients.append(client)
        return client

    async def connect(self, *subprotocols: str, **options: Any) -> RawClient:
        """Connect and finish the opening handshake."""
        client = await self.open()
        await client.handshake(*subprotocols, **options)
        assert client.status == 101, (client.status, client.body)
        return client


@contextlib.asynccontextmanager
async def running(app: Any, **options: Any) -> AsyncIterator[Running]:
    """Run an application under uvicorn until the block ends; options are those of `uvicorn.Config`."""
    asked = {"host": "127.0.0.1", "port": 0, "lifespan": "off", "log_config": None, **WAYS["ws"], **options}
    server = Quiet(uvicorn.Config(app, **asked))
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            await task
            raise AssertionError("the server did not start")
        await asyncio.sleep(0.001)
    run = Running(server, task)
    try:
        yield run
    finally:
        try:
            if not task.done():
                await run.stop()
        finally:
            for client in run.clients:
                client.abort()


async def accept(receive: Receive, send: Send, **options: Any) -> None:
    """Take the first event and accept the connection."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **options})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back each message."""
    await accept(receive, send)
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


class Recorder:
    """An application that accepts, and keeps the events that it receives.

    Attributes:
        events: what was received after "websocket.connect".
        ended: set when the application has returned.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = asyncio.Event()
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        try:
            await accept(receive, send)
            while True:
                event = await receive()
                self.events.append(event)
                if event["type"] == "websocket.disconnect":
                    # It stays so.
                    assert await receive() == event
                    return
        finally:
            self.ended.set()

    async def end(self) -> Event:
        """Wait for the end, and return the last event."""
        await asyncio.wait_for(self.ended.wait(), PATIENCE)
        return self.events[-1]
