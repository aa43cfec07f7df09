"""How a server of ASGI applications stops: what was accepted is served, and nothing makes it wait for ever."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgi_helpers import WAYS, Receive, Scope, Send, echo, running
from raw import PATIENCE, RawClient, open_raw, request
from shared import until
from test_run import running as supervised

import wsfast.uvicorn
from wsfast.uvicorn.serving import run_server

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

PROGRAM = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("starting", flush=True)
        try:
            await asyncio.sleep(START)
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("ended", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"data: 1\\n\\n", "more_body": True})
            await asyncio.sleep(0.1)
"""


class Events:
    """An application whose HTTP responses have an end or not, and which keeps what it is told of its life.

    Args:
        endless: whether responses have no end.
        starts: whether it ever has started.
    """

    def __init__(self, *, endless: bool = False, starts: bool = True) -> None:
        self.endless = endless
        self.starts = starts
        self.events: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "websocket":
            await echo(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b"hello", "more_body": self.endless})
            if self.endless:
                await asyncio.Event().wait()

    async def live(self, receive: Receive, send: Send) -> None:
        self.events.append((await receive())["type"])
        if not self.starts:
            try:
                await asyncio.Event().wait()
            finally:
                self.events.append("cancelled")
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})


class Served:
    """A server that serves, in the test's loop."""

    def __init__(self, task: asyncio.Task[None], stop: asyncio.Event, port: int) -> None:
        self.task = task
        self.stop = stop
        self.port = port

    async def refuses(self) -> None:
        """Wait until no new connection is taken."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return
            writer.transport.abort()

    async def end(self) -> None:
        """Wait until it has stopped."""
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE)


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[Served]:
    sock = socket.create_server(("127.0.0.1", 0))
    stop, started = asyncio.Event(), asyncio.Event()
    running = run_server(app, [sock], stop=stop, started=started.set, log_config=None, **options)
    run = Served(asyncio.create_task(running), stop, sock.getsockname()[1])
    try:
        await asyncio.wait_for(started.wait(), PATIENCE)
        yield run
    finally:
        stop.set()
        await run.end()


@pytest.mark.parametrize("sent", [b"", GET[:9]], ids=["nothing", "a part"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_request_of_a_connection_that_was_accepted_is_served(kind: str, sent: bytes) -> None:
    app = Events()
    async with served(app, drain=PATIENCE) as run, await open_raw(port=run.port) as client:
        client.send(sent)
        async with await open_raw(port=run.port) as other:
            await other.handshake()  # connections are accepted in order
            run.stop.set()
            await run.refuses()
            rest = (GET if kind == "http" else request())[len(sent) :]
            await client.exchange(rest)
            assert client.status == (200 if kind == "http" else 101)
            assert kind == "websocket" or b"hello" in client.body
            if kind == "websocket":
                assert await client.receive_close() == (1012, "")
                client.abort()
            assert await other.receive_close() == (1012, "")
        await run.end()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_connection_that_sends_no_request_is_not_waited_for_beyond_the_time() -> None:
    async with served(Events(), drain=0.3) as run, await open_raw(port=run.port) as client:
        run.stop.set()
        await run.end()
        assert await client.reader.read() == b""


async def test_responses_without_an_end_are_cancelled_and_the_lifespan_ends() -> None:
    app = Events(endless=True)
    async with served(app, patience=0.5) as run, await open_raw(port=run.port) as client:
        client.send(GET)
        await client.reader.readuntil(b"hello")
        run.stop.set()
        await run.end()
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_an_application_that_is_still_starting_is_cancelled(end: str) -> None:
    app = Events(starts=False)
    sock = socket.create_server(("127.0.0.1", 0))
    stop = asyncio.Event()
    task = asyncio.create_task(wsfast.uvicorn.serve(app, [sock], stop=stop, log_config=None))
    await until(lambda: app.events)
    if end == "stop":
        stop.set()
        await asyncio.wait_for(task, PATIENCE)
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
    assert app.events == ["lifespan.startup", "cancelled"]
    assert sock.fileno() == -1


async def test_sockets_are_closed_if_the_application_does_not_start() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})

    sock = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(RuntimeError, match="did not start"):
        await wsfast.uvicorn.serve(app, [sock], log_config=None)
    assert sock.fileno() == -1


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_connection_that_is_set_up_after_the_stop_is_served_and_told(way: dict[str, Any], certs: Any) -> None:
    async with running(echo, ssl_certfile=certs.server, **way) as run:
        reader, writer = await asyncio.open_connection("127.0.0.1", run.port)  # accepted, and not yet in TLS
        open_one = await run.open(ssl=certs.client_context())
        await open_one.handshake()
        stopping = asyncio.create_task(run.stop())
        assert await open_one.receive_close() == (1012, "")
        await writer.start_tls(certs.client_context(), server_hostname="localhost")
        late = RawClient(reader, writer)
        await late.handshake()
        assert late.status == 101
        open_one.abort()
        assert await late.receive_close() == (1012, "")
        late.abort()
        await stopping


@pytest.mark.skipif(os.name == "nt", reason="the supervisor is POSIX's")
@pytest.mark.parametrize("what", ["starts", "responds without an end"])
def test_a_worker_ends_in_order_whatever_its_application_does(tmp_path: Path, what: str) -> None:
    program = tmp_path / "app.py"
    program.write_text(PROGRAM.replace("START", "1000" if what == "starts" else "0"))
    with supervised(program, "--stop-timeout", "4", target="app:app", stdout=subprocess.PIPE) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "starting\n"
        if what != "starts":
            run.wait_log("1 worker is ready")
            with socket.create_connection(("127.0.0.1", run.port), PATIENCE) as sock:
                sock.sendall(GET)
                assert sock.recv(4096)
                run.process.send_signal(signal.SIGTERM)
                assert run.process.wait(20) == 0
        else:
            assert run.end() == 0
        lines = run.process.stdout.read().splitlines()
        run.process.stdout.close()
        assert lines[-1] == ("cancelled" if what == "starts" else "ended")
        assert "exit status 0" in run.log
        assert re.search(r"worker 1\[\d+\] INFO uvicorn\.error: Waiting for application startup", run.log)


@pytest.mark.skipif(os.name == "nt", reason="the supervisor is POSIX's")
def test_the_log_level_of_run_is_uvicorns_too(tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(PROGRAM.replace("START", "0"))
    with supervised(program, "--log-level", "error", target="app:app", stdout=subprocess.PIPE) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "starting\n"
        assert run.end() == 0
        assert run.process.stdout.read() in ("ended\n", "cancelled\n")
        run.process.stdout.close()
        assert run.log == ""
