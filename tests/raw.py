"""A WebSocket client of bare bytes, for tests that must see, or break, what is on the wire."""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self, cast

from shared import port_of, serving
from vectors import BINARY, CLOSE, PING, TEXT, frame

import wsfast

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
"""The key of the example in RFC 6455, 1.3."""
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""What a server answers to it."""
MASK = b"TEST"
PATIENCE = 10.0
"""Seconds after which a test fails because what it waits for has not come."""


class Frame(NamedTuple):
    """A frame that a server sent."""

    fin: bool
    rsv: int
    opcode: int
    payload: bytes


def request(*subprotocols: str, path: str = "/", headers: dict[str, str] | None = None) -> bytes:
    """Build an opening handshake; each of `subprotocols` is a header of its own and may be a list."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *(f"Sec-WebSocket-Protocol: {names}" for names in subprotocols),
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def text(payload: str | bytes, *, fin: bool = True) -> bytes:
    """Build a masked text frame."""
    return frame(TEXT, payload.encode() if isinstance(payload, str) else payload, fin=fin, key=MASK)


def binary(payload: bytes, *, fin: bool = True) -> bytes:
    """Build a masked binary frame."""
    return frame(BINARY, payload, fin=fin, key=MASK)


def ping(payload: bytes = b"") -> bytes:
    """Build a masked Ping frame."""
    return frame(PING, payload, key=MASK)


def close(code: int | None = 1000, reason: str = "") -> bytes:
    """Build a masked Close frame; without a body if the code is None."""
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode(), key=MASK)


class RawClient:
    """A connection to a server; `open_raw` makes one.

    Attributes:
        reader, writer: the streams beneath.
        status, headers, body: the response to the handshake; headers have lower-case names.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def pause_reading(self) -> None:
        """Take no more, so that the server's messages wait on its side."""
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def resume_reading(self) -> None:
        """Take what waits."""
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.abort()

    async def handshake(self, *subprotocols: str, **options: Any) -> RawClient:
        """Send an opening handshake and read the response, the body of a refusal too."""
        return await self.exchange(request(*subprotocols, **options))

    async def exchange(self, data: bytes) -> RawClient:
        """Send bytes and read an HTTP response."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")[:-2]
            self.status = int(first.split()[1])
            self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if self.status != 101:
                self.body = await self.reader.read()
        return self

    def send(self, *frames: bytes) -> None:
        """Send bytes, in one write."""
        self.writer.write(b"".join(frames))

    async def receive(self) -> Frame:
        """Read one frame, which must not be masked and has the shortest length encoding."""
        async with asyncio.timeout(PATIENCE):
            first, second = await self.reader.readexactly(2)
            assert second < 128, "a server's frame is masked"
            length = second
            if length == 126:
                length = int.from_bytes(await self.reader.readexactly(2), "big")
                assert length > 125
            elif length == 127:
                length = int.from_bytes(await self.reader.readexactly(8), "big")
                assert length > 65535
            payload = await self.reader.readexactly(length)
        return Frame(bool(first & 0x80), first >> 4 & 7, first & 15, payload)

    async def receive_message(self) -> str | bytes:
        """Read the frames of one whole message."""
        received = await self.receive()
        opcode, payload = received.opcode, received.payload
        assert opcode in (TEXT, BINARY), received
        while not received.fin:
            received = await self.receive()
            assert received.opcode == 0, received
            payload += received.payload
        return payload.decode() if opcode == TEXT else payload

    async def receive_close(self) -> tuple[int | None, str]:
        """Read a Close frame and return its code, None if it has no body, and its reason."""
        received = await self.receive()
        assert received[:3] == (True, 0, CLOSE), received
        if not received.payload:
            return None, ""
        return int.from_bytes(received.payload[:2], "big"), received.payload[2:].decode()

    async def receive_eof(self) -> None:
        """Wait for the end, and see that nothing comes before it."""
        async with asyncio.timeout(PATIENCE):
            assert await self.reader.read() == b""

    async def end(self, code: int = 1000) -> None:
        """Close with the closing handshake, wait for the end, and end too: the peer waits for that."""
        self.send(close(code))
        assert (await self.receive_close())[0] == code
        await self.receive_eof()
        self.writer.close()

    def reset(self) -> None:
        """End the connection so that the peer gets a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()


async def open_raw(
    server: Any = None, *, unix: str | None = None, ssl: ssl_module.SSLContext | None = None, port: int | None = None
) -> RawClient:
    """Connect to a server's first address on 127.0.0.1, or to a Unix socket."""
    if unix is not None:
        reader, writer = await asyncio.open_unix_connection(unix)
    else:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            port_of(server) if port is None else port,
            ssl=ssl,
            server_hostname="localhost" if ssl else None,
        )
    return RawClient(reader, writer)


async def connect_raw(server: Any, *subprotocols: str, **options: Any) -> RawClient:
    """Connect and finish the opening handshake."""
    client = await open_raw(server, **options)
    await client.handshake(*subprotocols)
    assert client.status == 101, (client.status, client.body)
    return client


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[wsfast.WebSocket, RawClient]]:
    """Open a connection; what the server's side does is for the test to do. Options are those of `wsfast.serve`."""
    opened: asyncio.Future[wsfast.WebSocket] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def handler(ws: wsfast.WebSocket) -> None:
        opened.set_result(ws)
        await done.wait()

    async with serving(handler, **options) as server, await connect_raw(server) as client, asyncio.timeout(20):
        try:
            yield await opened, client
        finally:
            done.set()
