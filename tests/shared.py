"""What tests on asyncio share, whatever they test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import wsfast
from wsfast.deflate.context import PerMessageDeflate

__all__ = ["SLOWNESS", "HeldCompression", "echo", "port_of", "stream_echo", "until"]

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


def port_of(server: Any) -> int:
    """Return the port of the first socket that a server listens on."""
    return int(server.sockets[0].getsockname()[1])


async def until(condition: Callable[[], object], patience: float = 10.0 * SLOWNESS) -> None:
    """Wait for what nothing tells of; fail after so many seconds."""
    async with asyncio.timeout(patience):
        while not condition():
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
