"""websockets_proxy, through a SOCKS proxy: it subclasses the old `Connect`, and calls what `await` calls."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import serve
from websockets_proxy import Proxy, proxy_connect


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _, count = await reader.readexactly(2)
    await reader.readexactly(count)
    writer.write(b"\5\0")
    assert await reader.readexactly(4) == b"\5\1\0\1"  # CONNECT to an IPv4 address
    host = ".".join(map(str, await reader.readexactly(4)))
    port = int.from_bytes(await reader.readexactly(2), "big")
    there = await asyncio.open_connection(host, port)
    writer.write(b"\5\0\0\1" + bytes(6))
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))


async def echo(ws: Any) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with serve(echo, "127.0.0.1", 0) as server, await asyncio.start_server(socks, "127.0.0.1", 0) as between:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        proxy = Proxy.from_url(f"socks5://127.0.0.1:{between.sockets[0].getsockname()[1]}")
        ws = await proxy_connect(uri, proxy=proxy)
        await ws.send("hello")
        assert await ws.recv() == "hello"
        await ws.close()
        async with proxy_connect(uri, proxy=proxy) as other:
            await other.send(b"there")
            assert await other.recv() == b"there"


asyncio.run(asyncio.wait_for(main(), 60))
