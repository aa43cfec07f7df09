"""The examples, and the README's server, as programs."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from shared import echo

import wsfast

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TOKEN = "a-secret"


@contextlib.asynccontextmanager
async def program(name: str | Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an example until the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / name),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        _, errors = await process.communicate()
        assert "Traceback" not in errors.decode()


@contextlib.asynccontextmanager
async def listening(name: str, *arguments: str) -> AsyncIterator[int]:
    """Run an example that listens; the value is its port."""
    async with program(name, "0", *arguments) as process:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"listening on port (\d+)\n", line)
        assert found, line
        yield int(found[1])


@contextlib.asynccontextmanager
async def echo_uri(**options: Any) -> AsyncIterator[str]:
    async with wsfast.serve(echo, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def output(name: str, *arguments: str) -> str:
    async with program(name, *arguments) as process:
        printed, _ = await process.communicate()
        assert process.returncode == 0
        return printed.decode()


# --- One test for each example ------------------------------------------------------------------------------


async def server_echo() -> None:
    async with listening("server_echo.py") as port, wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
        for message in ("text", b"binary"):
            await ws.send(message)
            assert await ws.recv() == message


async def server_sync() -> None:
    async with listening("server_sync.py") as port, wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
        for message in ("text", b"binary"):
            await ws.send(message)
            assert await ws.recv() == message


async def server_trio() -> None:
    async with listening("server_trio.py") as port, wsfast.connect(f"ws://127.0.0.1:{port}/") as ws:
        for message in ("text", b"binary"):
            await ws.send(message)
            assert await ws.recv() == message


async def server_forms() -> None:
    async with listening("server_forms.py") as port:
        uri = f"ws://127.0.0.1:{port}/"
        for name in ("messages", "ticks"):
            async with wsfast.connect(uri, subprotocols=[name]) as ws:
                await ws.send("a")
                assert await ws.recv() == "a"
        async with wsfast.connect(uri, subprotocols=["lines"]) as ws:
            await ws.send("one\ntw")
            assert await ws.recv() == "ONE\n"
            await ws.send("o\n")
            assert await ws.recv() == "TWO\n"


async def server_chat() -> None:
    async with listening("server_chat.py") as port:
        uri = f"ws://127.0.0.1:{port}/"
        async with wsfast.connect(uri) as one, wsfast.connect(uri) as other:
            # Each speaks when it is connected for certain.
            for speaker, message in ((other, "hello"), (one, "hello yourself")):
                await speaker.send(message)
                assert [await one.recv(), await other.recv()] == [message, message]


async def server_token() -> None:
    async with listening("server_token.py") as port:
        uri = f"ws://127.0.0.1:{port}/"
        async with wsfast.connect(uri, bearer_token=TOKEN) as ws:
            assert await ws.recv() == "welcome"
        for token in (None, "wrong"):
            with pytest.raises(wsfast.InvalidStatus) as refused:
                await wsfast.connect(uri, bearer_token=token)
            assert refused.value.response.status_code == 401
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nOK\n")
        writer.close()
        await writer.wait_closed()


async def client_hello() -> None:
    async with echo_uri() as uri:
        assert await output("client_hello.py", uri) == "Hello!\n"


async def client_listener() -> None:
    async with echo_uri() as uri:
        printed = await output("client_listener.py", uri)
        assert re.fullmatch(r"1000 round trips, half of them within \d+ us\n", printed)


async def client_reconnect() -> None:
    count = 0

    async def greet(ws: wsfast.WebSocket) -> None:
        nonlocal count
        count += 1
        await ws.send(f"greeting {count}")
        await asyncio.sleep(0)
        if count == 1:
            ws.close_nowait(1012)
        await ws.wait_closed()

    async with wsfast.serve(greet, "127.0.0.1", 0) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with program("client_reconnect.py", uri) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"greeting 1\n"
            assert await process.stdout.readline() == b"greeting 2\n"


async def client_tunnel() -> None:
    server = wsfast.Server()

    @server.stream_handler(None)
    async def tunnel(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
        while data := await reader.read():
            await writer.write(data)
            await writer.flush()

    async with server:
        await server.start("127.0.0.1", 0)
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with listening("client_tunnel.py", uri) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = os.urandom(300_000)
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()


async def client_sans_io() -> None:
    async with wsfast.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        told = await output("client_sans_io.py", "127.0.0.1", str(port), "hello", "é")
    assert told == "hello\né\n1000 closed by us\n"


async def unit_test() -> None:
    assert await output("unit_test.py") == "passed\n"


TESTS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    test.__name__: test
    for test in (
        server_echo,
        server_sync,
        server_trio,
        server_forms,
        server_chat,
        server_token,
        client_hello,
        client_listener,
        client_reconnect,
        client_tunnel,
        client_sans_io,
        unit_test,
    )
}


@pytest.mark.parametrize("name", [path.stem for path in EXAMPLES])
def test_example(name: str) -> None:
    assert name in TESTS, "every example has a test here"
    asyncio.run(TESTS[name]())


def test_no_test_is_left_of_an_example_that_is_gone() -> None:
    assert set(TESTS) == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_say_what_they_show(path: Path) -> None:
    text = path.read_text()
    # What the others leave to a shell, `client_sans_io` does itself.
    assert text.count("\n") < (60 if path.stem == "client_sans_io" else 40)
    assert ast.get_docstring(ast.parse(text))


# --- The README ---------------------------------------------------------------------------------------------


def readme_server(tmp_path: Path, port: int) -> Path:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert found
    assert readme[: found.end()].count("\n") <= 40, "it is on the first screen"
    source = found[1]
    assert len(source.strip().splitlines()) <= 20
    assert source.count("8765") == 2
    path = tmp_path / "server.py"
    path.write_text(source.replace("8765", str(port)))
    return path


def test_the_server_of_the_readme(tmp_path: Path, unused_port: int) -> None:
    """As it stands it serves clients that offer no subprotocol, among them the two that the README names next."""
    path = readme_server(tmp_path, unused_port)
    uri = f"ws://127.0.0.1:{unused_port}/"

    async def run() -> None:
        async with program(path) as process:
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            assert line == f"listening on {uri}, Ctrl-C stops it\n"
            assert await output("client_hello.py", uri) == "Hello!\n"
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "wsfast", "--linger", "0.3", uri),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            told, _ = await client.communicate(b"hi\n")
            assert told == b"hi\n"
            # Ctrl-C closes the connections that are open, and ends it without a traceback.
            async with wsfast.connect(uri) as ws:
                process.send_signal(signal.SIGINT)
                await ws.wait_closed()
                assert ws.close_code == 1001
            assert process.stderr is not None
            assert (await process.stderr.read(), await process.wait()) == (b"", 0)

    asyncio.run(run())


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
