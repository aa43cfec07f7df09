"""Echo servers with permessage-deflate, one in each process: what `test_deflate.py` measures from outside.

    python -m benchmarks.deflate_servers PEER LOOP

It prints the port. Each library serves with its defaults, but for what the peer's name says, and without keepalive:
a client waits for its turn without answering pings, on a busy machine for minutes. `LOOP` is asyncio or uvloop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

__all__ = ["SERVERS"]

BUDGET = 1 << 20
"""Bytes that all contexts may take, where the budget is measured: 13 connections' worth."""


async def _wsfast(**options: object) -> int:
    import wsfast

    async def echo(ws: wsfast.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    server = wsfast.Server(compression=wsfast.Deflate(**options), ping_interval=None)  # type: ignore[arg-type]
    server.register_handler(None, echo)
    await server.start("127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


async def _wsfast_budget() -> int:
    import wsfast

    return await _wsfast(budget=wsfast.DeflateBudget(BUDGET))


async def _wsfast_zlib() -> int:
    return await _wsfast(backend="zlib")


async def _wsfast_listener() -> int:
    import wsfast

    class Echo(wsfast.Listener):
        def on_message(self, message: str | bytes) -> None:
            self.ws.send_nowait(message)

    server = wsfast.Server(compression="deflate", ping_interval=None)
    server.register_listener(None, Echo)
    await server.start("127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


async def _websockets() -> int:
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    server = await serve(echo, "127.0.0.1", 0, ping_interval=None)
    return int(next(iter(server.sockets)).getsockname()[1])


async def _aiohttp() -> int:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


async def _aiohttp_isal() -> int:
    import aiohttp
    from isal import isal_zlib

    aiohttp.set_zlib_backend(isal_zlib)
    return await _aiohttp()


SERVERS: dict[str, Callable[[], Awaitable[int]]] = {
    "wsfast": _wsfast,
    "wsfast listener": _wsfast_listener,
    "wsfast zlib": _wsfast_zlib,
    "wsfast budget": _wsfast_budget,
    "websockets": _websockets,
    "aiohttp": _aiohttp,
    "aiohttp isal": _aiohttp_isal,
}


async def _main(peer: str) -> None:
    port = await SERVERS[peer]()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_main(sys.argv[1]))
