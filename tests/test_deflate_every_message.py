"""`Deflate(threshold=0)` compresses every message, however a program sends it, in every shell.

For peers that cannot read a message that is not compressed, once deflate is agreed on (docs/peers.md). The client is
bare bytes and zlib: what is compressed with another history than the peer's cannot be inflated.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sync_helpers
import trio
from raw import PATIENCE, request
from sync_helpers import in_thread

import wsfast
import wsfast.asgi
import wsfast.sync
import wsfast.trio
from wsfast import Deflate

NOISE = random.Random(6).randbytes(500)
MESSAGES = [b"", b"x", b"text " * 100, *[NOISE] * 12, b"text " * 100]
"""Small ones, and so much noise that others than these would be sent plain for a while."""
EVERY = Deflate(threshold=0)


class Inflating:
    """A client that reads a server's frames and inflates their messages."""

    def __init__(self, port: int, offer: str = "permessage-deflate") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(request(headers={"Sec-WebSocket-Extensions": offer}))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.file.readline()
        assert b" 101 " in head, head
        assert b"permessage-deflate" in head, head
        self.inflate = zlib.decompressobj(-15)
        self.plain = 0

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def receive(self) -> bytes | None:
        """Return the next message; None for a Close frame. Note whether it was compressed."""
        whole, compressed = b"", None
        while True:
            first, size = self.file.read(2)
            if size > 125:
                size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
            payload = self.file.read(size)
            if first & 15 == 8:
                return None
            if compressed is None:
                compressed = bool(first & 0x40)
            whole += payload
            if first & 0x80:
                break
        if not compressed:
            self.plain += 1
            return whole
        return self.inflate.decompress(whole + b"\x00\x00\xff\xff")


@contextlib.contextmanager
def inflating(port: int) -> Iterator[Inflating]:
    client = Inflating(port)
    try:
        yield client
    finally:
        client.close()


async def on_asyncio(ws: wsfast.WebSocket, publish: Callable[..., Any]) -> None:
    await ws.subscribe("t")
    for message in MESSAGES:
        await ws.send(message)
        await ws.send([message, b"y"])
        ws.send_nowait(message)
        wsfast.broadcast([ws], message)
        publish("t", message)
    publish("t", "an end")


def in_threads(ws: Any, publish: Callable[..., Any]) -> None:
    ws.subscribe("t")
    for message in MESSAGES:
        ws.send(message)
        ws.send([message, b"y"])
        wsfast.sync.broadcast([ws], message)
        publish("t", message)
    publish("t", "an end")


async def on_trio(ws: Any, publish: Callable[..., Any]) -> None:
    await ws.subscribe("t")
    for message in MESSAGES:
        await ws.send(message)
        await ws.send(pieces(message))
        publish("t", message)
    publish("t", "an end")
    with contextlib.suppress(wsfast.ConnectionClosed):
        await ws.recv()  # a publish is sent at the end of the turn


async def pieces(message: bytes) -> Any:
    yield message
    yield b"y"


def expected(*forms: str) -> list[bytes]:
    return [message + b"y" * (form == "pieces") for message in MESSAGES for form in forms] + [b"an end"]


def taken(port: int, count: int) -> tuple[list[bytes | None], int]:
    with inflating(port) as client:
        return [client.receive() for _ in range(count)], client.plain


def test_on_asyncio() -> None:
    topics = wsfast.Topics()

    async def handler(ws: wsfast.WebSocket) -> None:
        await on_asyncio(ws, topics.publish)
        await ws.wait_closed()

    with sync_helpers.running(handler, compression=EVERY, topics=topics) as running:
        port = running.server.sockets[0].getsockname()[1]
        awaited = expected("send", "pieces", "nowait", "broadcast", "publish")
        assert taken(port, len(awaited)) == (awaited, 0)


def test_in_threads() -> None:
    def handler(ws: Any) -> None:
        in_threads(ws, server.publish)

    server = wsfast.sync.serve(handler, "127.0.0.1", 0, compression=EVERY, topics=wsfast.Topics())
    serving = in_thread(server.serve_forever)
    try:
        awaited = expected("send", "pieces", "broadcast", "publish")
        assert taken(server.socket.getsockname()[1], len(awaited)) == (awaited, 0)
    finally:
        server.shutdown()
        serving.join()


def test_on_trio() -> None:
    async def main() -> None:
        async def handler(ws: Any) -> None:
            await on_trio(ws, server.publish)

        topics = wsfast.Topics()
        async with trio.open_nursery() as nursery:
            serve = partial(wsfast.trio.serve, handler, "127.0.0.1", 0, compression=EVERY, topics=topics)
            server = await nursery.start(serve)
            awaited = expected("send", "pieces", "publish")
            port = server.sockets[0].getsockname()[1]
            assert await trio.to_thread.run_sync(taken, port, len(awaited)) == (awaited, 0)
            await server.shutdown()

    trio.run(main)


async def application(scope: Any, receive: Any, send: Any) -> None:
    topics = wsfast.Topics()
    async with topics:
        await receive()
        await send({"type": "websocket.accept"})
        ws = wsfast.asgi.of(scope)
        await topics.subscribe(ws, "t")
        for message in MESSAGES:
            await send({"type": "websocket.send", "bytes": message})
            topics.publish("t", message)
        topics.publish("t", "an end")
        await receive()


@pytest.mark.anyio
async def test_behind_asgi() -> None:
    from asgi_helpers import running

    import wsfast.uvicorn

    ws = wsfast.uvicorn.configure(compression=EVERY)
    async with running(application, ws=ws) as run:
        awaited = expected("send", "publish")
        assert await asyncio.to_thread(taken, run.port, len(awaited)) == (awaited, 0)


def test_shared_messages_between_a_threads_own() -> None:
    """The topics' thread writes what many share, while another thread compresses with this connection's history."""
    count, own = 300, b"some text that repeats itself, number %d " * 40
    begin, done = threading.Event(), threading.Event()

    def handler(ws: Any) -> None:
        ws.subscribe("t")
        begin.set()
        for number in range(count):
            ws.send(own % ((number,) * 40) if number % 3 else [own % ((number,) * 40), b"", b"!"])
        done.wait(PATIENCE)

    server = wsfast.sync.serve(handler, "127.0.0.1", 0, compression=EVERY, topics=wsfast.Topics())
    serving = in_thread(server.serve_forever)

    def publish() -> None:
        begin.wait(PATIENCE)
        for number in range(count):
            server.publish("t", b"shared %d, some text that repeats itself" % number, wait=False)

    publishing = in_thread(publish)
    try:
        with inflating(server.socket.getsockname()[1]) as client:
            came = [client.receive() for _ in range(2 * count)]
            done.set()
    finally:
        publishing.join()
        server.shutdown()
        serving.join()
    shared = [message for message in came if message is not None and message.startswith(b"shared")]
    assert shared == [b"shared %d, some text that repeats itself" % number for number in range(count)]
    others = [message.removesuffix(b"!") for message in came if message is not None and message not in set(shared)]
    assert others == [own % ((number,) * 40) for number in range(count)]
    assert client.plain == 0
