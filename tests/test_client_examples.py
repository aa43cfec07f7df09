"""Each example of a client runs, against a server of wsfast, and shows what it says."""
# ruff: noqa: SIM117 (a block in a block tells what ends first)

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from client_helpers import url_of
from shared import echo

import wsfast

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextlib.asynccontextmanager
async def running(name: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example until the block ends."""
    path = os.pathsep.join([str(Path(wsfast.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        str(EXAMPLES / f"{name}.py"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def output(name: str, *arguments: str) -> str:
    """Run an example to its end and return what it printed."""
    async with running(name, *arguments) as process, asyncio.timeout(30):
        out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


async def test_hello() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        assert await output("client_hello", url_of(server)) == "Hello!\n"


async def test_listener() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        assert (await output("client_listener", url_of(server))).startswith("1000 round trips, half of them within ")


async def test_reconnect() -> None:
    connections = 0

    async def greet(ws: wsfast.WebSocket) -> None:
        nonlocal connections
        connections += 1
        await ws.send(f"greeting {connections}")
        if connections == 1:
            ws.close_nowait(1012, "restart")
        await ws.wait_closed()

    async with wsfast.serve(greet, "127.0.0.1", 0) as server:
        async with running("client_reconnect", url_of(server)) as process, asyncio.timeout(30):
            assert process.stdout is not None
            assert process.stderr is not None
            assert await process.stdout.readline() == b"greeting 1\n"
            assert b"lost: closed by peer: received 1012 (SERVICE_RESTART) 'restart'" in await process.stderr.readline()
            assert b"connecting again in" in await process.stderr.readline()
            assert await process.stdout.readline() == b"greeting 2\n"


async def test_tunnel() -> None:
    server = wsfast.Server()

    @server.stream_handler(None, half_close=True)
    async def shout(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data.upper())
            await writer.flush()
        await writer.write(b"bye")  # after the client has ended its direction

    await server.start("127.0.0.1", 0)
    async with server, running("client_tunnel", "0", url_of(server)) as process, asyncio.timeout(30):
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on port "), line
        reader, writer = await asyncio.open_connection("127.0.0.1", int(line.split()[-1]))
        writer.write(b"hello " * 10_000)
        assert await reader.readexactly(60_000) == b"HELLO " * 10_000
        writer.write_eof()
        assert await reader.read() == b"bye"
        writer.close()
        await writer.wait_closed()


def test_examples_are_short() -> None:
    for path in EXAMPLES.glob("client_*.py"):
        # What the others leave to a shell, it does itself.
        most = 60 if path.stem == "client_sans_io" else 40
        assert len(path.read_text().splitlines()) <= most, path.name


async def test_sans_io() -> None:
    """Keepalive and a bounded close over a plain socket, by `Session` alone."""

    async def echo(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with running("client_sans_io", "127.0.0.1", str(port), "hello", "é", "x" * 100_000) as process:
            assert process.stdout is not None
            told = await asyncio.wait_for(process.stdout.read(), 20)
    assert told.decode().splitlines() == ["hello", "é", "x" * 100_000, "1000 closed by us"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the client has no loop, and waits for 5 s
async def test_sans_io_with_a_server_that_is_gone() -> None:
    """It ends by itself, `close_timeout` after its Close frame."""
    gone = asyncio.Event()

    async def echo(ws: wsfast.WebSocket) -> None:
        await ws.send(await ws.recv())
        transport = ws._open_channel().transport
        assert transport is not None
        transport.pause_reading()
        await gone.wait()

    async with wsfast.serve(echo, "127.0.0.1", 0, stop_timeout=0.5) as server:
        port = server.sockets[0].getsockname()[1]
        async with running("client_sans_io", "127.0.0.1", str(port), "hello") as process:
            assert process.stdout is not None
            told = await asyncio.wait_for(process.stdout.read(), 20)
            gone.set()
    assert told.decode().splitlines() == ["hello", "1006 close timeout"]
