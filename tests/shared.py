"""What tests on asyncio share, whatever they test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import wsfast
from wsfast.deflate.context import PerMessageDeflate

__all__ = ["SLOWNESS", "HeldCompression", "echo", "port_of", "serving", "stream_echo", "until"]

# The Python twins do the same, but not as fast.
SLOWNESS = 1 if wsfast.IMPLEMENTATION == "cython" else 4


async def echo(ws: wsfast.WebSocket) -> None:
    """Send each message back."""
    async for message in ws:
        await ws.send(message)


async def stream_echo(reader: wsfast.Reader, writer: wsfast.Writer) -> None:
    """Send all bytes back."""
    while data := await reader.read():
        await writer.write(data)
        await writer.flush()


@contextlib.asynccontextmanager
async def serving(
    handler: Any = echo,
    *,
    register: Callable[[wsfast.Server], object] | None = None,
    ssl: Any = None,
    patience: float = 60.0 * SLOWNESS,
    **options: Any,
) -> AsyncIterator[wsfast.Server]:
    """Run a server on a free port of this machine until the block ends.

    Args:
        handler: for clients that offer no subprotocol: a coroutine function, or a class of listeners.
        register: registers what the server has, in place of `handler`.
        ssl: the server's context.
        patience: seconds that the block may take.
        options: those of `wsfast.serve`; with `register`, those of `wsfast.Server`.
    """
    options = {"stop_timeout": 2.0, **options}
    async with asyncio.timeout(patience):
        if register is None:
            served = {None: handler} if isinstance(handler, type) else handler
            async with wsfast.serve(served, "127.0.0.1", 0, ssl=ssl, **options) as server:
                yield server
        else:
            server = wsfast.Server(**options)
            register(server)
            async with server:
                await server.start("127.0.0.1", 0, ssl=ssl)
                yield server


def port_of(server: Any) -> int:
    """Return the port of the first socket that a server listens on."""
    return int(server.sockets[0].getsockname()[1])


async def until(condition: Callable[[], object], patience: float = 10.0 * SLOWNESS) -> None:
    """Wait for what nothing tells of; fail if it is not so after so many seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while not condition():
        if loop.time() >= end:
            raise TimeoutError(f"{condition} is not so after {patience} s")
        await asyncio.sleep(0.002)


class HeldCompression:
    """Keeps threads from compressing until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()
        self._compress = PerMessageDeflate.compress
        monkeypatch.setattr(PerMessageDeflate, "compress", lambda *args: self._held(*args))

    def _held(self, compression: PerMessageDeflate, data: bytes) -> bytes:
        self.began.set()
        assert self.go_on.wait(20)
        return self._compress(compression, data)
