"""The loop's own transport with a `Backlog`: what a peer does not take is counted, and costs the next frame nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asgi_helpers import Receive, Scope, Send, accept, running
from raw import open_raw
from shared import until

from wsfast.asgi import of
from wsfast.transport.backlog import Backlog

pytestmark = pytest.mark.anyio

MUCH = bytes(8_000_000)
"""More than the system takes for a peer that does not read."""


class Protocol(asyncio.Protocol):
    """Passes on to a backlog what the inner transport tells, as its user has to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        inner: Any = transport  # uvloop's classes do not derive from asyncio's
        self.backlog = Backlog(inner, lambda: self.told.append("pause"), lambda: self.told.append("resume"))

    def pause_writing(self) -> None:
        self.backlog.pause_writing()

    def resume_writing(self) -> None:
        self.backlog.resume_writing()

    def eof_received(self) -> bool:
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Backlog, Protocol, socket.socket]]:
    """Yield a backlog, its protocol, and the peer, which reads nothing by itself."""
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_unix_connection(Protocol, sock=ours)
    try:
        yield protocol.backlog, protocol, peer
    finally:
        if not protocol.ended.done():
            protocol.backlog.abort()
        await protocol.ended
        peer.close()


async def read(peer: socket.socket, size: int | None = None) -> bytes:
    """Receive so many bytes, or all to the end."""
    data = bytearray()
    while size is None or len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
        if not more:
            break
        data += more
    return bytes(data)


async def test_what_is_sent_at_once_is_not_held() -> None:
    async with connected() as (backlog, protocol, peer):
        for piece in (b"a", bytearray(b"b"), memoryview(b"c")):
            backlog.write(piece)
        backlog.writelines([b"d", b"e"])
        backlog.writelines([b"f", b"g", b"h"])
        assert await read(peer, 8) == b"abcdefgh"
        assert backlog.get_write_buffer_size() == 0
        assert protocol.told == []


async def test_pieces_are_counted_and_handed_over_in_order() -> None:
    async with connected() as (backlog, protocol, peer):
        backlog.write(MUCH)
        await until(lambda: backlog._full)
        first = backlog.inner.get_write_buffer_size()
        assert protocol.told == ["pause"]
        changed = bytearray(b"changed")
        backlog.write(changed)
        changed[:] = b"by then"
        for number in range(1000):
            backlog.write(b"%04d" % number)
            assert backlog.inner.get_write_buffer_size() == first  # which may sum up what it has
        backlog.writelines([b"two", b"pieces"])
        assert backlog.get_write_buffer_size() == first + 7 + 4000 + 9
        expected = MUCH + b"changed" + b"".join(b"%04d" % number for number in range(1000)) + b"twopieces"
        assert await read(peer, len(expected)) == expected
        await until(lambda: protocol.told == ["pause", "resume"])
        assert backlog.get_write_buffer_size() == 0
        backlog.write(b"more")
        assert await read(peer, 4) == b"more"


async def test_marks() -> None:
    async with connected() as (backlog, protocol, peer):
        backlog.set_write_buffer_limits(1 << 30, 1000)
        assert backlog.get_write_buffer_limits() == (1000, 1 << 30)
        backlog.write(MUCH)
        await until(lambda: backlog._full)
        assert protocol.told == []
        backlog.set_write_buffer_limits()
        assert backlog.get_write_buffer_limits() == (16384, 65536)
        assert protocol.told == ["pause"]
        backlog.set_write_buffer_limits(low=7)
        assert backlog.get_write_buffer_limits() == (7, 28)
        assert protocol.told == ["pause"]
        assert len(await read(peer, len(MUCH))) == len(MUCH)
        await until(lambda: protocol.told == ["pause", "resume"])


@pytest.mark.parametrize("end", ["close", "write_eof"])
async def test_the_end_comes_after_what_is_held(end: str) -> None:
    async with connected() as (backlog, _, peer):
        assert backlog.can_write_eof()
        backlog.write(MUCH)
        await until(lambda: backlog._full)
        backlog.write(b"last")
        getattr(backlog, end)()
        assert backlog.is_closing() is (end == "close")
        assert await read(peer) == MUCH + b"last"


async def test_abort_drops_what_is_held() -> None:
    async with connected() as (backlog, protocol, peer):
        backlog.write(MUCH)
        await until(lambda: backlog._full)
        backlog.write(b"last")
        backlog.abort()
        assert backlog._size == 0
        await protocol.ended
        assert not (await read(peer)).endswith(b"last")


async def test_the_rest_is_the_inner_transports() -> None:
    async with connected() as (backlog, protocol, _):
        assert backlog.get_protocol() is protocol
        assert backlog.get_extra_info("socket").fileno() == backlog.inner.get_extra_info("socket").fileno()
        assert backlog.get_extra_info("nothing", 7) == 7
        backlog.pause_reading()
        assert not backlog.is_reading()
        backlog.resume_reading()
        assert backlog.is_reading()
        assert "0 bytes held" in repr(backlog)


async def test_what_was_unsent_before_counts() -> None:
    """A protocol that is paused already is told when there is room."""
    async with connected() as (first, protocol, peer):
        first.inner.write(MUCH)
        await until(lambda: first._full)
        protocol.backlog = backlog = Backlog(first.inner, first._pause, first._resume)
        backlog.write(b"last")
        assert protocol.told == []
        assert (await read(peer, len(MUCH) + 4))[-4:] == b"last"
        await until(lambda: protocol.told == ["resume"])


async def test_a_connection_that_cannot_be_moved_yet(tmp_path: Path) -> None:
    """Of an ASGI application, whose peer does not read. A Unix socket takes no more by itself, as one of TCP may."""
    path = str(tmp_path / "socket")
    reads_no_more, behind = asyncio.Event(), asyncio.Event()
    big: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await reads_no_more.wait()
        ws = of(scope)
        transport = ws._channel.transport
        assert isinstance(transport, Backlog)
        while not transport._full:
            big.append(bytes([len(big)]) * 1_000_000)
            ws.send_nowait(big[-1])
        inner = transport.inner.get_write_buffer_size()
        for number in range(500):
            ws.send_nowait(f"{number:04}")
            await asyncio.sleep(0)
            assert transport.inner.get_write_buffer_size() == inner  # which may sum up what it has
        assert ws._channel.buffered == inner + 500 * 6
        sending = asyncio.ensure_future(send({"type": "websocket.send", "text": "after"}))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not sending.done()  # it waits for room
        behind.set()
        await sending

    async with running(app, uds=path), await open_raw(unix=path) as client:
        await client.handshake()
        client.pause_reading()
        reads_no_more.set()
        await asyncio.wait_for(behind.wait(), 10)
        client.resume_reading()
        for message in (*big, *(f"{number:04}" for number in range(500)), "after"):
            assert await client.receive_message() == message
        assert (await client.receive_close())[0] == 1000
