"""`max_queue` of `wsfast.websockets` towards the peer: reading stops and goes on where websockets' does.

The peer is a state machine on a bare socket that sends messages one by one, each with a ping: it is answered if what
came with it is read.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio
from shared import until

from wsfast.asyncio.channel import PAUSED_HELD
from wsfast.connection import Connection, Side
from wsfast.events import Pong
from wsfast.websockets.asyncio.connection import Connection as AsyncioConnection
from wsfast.websockets.asyncio.server import serve
from wsfast.websockets.dialing import marks
from wsfast.websockets.protocol import SERVER, Protocol
from wsfast.websockets.sync.connection import Connection as SyncConnection
from wsfast.websockets.trio.connection import Connection as TrioConnection

LARGE = b"x" * 70000

# `max_queue`, then messages, how many of them stop the reading, and how many may be left when it goes on.
CASES: list[tuple[Any, bytes, int, int]] = [
    (1, b"x", 2, 0),
    (4, b"x", 5, 1),
    ((4, 2), b"x", 5, 2),
    ((4, 0), b"x", 5, 0),
    ((None, 1), b"x", 5, 1),
    (4, LARGE, 5, 1),
    (16, LARGE, 17, 4),  # however large they are, as many are taken
    ((16, 10), LARGE, 17, 10),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{len(case[1])}")


class Peer:
    """The client's side, on a bare socket that nobody else reads."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connection = Connection(Side.CLIENT)
        self.pongs = 0

    def send(self, message: bytes) -> None:
        self.connection.send_message(message)
        self.connection.send_ping(b"?")
        self.sock.sendall(self.connection.encoder.take())

    def wait(self, pongs: int) -> None:
        """Wait until so many pings were answered in all."""
        while self.pongs < pongs:
            events = self.connection.receive_data(self.sock.recv(65536))
            self.pongs += sum(isinstance(event, Pong) for event in events)

    def send_and_wait(self, message: bytes, pongs: int) -> None:
        self.send(message)
        self.wait(pongs)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Peer]]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # one message fits, whoever reads
    with ours, theirs:
        yield ours, Peer(theirs)


@pytest.mark.anyio
@cases
async def test_asyncio(pair: tuple[socket.socket, Peer], case: tuple[Any, bytes, int, int]) -> None:
    (ours, peer), (max_queue, message, most, low) = pair, case
    loop = asyncio.get_running_loop()
    ours.setblocking(False)
    make: Any = partial(AsyncioConnection, Protocol(SERVER), max_queue=max_queue)
    _, ws = await loop.create_connection(make, sock=ours)
    channel = ws._channel
    for number in range(1, most):
        await asyncio.to_thread(peer.send_and_wait, message, number)
        assert not channel.paused, number
    # Of the message that is too much, the ping behind it may not be read.
    await asyncio.to_thread(peer.send, message)
    await until(lambda: channel.paused)
    last = asyncio.ensure_future(asyncio.to_thread(peer.send_and_wait, message, most + 1))
    for left in range(most - 1, low - 1, -1):
        assert await ws.recv() == message
        assert bool(channel.paused) is (left > low), left
    await last
    for _ in range(low + 1):
        assert await ws.recv() == message
    channel.transport.abort()
    await ws.wait_closed()


@cases
def test_threads(pair: tuple[socket.socket, Peer], case: tuple[Any, bytes, int, int]) -> None:
    (ours, peer), (max_queue, message, most, low) = pair, case
    ws = SyncConnection(ours, Protocol(SERVER), max_queue=max_queue)
    for number in range(1, most):
        peer.send_and_wait(message, number)
        assert not ws._paused, number
    peer.send(message)
    while not ws._paused:
        time.sleep(0.001)
    last = threading.Thread(target=peer.send_and_wait, args=(message, most + 1), daemon=True)
    last.start()
    for left in range(most - 1, low - 1, -1):
        assert ws.recv() == message
        assert ws._paused is (left > low), left
    last.join()
    for _ in range(low + 1):
        assert ws.recv() == message
    ws.close_socket()


@cases
def test_trio(pair: tuple[socket.socket, Peer], case: tuple[Any, bytes, int, int]) -> None:
    (ours, peer), (max_queue, message, most, low) = pair, case

    async def main() -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with trio.open_nursery() as nursery:
            ws = TrioConnection(nursery, stream, Protocol(SERVER), max_queue=max_queue)
            for number in range(1, most):
                await trio.to_thread.run_sync(peer.send_and_wait, message, number)
                assert not ws._paused, number
            peer.send(message)
            while not ws._paused:
                await trio.sleep(0.001)
            async with trio.open_nursery() as last:
                last.start_soon(trio.to_thread.run_sync, peer.send_and_wait, message, most + 1)
                for left in range(most - 1, low - 1, -1):
                    assert await ws.recv() == message
                    assert ws._paused is (left > low), left
            for _ in range(low + 1):
                assert await ws.recv() == message
            await ws.close_stream()

    trio.run(main)


@pytest.mark.anyio
@pytest.mark.parametrize("max_queue", [16, (16, 4), 100, None])
async def test_many_small_ones_do_not_stop_it_from_the_default_on(
    pair: tuple[socket.socket, Peer], max_queue: Any
) -> None:
    ours, peer = pair
    make: Any = partial(AsyncioConnection, Protocol(SERVER), max_queue=max_queue)
    _, ws = await asyncio.get_running_loop().create_connection(make, sock=ours)
    for _ in range(500):
        peer.connection.send_message(b"x")
    await asyncio.to_thread(peer.send, b"x")
    assert [await ws.recv() for _ in range(501)] == [b"x"] * 501
    assert not ws._channel.paused & PAUSED_HELD  # a turn may still end, of what one read brought
    ws._channel.transport.abort()
    await ws.wait_closed()


@pytest.mark.parametrize(
    ("max_queue", "text"),
    [
        ((4, -1), "low must be positive or equal to zero"),
        (-1, "low must be positive or equal to zero"),
        ((2, 4), "high must be greater than or equal to low"),
    ],
)
@pytest.mark.anyio
async def test_marks_out_of_order(max_queue: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        marks(max_queue)
    with pytest.raises(ValueError, match=f"^{text}$"):
        serve(lambda ws: ws.wait_closed(), "localhost", 0, max_queue=max_queue)
