"""Web frameworks under uvicorn with wsfast, each in an environment of its own, which the first run makes from PyPI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import venv
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from raw import open_raw

import wsfast

pytestmark = [pytest.mark.anyio, pytest.mark.frameworks]

HERE = Path(__file__).parent
PACKAGES = {
    "channels": ["channels", "django"],
    "litestar": ["litestar"],
    "quart": ["quart"],
    "falcon": ["falcon"],
    "blacksheep": ["blacksheep"],
    "socketio": ["python-socketio"],
}
WAYS = [("--ws", "wsfast.uvicorn:Protocol"), ("--http", "wsfast.uvicorn:HTTP")]


def python_of(framework: str) -> Path:
    """Return an interpreter that has a framework; its environment is in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsfast" / "frameworks"
    here = zlib.crc32(sys.base_prefix.encode())  # one with a GIL and one without may have the same version
    place = cache / f"{framework}-{sys.version_info[0]}.{sys.version_info[1]}-{here:08x}"
    python, done = place / "bin" / "python", place / ".done"
    if not done.exists():
        venv.create(place, with_pip=True, clear=True)
        wanted = [*PACKAGES[framework], "uvicorn", "uvloop", "h11", "httptools", "multidict"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        done.touch()
    return python


@contextlib.asynccontextmanager
async def running(framework: str, way: tuple[str, str]) -> AsyncIterator[int]:
    """Run an application under uvicorn; the value is its port."""
    python = await asyncio.to_thread(python_of, framework)
    source = str(Path(wsfast.__file__).parent.parent)
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-m", "uvicorn", *way, "--port", "0", f"{framework}_app:app"),
        cwd=HERE / "frameworks",
        env={**os.environ, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(60):
            while not (found := re.search(rb"running on http://127\.0\.0\.1:(\d+)", said)):
                line = await process.stderr.readline()
                assert line, said.decode()
                said += line
        yield int(found[1])
        process.terminate()
        async with asyncio.timeout(20):
            said += await process.stderr.read()
        assert b"Traceback" not in said, said.decode()
        assert b"ERROR" not in said, said.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("way", WAYS, ids=["ws", "http"])
@pytest.mark.parametrize("framework", [name for name in PACKAGES if name != "socketio"])
async def test_a_framework(framework: str, way: tuple[str, str]) -> None:
    async with running(framework, way) as port:
        async with wsfast.connect(f"ws://127.0.0.1:{port}/ws", subprotocols=["v1", "v2"], compression="deflate") as ws:
            assert ws.subprotocol == "v1"
            await ws.send("x" * 10_000)
            assert await ws.recv() == "x" * 10_000
            if framework in ("falcon", "blacksheep"):
                await ws.send("bytes")
            else:
                await ws.send(b"\x00\xff")
            assert await ws.recv() == b"\x00\xff"
            await ws.send("of")
            assert await ws.recv() == "sent 2"
            await ws.send("close")
            with pytest.raises(wsfast.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (4000, "asked to")
        async with wsfast.connect(f"ws://127.0.0.1:{port}/ws") as ws:
            await ws.send("still here")
            assert await ws.recv() == "still here"
        async with await open_raw(port=port) as client:
            await client.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.status == 200
            assert b"http" in client.body


@pytest.mark.parametrize("way", WAYS, ids=["ws", "http"])
async def test_socketio(way: tuple[str, str]) -> None:
    """By hand: Engine.IO 4 (open, then Socket.IO's connect), an event that asks for an answer."""
    async with running("socketio", way) as port:
        uri = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
        async with wsfast.connect(uri) as ws:
            assert str(await ws.recv()).startswith('0{"sid"')
            await ws.send("40")
            assert str(await ws.recv()).startswith('40{"sid"')
            await ws.send('421["message","hello"]')
            assert await ws.recv() == '431[{"echo":"hello"}]'
