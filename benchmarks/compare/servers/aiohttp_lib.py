"""aiohttp's server."""

import argparse
import asyncio

from aiohttp import WSMsgType, web

from ._run import arguments, run, tls_context

sockets: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False, max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def to_all(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False, max_msg_size=0)
    await ws.prepare(request)
    sockets.add(ws)
    try:
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                for one in sockets:
                    await one.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                for one in sockets:
                    await one.send_bytes(message.data)
    finally:
        sockets.discard(ws)
    return ws


async def main(options: argparse.Namespace) -> None:
    app = web.Application()
    app.router.add_get("/", to_all if options.broadcast else echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, ssl_context=tls_context(options)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main, arguments())
