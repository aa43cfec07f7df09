"""What a program does with `ws.transport` by itself keeps its place among the frames of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from certificates import Certificates
from shared import serving

import wsfast
from wsfast import encode_frame

pytestmark = [pytest.mark.anyio, pytest.mark.readers("a loop's own transport does not know what was gathered")]

LARGE = b"b" * 3_000_000


def raw(text: str) -> bytes:
    return encode_frame(1, text.encode())


async def send_then_write(ws: wsfast.WebSocket, transport: Any) -> None:
    await ws.send("a")
    transport.write(raw("b"))
    await ws.send("c")


async def write_then_send(ws: wsfast.WebSocket, transport: Any) -> None:
    transport.write(raw("a"))
    ws.send_nowait("b")
    transport.write(raw("c"))


async def writelines(ws: wsfast.WebSocket, transport: Any) -> None:
    ws.send_nowait("a")
    transport.writelines([raw("b"), raw("c")])


async def what_waits(ws: wsfast.WebSocket, transport: Any) -> None:
    await ws.send("a")
    transport.write(encode_frame(2, LARGE))
    await ws.send("c")


async def broadcast(ws: wsfast.WebSocket, transport: Any) -> None:
    wsfast.broadcast([ws], "a")
    transport.write(raw("b"))
    wsfast.broadcast([ws], "c")


async def pings(ws: wsfast.WebSocket, transport: Any) -> None:
    await ws.send("a")
    await ws.ping()
    transport.write(raw("b"))
    await ws.send("c")


async def the_end(ws: wsfast.WebSocket, transport: Any) -> None:
    await ws.send("a")
    await ws.send("b")
    ws.send_nowait("c")
    transport.close()


async def the_end_of_the_sending_side(ws: wsfast.WebSocket, transport: Any) -> None:
    await ws.send("a")
    await ws.send("b")
    ws.send_nowait("c")
    transport.write_eof()


WAYS = [
    *(send_then_write, write_then_send, writelines, what_waits, broadcast, pings, the_end),
    the_end_of_the_sending_side,
]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_it_keeps_its_place(
    way: Callable[[wsfast.WebSocket, Any], Awaitable[None]], tls: bool, certs: Certificates
) -> None:
    async def handler(ws: wsfast.WebSocket) -> None:
        transport = ws.transport  # and not anew for each use: it may have been kept
        await ws.recv()
        await way(ws, transport)
        await over.wait()

    over = asyncio.Event()
    inner, outer = (certs.server_context(), certs.client_context()) if tls else (None, None)
    async with serving(handler, ssl=inner) as server:
        port = server.sockets[0].getsockname()[1]
        async with wsfast.connect(f"ws{'s' if tls else ''}://localhost:{port}/", ssl=outer, max_size=None) as ws:
            await ws.send("go")
            got = [await ws.recv() for _ in range(3)]
            over.set()
    assert got == ["a", LARGE if way is what_waits else "b", "c"]
