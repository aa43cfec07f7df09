"""Small proxies for tests: HTTP CONNECT, and SOCKS 4a and 5 (RFC 1928, RFC 1929)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Connect = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


class Tunnels:
    """A proxy that is running.

    Attributes:
        port: where it listens.
        asked: what it was asked for: host and port, and for HTTP the request's head.
    """

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        self.port = 0
        self.credentials = credentials
        self.asked: list[tuple[str, int, bytes]] = []

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve CONNECT."""
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.match(rb"CONNECT (\S+):(\d+) HTTP/1\.1\r\n", head)
        if found is None:
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        if self.credentials is not None:
            expected = base64.b64encode(":".join(self.credentials).encode())
            if b"Proxy-Authorization: Basic " + expected + b"\r\n" not in head:
                body = b"who are you?"
                writer.write(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
                )
                return
        host, port = found[1].decode().strip("[]"), int(found[2])
        self.asked.append((host, port, head))
        await self._tunnel(reader, writer, host, port, b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve SOCKS of either version."""
        if (await reader.readexactly(1)) == b"\x04":
            await self._socks4(reader, writer)
        else:
            await self._socks5(reader, writer)

    async def _socks4(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(7)
        await reader.readuntil(b"\0")
        host = str(ipaddress.IPv4Address(head[3:7]))
        if host.startswith("0.0.0."):
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        port = int.from_bytes(head[1:3], "big")
        self.asked.append((host, port, b"socks4"))
        await self._tunnel(reader, writer, host, port, b"\0\x5a" + bytes(6))

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        if self.credentials is None:
            writer.write(b"\x05\x00")
        elif 2 not in methods:
            writer.write(b"\x05\xff")
            return
        else:
            writer.write(b"\x05\x02")
            await reader.readexactly(1)
            name = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = (name.decode(), password.decode()) == self.credentials
            writer.write(b"\x01\x00" if good else b"\x01\x01")
            if not good:
                return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((host, port, b"socks5"))
        await self._tunnel(reader, writer, host, port, b"\x05\x00\x00\x01" + bytes(6), b"\x05\x05\x00\x01" + bytes(6))

    async def _tunnel(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        success: bytes,
        failure: bytes = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    ) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.write(failure)
            return
        writer.write(success)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy(
    kind: str, *, credentials: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Tunnels]:
    """Run a proxy, ``"http"`` or ``"socks"``."""
    tunnels = Tunnels(credentials)
    tasks: set[asyncio.Task[Any]] = set()
    serve: Connect = getattr(tunnels, kind)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await serve(reader, writer)
                await writer.drain()
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    tunnels.port = server.sockets[0].getsockname()[1]
    try:
        yield tunnels
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()
